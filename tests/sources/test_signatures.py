"""Only a revision that somebody in KAPSO_SYNC_VERIFY_FILE signed is read; a forged signature is none."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError, ExitCode, SourceUnavailable, SourceUnverified
from kapso_sync.model.events import SourceChanged
from kapso_sync.sources.armor import remove_armor
from kapso_sync.sources.signatures import SignatureRefused, SignatureVerifier, split_commit, ssh_fingerprint
from kapso_sync.sources.trusted_keys import MAX_BYTES
from tests.sources.repositories import Reader, Repository, children
from tests.sources.signing import HAS_GPG, GpgHome, SshSigner, gpg_home, raw_object, store, with_signature

needs_gpg = pytest.mark.skipif(not HAS_GPG, reason="needs gpg to sign, and gpgv")


@dataclass
class Forge:
    """A repository to push to, a file of trusted keys, and the source that reads the one by the other."""

    repository: Repository
    reader: Reader
    keys: Path

    def trust(self, content: str | bytes) -> None:
        self.keys.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, code: str, *settings: str, sign: bool = True, environment: dict[str, str] | None = None) -> str:
        self.repository.write({"a.ts": code})
        self.repository.git("add", "--all")
        options = ["--gpg-sign"] if sign else ["--no-gpg-sign"]
        command = ["git", *settings, "commit", "--quiet", "--allow-empty", *options, "--message", code]
        subprocess.run(
            command, cwd=self.repository.folder, check=True, capture_output=True, env={**os.environ, **(environment or {})}
        )
        return self.repository.git("rev-parse", "HEAD")

    def push_object(self, raw: bytes) -> str:
        """Let main point to a commit of any content."""
        commit = store(self.repository, "commit", raw)
        self.repository.git("update-ref", "refs/heads/main", commit)
        return commit

    def raw(self, commit: str, kind: str = "commit") -> bytes:
        return raw_object(self.repository, kind, commit)

    async def read(self, *, branch: str | None = "main", ref: str | None = None) -> str:
        """Return the id of the commit that is read, by a source of its own."""
        source = self.reader.open(self.repository.url, branch=None if ref else branch, ref=ref)
        return (await source.fetch()).revision.id

    async def accepts(self, commit: str) -> None:
        assert await self.read() == commit

    async def refuses(self, *, ref: str | None = None) -> SourceUnverified:
        with pytest.raises(SourceUnverified) as caught:
            await self.read(ref=ref)
        return caught.value


@pytest.fixture
def forge(upstream: Repository, tmp_path: Path) -> Forge:
    keys = tmp_path / "keys"
    return Forge(upstream, Reader(tmp_path / "state", verify_file=keys), keys)


@pytest.fixture
def ada(tmp_path: Path) -> SshSigner:
    return SshSigner.make(tmp_path / "ssh", "ada")


@pytest.fixture
def eve(tmp_path: Path) -> SshSigner:
    """Somebody who may push, and whose key is not listed."""
    return SshSigner.make(tmp_path / "ssh", "eve")


@pytest.fixture(scope="module")
def gpg() -> Iterator[GpgHome]:
    """Keys of several people, each in another condition; their signatures are made while all of them are good."""
    with gpg_home() as home:
        yield home


# Allowed signers of ssh


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_a_commit_that_a_listed_ssh_key_signed_is_read(forge: Forge, tmp_path: Path, kind: str) -> None:
    """With keys of every kind; nothing stays behind of the verification."""
    signer = SshSigner.make(tmp_path / "ssh", "signer", kind)
    forge.trust("# who may push\n\n" + signer.line('namespaces="git"'))
    commit = forge.commit("signed", *signer.settings)
    assert await forge.read() == commit
    assert not (forge.reader.folder / "verify").exists()


async def test_what_is_read_names_who_signed_it(forge: Forge, ada: SshSigner) -> None:
    """Of a commit and of a tag whose commit nobody signed; without a file of keys nobody is named."""
    forge.trust(ada.line())
    forge.commit("signed", *ada.settings)
    await forge.read()
    forge.commit("unsigned", sign=False)
    forge.repository.git(*ada.settings, "tag", "--sign", "--message", "Release", "v1")
    await forge.read(ref="v1")
    forge.reader.verify_file = None
    await forge.read()
    changed = [event for event in forge.reader.seen if isinstance(event, SourceChanged)]
    assert [event.signer for event in changed] == [ada.fingerprint, ada.fingerprint, None]


async def test_an_unsigned_commit_is_not_read(forge: Forge, ada: SshSigner) -> None:
    """The error names the commit and nobody, and its exit code is that of a source that cannot be read."""
    forge.trust(ada.line())
    commit = forge.commit("unsigned", sign=False)
    refused = await forge.refuses()
    assert (refused.commit, refused.signer, refused.exit_code) == (commit, None, ExitCode.UNAVAILABLE)
    assert refused.message == f"commit {commit[:12]} is not read: it is not signed"
    assert forge.reader.names() == []


async def test_a_commit_that_a_stranger_signed_is_not_read(forge: Forge, ada: SshSigner, eve: SshSigner) -> None:
    """The error names the stranger's fingerprint, as ssh-keygen prints it."""
    forge.trust(ada.line())
    commit = forge.commit("hello", *eve.settings)
    refused = await forge.refuses()
    assert (refused.commit, refused.signer) == (commit, eve.fingerprint)
    assert f"{eve.fingerprint}, which {forge.keys} does not list" in refused.message


async def test_only_the_tip_is_judged(forge: Forge, ada: SshSigner) -> None:
    """Unsigned parents of a signed commit are vouched for by whoever signed it."""
    forge.trust(ada.line())
    forge.commit("unsigned", sign=False)
    await forge.accepts(forge.commit("signed", *ada.settings))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('valid-before="20200101"', "whose time by valid-before is over"),
        ('valid-after="20990101"', "whose time by valid-after has not come"),
        ('namespaces="file"', "which may not sign for git"),
        ("no-such-option", "whose line has options that this ssh-keygen does not know"),
        ('namespaces="git" valid-before="20990101"', "lists, and ssh-keygen does not accept the signature"),
        ("cert-authority", "lists, and ssh-keygen does not accept the signature"),
    ],
)
async def test_options_of_allowed_signers_hold(forge: Forge, ada: SshSigner, options: str, reason: str) -> None:
    """A key is listed, and not for this signature; the hint does not say to list it."""
    forge.trust(ada.line(options))
    forge.commit("hello", *ada.settings)
    refused = await forge.refuses()
    assert (refused.signer, reason in refused.message) == (ada.fingerprint, True), refused.message
    assert "renew this one and its line" in str(refused.hint)
    forge.trust(ada.line('valid-after="20200101",valid-before="20990101",namespaces="git,file"'))
    await forge.read()


async def test_an_expired_key_cannot_be_used_by_dating_a_commit_back(forge: Forge, ada: SshSigner) -> None:
    """Who signs chooses the committer's date; git itself would accept this commit."""
    forge.trust(ada.line('valid-before="20250101"'))
    long_ago = {"GIT_COMMITTER_DATE": "2024-06-01T00:00:00Z", "GIT_AUTHOR_DATE": "2024-06-01T00:00:00Z"}
    forge.commit("back then", *ada.settings, environment=long_ago)
    settings = ["-c", f"gpg.ssh.allowedSignersFile={forge.keys}"]
    forge.repository.git(*settings, "verify-commit", "HEAD")
    assert "valid-before is over" in (await forge.refuses()).message


async def test_a_later_line_of_the_same_key_counts(forge: Forge, ada: SshSigner) -> None:
    """Though the first one allows another namespace, under another name."""
    forge.trust(f'files@example.com namespaces="file" {ada.public}\ngit@example.com namespaces="git" {ada.public}\n')
    await forge.accepts(forge.commit("hello", *ada.settings))


@pytest.mark.parametrize("principals", ["*", "*@example.com", "ada@example.com,lovelace@example.com", '"ada lovelace"', "!x,*"])
async def test_principals_of_every_spelling_work(forge: Forge, ada: SshSigner, principals: str) -> None:
    forge.trust(f"{principals} {ada.public} a comment\r\n")
    await forge.accepts(forge.commit("hello", *ada.settings))


async def test_a_certificate_of_a_listed_authority_counts_while_it_is_valid(
    forge: Forge, ada: SshSigner, eve: SshSigner, tmp_path: Path
) -> None:
    """Of that authority, for a principal that its line names; the fingerprint is that of the key in it."""
    authority = SshSigner.make(tmp_path / "ssh", "authority")
    forge.trust(f"*@example.com cert-authority {authority.public}\n{eve.line()}")
    await forge.accepts(forge.commit("certified", *ada.certificate(authority).settings))
    forge.commit("expired", *ada.certificate(authority, "-2d:-1d").settings)
    refused = await forge.refuses()
    assert (refused.signer, "not valid now" in refused.message) == (ada.fingerprint, True), refused.message
    forge.commit("by eve's authority", *ada.certificate(eve).settings)
    assert (await forge.refuses()).signer == ada.fingerprint
    forge.trust(f"*@acme.example cert-authority {authority.public}\n")
    forge.commit("of another name", *ada.certificate(authority).settings)
    await forge.refuses()
    forge.trust(f"*@example.com cert-authority {ada.public}\n")
    forge.commit("by the authority's own key", *ada.settings)
    await forge.refuses()


async def test_signed_commits_of_every_shape_are_read(forge: Forge, ada: SshSigner) -> None:
    """A merge of a signed tag, which is quoted in its header; another encoding; no message; line ends of Windows; a root."""
    forge.trust(ada.line())
    repository, settings = forge.repository, ada.settings
    repository.git("checkout", "--quiet", "-b", "topic")
    forge.commit("topic", *settings)
    repository.git(*settings, "tag", "--sign", "--message", "Topic", "topic-1")
    repository.git("checkout", "--quiet", "main")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "unsigned")
    repository.git(*settings, "merge", "--quiet", "--no-ff", "--gpg-sign", "--no-edit", "topic-1")
    merge = repository.git("rev-parse", "HEAD")
    assert b"\nmergetag object " in forge.raw(merge)
    await forge.accepts(merge)
    repository.git(*settings, "-c", "i18n.commitEncoding=ISO-8859-1", "commit", "--allow-empty", "--gpg-sign", "-m", "Grüße")
    assert b"\nencoding ISO-8859-1\ngpgsig " in forge.raw("HEAD")
    await forge.accepts(repository.git("rev-parse", "HEAD"))
    repository.git(*settings, "commit", "--allow-empty", "--gpg-sign", "--allow-empty-message", "--message", "")
    await forge.accepts(repository.git("rev-parse", "HEAD"))
    repository.git(
        *settings, "commit", "--allow-empty", "--gpg-sign", "--cleanup=verbatim", "--message", "a\r\n\r\n\r\nb\n\n\n"
    )
    await forge.accepts(repository.git("rev-parse", "HEAD"))
    repository.git("checkout", "--quiet", "--orphan", "root")
    root = forge.commit("root", *settings)
    repository.git("update-ref", "refs/heads/main", root)
    await forge.accepts(root)


# Forged signatures


async def test_a_signature_over_other_content_is_refused(forge: Forge, ada: SshSigner) -> None:
    """Ada's own signature of a commit, moved to another one."""
    forge.trust(ada.line())
    good = forge.raw(forge.commit("good", *ada.settings))
    evil = forge.push_object(with_signature(forge.raw(forge.commit("evil", sign=False)), _signature_of(good)))
    refused = await forge.refuses()
    assert (refused.commit, refused.signer) == (evil, ada.fingerprint)
    assert "does not match its content" in refused.message


def _signature_of(commit: bytes) -> bytes:
    head = commit.partition(b"\n\n")[0]
    return head.partition(b"gpgsig ")[2].replace(b"\n ", b"\n")


async def test_a_signature_for_another_namespace_is_refused(forge: Forge, ada: SshSigner) -> None:
    """Ada signed the same bytes as a file; the control is the same signature for git."""
    forge.trust(ada.line())
    raw = forge.raw(forge.commit("hello", sign=False))
    forge.push_object(with_signature(raw, ada.sign(raw, "file")))
    refused = await forge.refuses()
    assert (refused.signer, "something else than git" in refused.message) == (ada.fingerprint, True)
    await forge.accepts(forge.push_object(with_signature(raw, ada.sign(raw))))


async def test_a_signature_in_the_message_is_none(forge: Forge, ada: SshSigner) -> None:
    """Only the header counts: in the message stands what anybody may write there."""
    forge.trust(ada.line())
    raw = forge.raw(forge.commit("hello", sign=False))
    good = with_signature(raw, ada.sign(raw))
    header = good[good.index(b"gpgsig") : good.index(b"\n\n")]
    forge.push_object(raw + header + b"\n")
    assert "it is not signed" in (await forge.refuses()).message


@pytest.mark.parametrize("second", [b"gpgsig", b"gpgsig-sha256", b"gpgsigx"])
@pytest.mark.parametrize("first", [True, False])
async def test_two_signatures_are_refused(forge: Forge, ada: SshSigner, eve: SshSigner, second: bytes, first: bool) -> None:
    """Which of them another program would look at is not known."""
    forge.trust(ada.line())
    raw = forge.raw(forge.commit("hello", sign=False))
    good, other = ada.sign(raw), eve.sign(raw)
    signed = with_signature(with_signature(raw, other, second), good)
    if first:
        signed = with_signature(with_signature(raw, good), other, second)
    forge.push_object(signed)
    assert "more than one signature" in (await forge.refuses()).message


async def test_text_around_a_signature_is_refused(forge: Forge, ada: SshSigner) -> None:
    """It is covered by no signature, so nobody may put anything there."""
    forge.trust(ada.line())
    raw = forge.raw(forge.commit("hello", sign=False))
    good = ada.sign(raw)
    for odd in (b"evil\n" + good, good + b"evil\n", good + good, good.replace(b"U1NI", b"U1*I"), b""):
        forge.push_object(with_signature(raw, odd))
        await forge.refuses()
    await forge.accepts(forge.push_object(with_signature(raw, good)))


async def test_a_signature_by_x509_is_refused_as_one_of_an_unknown_kind(forge: Forge, ada: SshSigner) -> None:
    forge.trust(ada.line())
    raw = forge.raw(forge.commit("hello", sign=False))
    for label, words in (("SIGNED MESSAGE", "by X.509"), ("PGP MESSAGE", "in a way that is not known")):
        text = f"-----BEGIN {label}-----\nMIIB\n-----END {label}-----\n".encode()
        forge.push_object(with_signature(raw, text))
        assert words in (await forge.refuses()).message


async def test_the_repository_chooses_no_program(forge: Forge, ada: SshSigner, tmp_path: Path) -> None:
    """Not in the mirror's configuration either; the control shows that git would obey it."""
    forge.trust(ada.line())
    forge.commit("evil", sign=False)
    raw = forge.raw(forge.repository.git("rev-parse", "HEAD"))
    program, ran = tmp_path / "program", tmp_path / "ran"
    # git dies of a broken pipe if it has not written everything when the program ends.
    reads = 'case "$*" in *verify*) cat > /dev/null;; esac'
    program.write_text(f"#!/bin/sh\ntouch {ran}\n{reads}\necho 'Good \"git\" signature for x with x key x'\nexit 0\n")
    program.chmod(0o755)
    evil = with_signature(raw, SshSigner.make(tmp_path / "ssh", "mallory").sign(b"something else"))
    forge.push_object(evil)
    await forge.refuses()
    in_mirror = f"--git-dir={forge.reader.mirror}"
    for name in ("gpg.program", "gpg.ssh.program"):
        forge.repository.git(in_mirror, "config", name, str(program))
    forge.repository.git(in_mirror, "config", "gpg.ssh.allowedSignersFile", str(forge.keys))
    await forge.refuses()
    assert not ran.exists()
    forge.repository.git(in_mirror, "verify-commit", "refs/kapso-sync/head")
    assert ran.exists()


# Tags and commits by --ref


async def test_an_annotated_tag_is_judged_and_not_its_commit(forge: Forge, ada: SshSigner, eve: SshSigner) -> None:
    """Signed, its commit may be unsigned; unsigned, or by a stranger, a signed commit does not help."""
    forge.trust(ada.line())
    commit = forge.commit("unsigned", sign=False)
    forge.repository.git(*ada.settings, "tag", "--sign", "--message", "Release", "v1")
    assert await forge.read(ref="v1") == commit
    signed = forge.commit("signed", *ada.settings)
    forge.repository.git("tag", "--annotate", "--message", "Release", "v2")
    refused = await forge.refuses(ref="v2")
    assert (refused.commit, refused.signer) == (signed, None)
    assert refused.message == f"tag v2 at commit {signed[:12]} is not read: it is not signed"
    forge.repository.git(*eve.settings, "tag", "--sign", "--message", "Release", "v3")
    assert (await forge.refuses(ref="v3")).signer == eve.fingerprint


async def test_a_tag_that_is_signed_later_is_read_at_the_next_pass(forge: Forge, ada: SshSigner) -> None:
    """Though the mirror has its commit already: the new tag object is fetched."""
    forge.trust(ada.line())
    commit = forge.commit("unsigned", sign=False)
    forge.repository.git("tag", "--annotate", "--message", "Release", "v1")
    source = forge.reader.open(forge.repository.url, ref="v1")
    with pytest.raises(SourceUnverified):
        await source.fetch()
    packs = set(forge.reader.mirror.glob("objects/pack/*.pack"))
    forge.repository.git(*ada.settings, "tag", "--force", "--sign", "--message", "Release", "v1")
    assert await source.moved()
    assert (await source.fetch()).revision.id == commit
    assert packs < set(forge.reader.mirror.glob("objects/pack/*.pack")), "the mirror was not made again"


@pytest.mark.parametrize("signed", [True, False])
async def test_a_tag_that_moves_while_it_is_read_is_judged_where_it_is_now(forge: Forge, ada: SshSigner, signed: bool) -> None:
    """By the new tag's own signature, or by the commit where there is no tag object any more."""
    forge.trust(ada.line())
    forge.commit("first", *ada.settings)
    sign = (*ada.settings, "tag", "--force", "--sign", "--message", "Release", "v1")
    forge.repository.git(*sign)
    source = forge.reader.open(forge.repository.url, ref="v1")
    assert await source.moved()
    commit = forge.commit("then", sign=False)
    if signed:
        forge.repository.git(*sign)
        assert (await source.fetch()).revision.id == commit
    else:
        forge.repository.git("tag", "--force", "v1")
        with pytest.raises(SourceUnverified, match=f"^commit {commit[:12]} is not read: it is not signed"):
            await source.fetch()


async def test_a_lightweight_tag_and_a_commit_id_are_judged_by_the_commit(forge: Forge, ada: SshSigner) -> None:
    forge.trust(ada.line())
    signed = forge.commit("signed", *ada.settings)
    forge.repository.git("tag", "light")
    unsigned = forge.commit("unsigned", sign=False)
    forge.repository.git("tag", "light-unsigned")
    assert [await forge.read(ref=ref) for ref in ("light", signed, signed[:10])] == [signed] * 3
    for ref in ("light-unsigned", unsigned, unsigned[:10]):
        assert (await forge.refuses(ref=ref)).commit == unsigned


async def test_a_signed_tag_cannot_be_given_another_name(forge: Forge, ada: SshSigner) -> None:
    """Who may push could otherwise release an old version again, under a new name."""
    forge.trust(ada.line())
    forge.commit("old", *ada.settings)
    forge.repository.git(*ada.settings, "tag", "--sign", "--message", "Release", "v1")
    forge.repository.git("update-ref", "refs/tags/v2", "refs/tags/v1")
    await forge.read(ref="v1")
    assert "its signature is for the tag v1" in (await forge.refuses(ref="v2")).message


async def test_a_tag_of_a_tag_is_judged_by_its_own_signature(forge: Forge, ada: SshSigner) -> None:
    forge.trust(ada.line())
    commit = forge.commit("hello", sign=False)
    forge.repository.git("tag", "--annotate", "--message", "inner", "inner")
    forge.repository.git(*ada.settings, "tag", "--sign", "--message", "outer", "outer", "inner")
    assert await forge.read(ref="outer") == commit
    forge.repository.git("tag", "--annotate", "--message", "unsigned", "unsigned", "outer")
    await forge.refuses(ref="unsigned")


async def test_a_signature_inside_a_tags_text_is_none(forge: Forge, ada: SshSigner) -> None:
    """The last block counts, up to the end; what was signed before it is text."""
    forge.trust(ada.line())
    forge.commit("hello", sign=False)
    forge.repository.git(*ada.settings, "tag", "--sign", "--message", "Release", "v1")
    good = forge.raw(forge.repository.git("rev-parse", "v1"), "tag")
    for odd in (good + b"evil\n", good.replace(b"\nRelease\n", b"\nReleased\n"), good.replace(b"tag v1\n", b"tag v2\n")):
        forge.repository.git(
            "update-ref", "refs/tags/v2", store(forge.repository, "tag", odd.replace(b"tag v1\n", b"tag v2\n"))
        )
        await forge.refuses(ref="v2")
    assert await forge.read(ref="v1")


async def test_a_server_cannot_say_that_a_signed_tag_names_another_commit(forge: Forge, ada: SshSigner) -> None:
    """The tag object itself decides; a server's word for it is not taken."""
    forge.trust(ada.line())
    forge.commit("good", *ada.settings)
    forge.repository.git(*ada.settings, "tag", "--sign", "--message", "Release", "v1")
    evil = forge.commit("evil", sign=False)
    await forge.refuses()  # now the mirror has the evil commit
    tag = forge.repository.git("rev-parse", "v1")
    (forge.repository.folder / ".git" / "packed-refs").write_text(
        f"# pack-refs with: peeled fully-peeled sorted \n{tag} refs/tags/v1\n^{evil}\n"
    )
    (forge.repository.folder / ".git" / "refs" / "tags" / "v1").unlink()
    listed = forge.repository.git("ls-remote", ".", "refs/tags/v1^{}")
    assert listed.startswith(evil), "the control: this server lies"
    refused = await forge.refuses(ref="v1")
    assert (refused.commit, "the tag names commit" in refused.message) == (evil, True)


# Keyrings of OpenPGP


@dataclass(frozen=True)
class People:
    """A commit's bytes, and armored signatures of them by people whose keys are in different conditions."""

    home: GpgHome
    raw: bytes

    def sign(self, name: str, *options: str) -> bytes:
        return self.home.sign(name, self.raw, *options)


@pytest.fixture
def people(forge: Forge, gpg: GpgHome) -> People:
    return People(gpg, forge.raw(forge.commit("hello", sign=False)))


@needs_gpg
@pytest.mark.parametrize("armor", [True, False], ids=["armored", "binary"])
async def test_a_commit_that_a_key_of_the_keyring_signed_is_read(forge: Forge, gpg: GpgHome, armor: bool) -> None:
    """By git itself, with a keyring of two people, one after the other and both in one export."""
    ada, bob = gpg.make(f"ada{armor}"), gpg.make(f"bob{armor}")
    settings = ("-c", f"user.signingKey={ada}")
    commit = forge.commit("hello", *settings, environment=gpg.environment)
    for keyring in (gpg.export(ada, bob, armor=armor), gpg.export(bob, armor=armor) + gpg.export(ada, armor=armor)):
        forge.trust(keyring)
        await forge.accepts(commit)
    forge.trust(gpg.export(bob, armor=armor))
    refused = await forge.refuses()
    assert (refused.commit, refused.signer) == (commit, ada)
    assert f"{ada}, which {forge.keys} does not list" in refused.message


@needs_gpg
async def test_a_keybox_is_a_keyring(forge: Forge, gpg: GpgHome) -> None:
    """GnuPG's own file, as it lies in its home."""
    key = gpg.make("keybox")
    commit = forge.commit("hello", "-c", f"user.signingKey={key}", environment=gpg.environment)
    forge.trust((gpg.folder / "pubring.kbx").read_bytes())
    await forge.accepts(commit)


@needs_gpg
async def test_a_subkey_signs_for_its_key(forge: Forge, people: People) -> None:
    """The fingerprint is that of the key that people know."""
    key = people.home.make("subkey", usage="cert")
    people.home.add_subkey(key)
    forge.trust(people.home.export(key))
    commit = forge.push_object(with_signature(people.raw, people.sign("subkey")))
    await forge.accepts(commit)
    forge.trust(people.home.export(people.home.make("somebody else")))
    assert (await forge.refuses()).signer == people.home.fingerprints("subkey")[1], "of an unknown key more is not known"


@needs_gpg
@pytest.mark.parametrize("what", ["key", "subkey", "signature"])
async def test_expired_keys_and_signatures_are_refused(forge: Forge, people: People, what: str) -> None:
    """By the clock at the time of reading; made while all was well, and gpgv's exit status is 0 for keys."""
    home, name = people.home, f"expired-{what}"
    key = home.make(name, usage="cert")
    home.add_subkey(key, "seconds=2" if what == "subkey" else "never")
    signature = people.sign(name, *(["--default-sig-expire", "seconds=2"] if what == "signature" else []))
    if what == "key":
        home.gpg("--quick-set-expire", key, "seconds=2")
    forge.trust(home.export(key))
    commit = forge.push_object(with_signature(people.raw, signature))
    refused = await _until_refused(forge)
    assert (refused.commit, refused.signer, "expired" in refused.message) == (commit, key, True), refused.message


async def _until_refused(forge: Forge) -> SourceUnverified:
    """Read until it is refused: there is no expiry that a test could not have to wait for."""
    for _ in range(100):
        try:
            await forge.read()
        except SourceUnverified as refused:
            return refused
        await asyncio.sleep(0.1)
    raise AssertionError("it is still read")


@needs_gpg
async def test_a_revoked_key_is_refused(forge: Forge, people: People) -> None:
    """Once the revocation is in the keyring; before, the same signature counts."""
    key = people.home.make("revoked")
    commit = forge.push_object(with_signature(people.raw, people.sign("revoked")))
    forge.trust(people.home.export(key))
    await forge.accepts(commit)
    people.home.revoke(key)
    forge.trust(people.home.export(key))
    refused = await forge.refuses()
    assert (refused.signer, "a key that is revoked" in refused.message) == (key, True)


@needs_gpg
async def test_forged_openpgp_signatures_are_refused(forge: Forge, people: People) -> None:
    """Over other content, over weak hashes, in text mode, two in one, a whole message, and one with text after it."""
    home = people.home
    key = home.make("forger")
    forge.trust(home.export(key))
    good = people.sign("forger")
    both = home.gpg("--enarmor", stdin=_bytes_of(good) + _bytes_of(good)).replace(b"PGP ARMORED FILE", b"PGP SIGNATURE")
    message = home.gpg("--local-user", "forger", "--sign", "--armor", stdin=people.raw)
    forged = {
        "does not match its content": home.sign("forger", b"something else"),
        "is over SHA-1": people.sign("forger", "--digest-algo", "SHA1", "--allow-weak-digest-algos"),
        "not one over exact bytes": people.sign("forger", "--textmode"),
        "not exactly one signature": both,
        "in a way that is not known": message,
        "its signature is damaged: ": message.replace(b"PGP MESSAGE", b"PGP SIGNATURE"),
        "damaged: it is not a PGP SIGNATURE from its first to its last line": good + b"evil\n",
    }
    for reason, signature in forged.items():
        commit = forge.push_object(with_signature(people.raw, signature))
        refused = await forge.refuses()
        assert (refused.commit, reason in refused.message) == (commit, True), (reason, refused.message)
    await forge.accepts(forge.push_object(with_signature(people.raw, good)))


def _bytes_of(signature: bytes) -> bytes:
    return remove_armor(signature, "PGP SIGNATURE")


@needs_gpg
async def test_one_file_may_hold_allowed_signers_and_openpgp_keys(forge: Forge, people: People, ada: SshSigner) -> None:
    """People sign by ssh, and the forge that merges by OpenPGP; whose kind is not in the file is a stranger."""
    key = people.home.make("web-flow")
    by_ssh = with_signature(people.raw, ada.sign(people.raw))
    by_gpg = with_signature(people.raw, people.sign("web-flow"))
    forge.trust(ada.line().encode() + b"# the forge\n" + people.home.export(key) + b"# nobody else\n")
    for raw in (by_ssh, by_gpg):
        await forge.accepts(forge.push_object(raw))
    forge.trust(ada.line())
    assert (await forge.refuses()).signer == key
    forge.trust(people.home.export(key))
    forge.push_object(by_ssh)
    assert (await forge.refuses()).signer == ada.fingerprint


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_fingerprint_is_what_ssh_keygen_prints(tmp_path: Path, kind: str) -> None:
    """Of a key, and of the key in a certificate."""
    signer = SshSigner.make(tmp_path, "ada", kind)
    signer.certificate(SshSigner.make(tmp_path, "authority"))
    for name in ("ada.pub", "ada-cert.pub"):
        key = base64.b64decode((tmp_path / name).read_text().split()[1])
        assert ssh_fingerprint(key) == signer.fingerprint


async def test_signatures_of_the_kind_that_is_not_listed_need_no_program(forge: Forge, ada: SshSigner, tmp_path: Path) -> None:
    """They are a stranger's, on a machine without ssh-keygen or gpgv as well; the error does not ask for the program."""
    raw = forge.raw(forge.commit("hello", sign=False))
    (tmp_path / "empty").mkdir()
    verifier = SignatureVerifier(forge.keys, tmp_path / "verify", path=str(tmp_path / "empty"))
    forge.trust(b"\xc6\x02ab")
    with pytest.raises(SignatureRefused, match=re.escape(f"it is signed by {ada.fingerprint}, which {forge.keys} does not")):
        await verifier.verify(split_commit(with_signature(raw, ada.sign(raw))))
    forge.trust(ada.line())
    openpgp = b"-----BEGIN PGP SIGNATURE-----\n\nwgJhYg==\n-----END PGP SIGNATURE-----\n"
    with pytest.raises(SignatureRefused, match=r"it is signed by OpenPGP, and .* lists no OpenPGP key"):
        await verifier.verify(split_commit(with_signature(raw, openpgp)))


# The file


async def test_the_file_is_read_again_at_each_pass(forge: Forge, ada: SshSigner, eve: SshSigner) -> None:
    """A key that is added lets a refused commit in; one that is removed does not take back what is in force."""
    forge.trust(ada.line())
    source = forge.reader.open(forge.repository.url, branch="main")
    commit = forge.commit("by eve", *eve.settings)
    with pytest.raises(SourceUnverified):
        await source.fetch()
    forge.trust(ada.line() + eve.line())
    assert await source.moved()
    assert (await source.fetch()).revision.id == commit
    forge.trust(ada.line())
    assert not await source.moved()
    assert (await source.fetch()).revision.id == commit
    forge.commit("by eve again", *eve.settings)
    with pytest.raises(SourceUnverified):
        await source.fetch()


async def test_an_unsigned_push_does_not_end_the_work_on_the_last_revision(forge: Forge, ada: SshSigner) -> None:
    """A running pass asks whether there is a newer revision to read; a signed one is, and the next pass reports the other."""
    forge.trust(ada.line())
    first = forge.commit("first", *ada.settings)
    source = forge.reader.open(forge.repository.url, branch="main")
    assert (await source.fetch()).revision.id == first
    forge.commit("unsigned", sign=False)
    assert not await source.moved(keep=False)
    assert await source.moved()
    with pytest.raises(SourceUnverified):
        await source.fetch()
    forge.commit("signed", *ada.settings)
    assert await source.moved(keep=False)


async def test_a_refused_commit_is_fetched_once(forge: Forge, ada: SshSigner, eve: SshSigner) -> None:
    """Every further pass asks the remote for its head alone, and a file that is broken meanwhile is not the commit's fault."""
    forge.trust(ada.line())
    forge.commit("by eve", *eve.settings)
    source = forge.reader.open(forge.repository.url, branch="main")
    packs = set()
    for _ in range(3):
        with pytest.raises(SourceUnverified):
            await source.fetch()
        packs.add(frozenset(path.name for path in forge.reader.mirror.glob("objects/pack/*.pack")))
    assert len(packs) == 1
    forge.keys.unlink()
    with pytest.raises(SourceUnavailable, match=r"cannot be verified: KAPSO_SYNC_VERIFY_FILE .* cannot be read") as caught:
        await source.fetch()
    assert not isinstance(caught.value, SourceUnverified)


def check(forge: Forge, path: str | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        SignatureVerifier(forge.keys, forge.reader.folder / "verify", path=os.environ["PATH"] if path is None else path).check()
    assert "KAPSO_SYNC_VERIFY_FILE" in caught.value.message
    assert caught.value.exit_code == ExitCode.CONFIG
    return caught.value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty"),
        ("# nobody yet\n\n", "it lists no key"),
        (" KEY\n", "line 1 does not begin with who signs"),
        ("# who\nada@example.com KEY\nbob@example.com ssh-ed25519 AAAA\n", "line 3 is not an allowed signer"),
        ("just a text\n", "line 1 is not an allowed signer"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "a block that is not a public key"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n-----END PGP PRIVATE KEY BLOCK-----\n", "it holds a private key"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n", "one that does not end"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n????\n-----END PGP PUBLIC KEY BLOCK-----\n", "it is not base64"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----\n", "does not begin with a public key"),
        (b"\xd8\x02ab", "does not begin with a public key"),
        (b"\xc6\x7fab", "its last packet is cut off"),
        (b"\x99\x01", "its last packet is cut off"),
        (b"\xc6\xe4ab", "a packet of unknown length"),
    ],
)
def test_a_file_that_is_neither_kind_is_refused_at_the_start(
    forge: Forge, ada: SshSigner, content: str | bytes, problem: str
) -> None:
    """The error names the setting, the file and the line."""
    forge.trust(content.replace(" KEY\n", f" {ada.public}\n") if isinstance(content, str) else content)
    error = check(forge)
    assert f"{forge.keys}: " in error.message
    assert problem in error.message


def test_a_file_that_cannot_be_read_is_refused_at_the_start(forge: Forge) -> None:
    """Missing, a folder, a pipe (which would block), and one without an end."""
    assert "No such file" in check(forge).message
    os.mkfifo(forge.keys)
    assert "it is not a regular file" in check(forge).message
    forge.keys.unlink()
    forge.keys.mkdir()
    assert "it is not a regular file" in check(forge).message
    forge.keys.rmdir()
    with forge.keys.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert f"it is larger than {MAX_BYTES} bytes" in check(forge).message


def test_a_missing_program_is_found_at_the_start(forge: Forge, ada: SshSigner, tmp_path: Path) -> None:
    """With the package to install; a program in the current folder does not count, and only what the file needs is wanted."""
    (tmp_path / "empty").mkdir()
    forge.trust(ada.line())
    assert "openssh-client" in str(check(forge, str(tmp_path / "empty")).hint)
    check(forge, ".")
    forge.trust(b"\xc6\x02ab")
    assert "install gpgv" in str(check(forge, str(tmp_path / "empty")).hint)


async def test_a_program_that_hangs_is_ended(forge: Forge, ada: SshSigner, tmp_path: Path) -> None:
    """At the deadline, with its children; nothing was read."""
    forge.trust(ada.line())
    commit = forge.raw(forge.commit("hello", *ada.settings))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh-keygen").write_text("#!/bin/sh\n/bin/sleep 600 & wait\n")
    (programs / "ssh-keygen").chmod(0o755)
    verifier = SignatureVerifier(forge.keys, tmp_path / "verify", path=f"{programs}:/bin", deadline=0.3)
    before = children()
    with pytest.raises(SourceUnavailable, match=r"ssh-keygen did not end within 0.3 s"):
        await verifier.verify(split_commit(commit))
    assert children() == before
    assert not (tmp_path / "verify").exists()
