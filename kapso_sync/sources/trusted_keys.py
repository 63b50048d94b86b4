"""Reads ``KAPSO_SYNC_VERIFY_FILE``: the keys whose signatures count.

The file holds allowed signers of ssh, by the format of ssh-keygen(1), a keyring of OpenPGP, or both: armored keys may stand
between the lines of allowed signers, since a forge that merges signs by OpenPGP what people sign by ssh.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.mounted_files import read_mounted
from kapso_sync.sources.armor import PUBLIC_KEY_PACKET, SECRET_KEY_PACKET, packet_tags, remove_armor, ssh_strings

MAX_BYTES = 4 * 1024 * 1024
"""Maximum size of the file: the keyring of a large distribution is a fraction of it."""

_BLOCK = re.compile(rb"^-----BEGIN PGP ([A-Z ]+)-----.*?^-----END PGP \1-----[ \t\r]*$", re.MULTILINE | re.DOTALL)
_BEGIN = re.compile(rb"^-----BEGIN ", re.MULTILINE)
_WORD = re.compile(rb'(?:"[^"]*"|[^\s"])+')
_KEYBOX_MAGIC = (8, b"KBXf")
_KEYBOX_HEADER = 32


@dataclass(frozen=True, slots=True)
class AllowedSigner:
    """One line of allowed signers, as it stands in the file, with its key in SSH's wire format."""

    line: bytes
    key: bytes
    is_authority: bool


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The keys whose signatures count. ``keyring`` is in the form that gpgv reads: without armor."""

    signers: tuple[AllowedSigner, ...] = ()
    keyring: bytes = b""


def read_trusted_keys(path: Path) -> TrustedKeys:
    """Return the keys of a file; raises `ConfigError`, which names the setting, for a file that lists none."""
    place = f"KAPSO_SYNC_VERIFY_FILE {path}"
    content = read_mounted(place, path, missing="mount the file there", limit=MAX_BYTES)
    try:
        return parse_trusted_keys(content)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}", hint=_KINDS) from error


_KINDS = (
    "allowed signers have lines such as `ada@example.com ssh-ed25519 AAAA…`, as for git's gpg.ssh.allowedSignersFile; "
    "a keyring is what `gpg --export --armor KEY` prints"
)


def parse_trusted_keys(content: bytes) -> TrustedKeys:
    """Return the keys of a file's content; raises ValueError that says what is wrong, and in which line."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise ValueError("it is empty")
    start, magic = _KEYBOX_MAGIC
    if content[start:].startswith(magic):
        if len(content) <= _KEYBOX_HEADER:
            raise ValueError("it is a keybox without a key")
        return TrustedKeys(keyring=content)
    if content[0] & 0x80:
        return TrustedKeys(keyring=_checked_keyring(content))
    keyring = b"".join(_dearmored(found) for found in _BLOCK.finditer(content))
    # Line numbers stay: a block leaves its line breaks behind.
    rest = _BLOCK.sub(lambda found: b"\n" * found[0].count(b"\n"), content)
    if _BEGIN.search(rest):
        raise ValueError("it holds a block that is not a public key, or one that does not end")
    lines = enumerate(rest.split(b"\n"), start=1)
    signers = tuple(
        _signer(number, line.strip()) for number, line in lines if line.strip() and not line.strip().startswith(b"#")
    )
    if not signers and not keyring:
        raise ValueError("it lists no key")
    return TrustedKeys(signers, keyring)


def _dearmored(block: re.Match[bytes]) -> bytes:
    if block[1] == b"PRIVATE KEY BLOCK":
        raise ValueError("it holds a private key, and only the public one is wanted")
    if block[1] != b"PUBLIC KEY BLOCK":
        raise ValueError("it holds a block that is not a public key, or one that does not end")
    return _checked_keyring(remove_armor(block[0], "PGP PUBLIC KEY BLOCK"))


def _checked_keyring(data: bytes) -> bytes:
    tags = tuple(packet_tags(data))
    if SECRET_KEY_PACKET in tags:
        raise ValueError("it holds a private key, and only the public one is wanted")
    if not tags or tags[0] != PUBLIC_KEY_PACKET:
        raise ValueError("it does not begin with a public key")
    return data


def _signer(number: int, line: bytes) -> AllowedSigner:
    """Return what one line allows; ssh-keygen(1) judges its options, which newer versions have more of."""
    words = _WORD.findall(line)
    for position, (kind, text) in enumerate(itertools.pairwise(words)):
        key = _ssh_key(kind, text)
        if key is None:
            continue
        if position == 0:
            raise ValueError(f"line {number} does not begin with who signs by the key, such as ada@example.com")
        options = b",".join(words[1:position]).lower()
        return AllowedSigner(line, key, b"cert-authority" in options)
    raise ValueError(f"line {number} is not an allowed signer, and not a part of an OpenPGP key")


def _ssh_key(kind: bytes, text: bytes) -> bytes | None:
    """Return a public key in SSH's wire format; None if the words are not the kind of a key and that key."""
    try:
        key = base64.b64decode(text, validate=True)
        return key if next(ssh_strings(key), None) == kind else None
    except (binascii.Error, ValueError):
        return None
