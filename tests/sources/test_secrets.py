"""Secret values: a user who can push cannot read variables and files that are not allowed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kapso_sync.model.desired import DotenvSecret, EnvSecret, FileSecret, GivenSecret, PlainSecret
from kapso_sync.sources.secrets import SecretMissing, SecretReader, mounts_below

ENV_FILE = {"FROM_FILE": "of the file", "AWS_KEY": "aws of the file", "KAPSO_OF_FILE": "ours"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    (folder / "tls").mkdir(parents=True)
    (folder / "tls" / "cert").write_text("-----BEGIN\nabc\n-----END\n")
    (folder / "api-key").write_text("our own key\n")
    (folder / ".env").write_text("# comment\nSTRIPE='sk $HOME'\nexport OTHER=two words\nEMPTY=\n")
    (folder / "state").mkdir()
    (folder / "state" / "admin-token").write_text("our own key\n")
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "nul").write_text("a\0b")
    (folder / "big").write_text("x" * 70_000)
    (tmp_path / "outside").write_text("not yours")
    (folder / "leads-out").symlink_to(tmp_path / "outside")
    (folder / "hard").hardlink_to(folder / "api-key")
    return folder


def reader(folder: Path, told: list[str] | None = None, allowed: tuple[str, ...] = ("*",)) -> SecretReader:
    environment = {"STRIPE": "sk_1", "BLANK": "", "KAPSO_API_KEY": "ours", "kapso_sync_git_token": "ours", "AWS_KEY": "aws"}
    ours = (folder / "api-key", folder / "state")
    return SecretReader(environment, ENV_FILE, allowed, folder, ours, ([] if told is None else told).append)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (EnvSecret("STRIPE"), "sk_1"),
        (FileSecret("tls/cert"), "-----BEGIN\nabc\n-----END"),
        (DotenvSecret(".env", "STRIPE"), "sk $HOME"),
        (DotenvSecret(".env", "OTHER"), "two words"),
        (PlainSecret("0.19"), "0.19"),
    ],
)
def test_secret_values_are_read_from_variables_files_and_the_manifest(folder: Path, source: GivenSecret, value: str) -> None:
    """Nothing is expanded; a file's last line end is not part of its value; all but plain values are redacted."""
    told: list[str] = []
    assert reader(folder, told).read(source) == value
    assert told == ([] if isinstance(source, PlainSecret) else [value])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (EnvSecret("KAPSO_API_KEY"), "it is kapso-sync's own"),
        (EnvSecret("kapso_sync_git_token"), "it is kapso-sync's own"),
        (EnvSecret("ABSENT"), "which is not set"),
        (EnvSecret("BLANK"), "is empty"),
        (FileSecret("api-key"), "a credential of kapso-sync's"),
        (FileSecret("hard"), "a credential of kapso-sync's"),
        (FileSecret("kubernetes.io/serviceaccount/token"), "a token of the Pod's"),
        (FileSecret("tls/../kubernetes.io/serviceaccount/token"), "a token of the Pod's"),
        (FileSecret("eks.amazonaws.com/serviceaccount/token"), "a token of the Pod's"),
        (DotenvSecret("api-key", "X"), "a credential of kapso-sync's"),
        (DotenvSecret(".env", "KAPSO_API_KEY"), "it is kapso-sync's own"),
        (DotenvSecret(".env", "kapso_sync_git_token"), "it is kapso-sync's own"),
        (FileSecret("state/admin-token"), "a credential of kapso-sync's"),
        (FileSecret("../outside"), "outside"),
        (FileSecret("/etc/passwd"), "outside"),
        (FileSecret("leads-out"), "outside"),
        (FileSecret("."), "outside"),
        (FileSecret("tls"), "not a regular file"),
        (FileSecret("absent"), "No such file"),
        (FileSecret("binary"), "not UTF-8"),
        (FileSecret("nul"), "NUL"),
        (FileSecret("big"), "larger than 65536 bytes"),
        (DotenvSecret(".env", "ABSENT"), "is not in .env"),
        (DotenvSecret(".env", "EMPTY"), "is empty"),
    ],
)
def test_an_unavailable_secret_value_is_an_error_with_a_reason(folder: Path, source: GivenSecret, said: str) -> None:
    """The error never holds the content that was found instead."""
    with pytest.raises(SecretMissing) as missing:
        reader(folder).read(source)
    assert said in missing.value.message
    assert "our own key" not in f"{missing.value.message}{missing.value.hint}"


def test_only_listed_environment_variables_are_secret_sources(folder: Path) -> None:
    """Globs name them; without a list there is none. The error says what to set, with what is listed already."""
    limited = reader(folder, allowed=("FN_*",))
    with pytest.raises(SecretMissing, match="may not be the variable STRIPE") as missing:
        limited.read(EnvSecret("STRIPE"))
    assert missing.value.hint == "put it into an --env-file, or list it: KAPSO_SYNC_SECRET_ENV=FN_*,STRIPE"
    assert reader(folder, allowed=("FN_*", "STRIPE")).read(EnvSecret("STRIPE")) == "sk_1"
    with pytest.raises(SecretMissing, match="may not be the variable STRIPE"):
        reader(folder, allowed=()).read(EnvSecret("STRIPE"))


def test_what_the_env_file_sets_may_be_read_without_a_list(folder: Path) -> None:
    """Whoever starts kapso-sync has named the file; a listed variable of the process comes first, and ours is never read."""
    assert reader(folder, allowed=()).read(EnvSecret("FROM_FILE")) == "of the file"
    assert reader(folder, allowed=()).read(EnvSecret("AWS_KEY")) == "aws of the file"
    assert reader(folder, allowed=("AWS_KEY",)).read(EnvSecret("AWS_KEY")) == "aws"
    for allowed in ((), ("*",), ("KAPSO_OF_FILE",)):
        with pytest.raises(SecretMissing, match="it is kapso-sync's own"):
            reader(folder, allowed=allowed).read(EnvSecret("KAPSO_OF_FILE"))


OF_OTHERS = [
    *(
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "ARM_CLIENT_SECRET",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    *("CLOUDFLARE_API_TOKEN", "GITHUB_TOKEN", "GH_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_RUNTIME_TOKEN"),
    *("CI_JOB_TOKEN", "GITLAB_TOKEN", "BITBUCKET_TOKEN", "KUBERNETES_SERVICE_HOST", "KUBECONFIG", "VAULT_TOKEN"),
    *("DOCKER_AUTH_CONFIG", "NPM_TOKEN", "NODE_AUTH_TOKEN", "PYPI_TOKEN", "TWINE_PASSWORD", "HTTPS_PROXY", "https_proxy"),
    *("ALL_PROXY", "NO_PROXY", "SSH_AUTH_SOCK", "GIT_ASKPASS", "PATH", "HOME", "LD_PRELOAD", "PYTHONPATH", "SSL_CERT_FILE"),
]


@pytest.mark.parametrize("name", OF_OTHERS)
def test_no_pattern_reaches_credentials_of_clouds_forges_clusters_and_proxies(folder: Path, name: str) -> None:
    """Only a name that is spelled out does; the error says so."""

    def reading(*allowed: str) -> SecretReader:
        return SecretReader({name: "canary"}, {}, allowed, folder, (), lambda _: None)

    for patterns in (("*",), (f"{name[:3]}*",), (f"{name}*",), (name.lower() + "?", f"[{name[0]}]{name[1:]}")):
        with pytest.raises(SecretMissing) as missing:
            reading(*patterns).read(EnvSecret(name))
        assert "canary" not in missing.value.message
        assert (name in missing.value.hint, "KAPSO_SYNC_SECRET_ENV" in missing.value.hint) == (True, True)
    assert reading("X", name).read(EnvSecret(name)) == "canary"


def test_without_a_secrets_folder_no_file_is_a_secret_source(folder: Path) -> None:
    """The error names the setting."""
    for source in (FileSecret("tls/cert"), FileSecret("/etc/passwd"), DotenvSecret(".env", "STRIPE")):
        with pytest.raises(SecretMissing) as missing:
            SecretReader({}, {}, (), None, (), lambda _: None).read(source)
        assert "KAPSO_SYNC_SECRETS_DIR" in missing.value.hint


def test_another_mount_below_the_secrets_folder_is_not_read(folder: Path) -> None:
    """Such as a token of the Pod's, whatever it is called; a file beside it is read."""
    (folder / "projected").mkdir()
    (folder / "projected" / "token").write_text("of the Pod")

    def reading(*mounts: Path) -> SecretReader:
        return SecretReader({}, {}, (), folder, (), lambda _: None, lambda _: mounts)

    assert reading().read(FileSecret("projected/token")) == "of the Pod"
    for mount in (folder / "projected", folder / "projected" / "token"):
        with pytest.raises(SecretMissing, match="something else is mounted there"):
            reading(mount).read(FileSecret("projected/token"))
        assert reading(mount).read(FileSecret("tls/cert")).startswith("-----BEGIN")  # type: ignore[union-attr]  # a text


def test_the_mount_points_below_a_folder_are_those_of_this_system() -> None:
    """Below the root there is at least the one where they are listed; below a folder of ours there is none."""
    found = mounts_below(Path("/"))
    assert all(point.is_absolute() and point.is_mount() for point in found if point.exists())
    assert not Path("/proc/self/mountinfo").exists() or Path("/proc") in found
    assert mounts_below(Path(__file__).parent) == ()


def test_a_rotated_mounted_secret_is_read_again(folder: Path) -> None:
    """Kubernetes mounts it through a symlink that moves."""
    for version in ("one", "two"):
        (folder / f"..{version}").mkdir()
        (folder / f"..{version}" / "token").write_text(version)
    (folder / "..data").symlink_to("..one")
    (folder / "token").symlink_to("..data/token")
    reading = reader(folder)
    assert reading.read(FileSecret("token")) == "one"
    (folder / "..next").symlink_to("..two")
    (folder / "..next").rename(folder / "..data")
    assert reading.read(FileSecret("token")) == "two"


def test_json_secrets_are_parsed_and_every_text_in_them_is_redacted(folder: Path) -> None:
    """Only if the source says so; a byte order mark is not part of a value."""
    (folder / "partners").write_text('\ufeff{"acme": {"token": "deep-s3cret"}, "n": [1]}\n', encoding="utf-8")
    told: list[str] = []
    assert reader(folder, told).read(FileSecret("partners", json=True)) == {"acme": {"token": "deep-s3cret"}, "n": [1]}
    assert "deep-s3cret" in told
    assert reader(folder).read(FileSecret("partners")) == '{"acme": {"token": "deep-s3cret"}, "n": [1]}'


def test_numbers_of_eight_digits_in_a_json_secret_are_redacted(folder: Path) -> None:
    """As JSON writes them; a shorter one would be found in every time and size."""
    numbers = '{"pin": 48151623421, "debt": -12345678, "rate": 12345.678, "list": [99887766554], "size": 600000, "low": -0.125}'
    (folder / "numbers").write_text(numbers)
    told: list[str] = []
    reader(folder, told).read(FileSecret("numbers", json=True))
    assert {text for text in told if not text.startswith("{")} == {"48151623421", "-12345678", "12345.678", "99887766554"}


@pytest.mark.parametrize("raw", [b"abc\xff\xfedefgh", b"\xed\xa0\x80lonely", b"caf\xe9"])
def test_bytes_that_are_no_text_are_refused_in_a_variable_as_in_a_file(folder: Path, raw: bytes) -> None:
    """Python reads such bytes of the environment as lone surrogates, which no other program understands."""
    (folder / "raw").write_bytes(raw)
    told: list[str] = []
    reading = SecretReader({"RAW": os.fsdecode(raw), "TEXT": "café"}, {}, ("*",), folder, (), told.append)
    for source, said, hint in (
        (EnvSecret("RAW"), "needs the variable RAW, which is not UTF-8 text", "set it as UTF-8"),
        (FileSecret("raw"), f"needs raw below {folder}, which is not UTF-8 text", "save it as UTF-8"),
    ):
        with pytest.raises(SecretMissing) as missing:
            reading.read(source)
        assert missing.value.message == said
        assert missing.value.hint == f"{hint}; for bytes that are no text, take their base64"
    assert (reading.read(EnvSecret("TEXT")), told) == ("café", ["café"])


@pytest.mark.parametrize(
    ("text", "said"), [("not json", "is not JSON"), ('"text"', "neither a JSON object nor a list"), ("5", "neither")]
)
def test_a_json_secret_that_is_not_json_is_an_error(folder: Path, text: str, said: str) -> None:
    """Before anything of the function is written."""
    (folder / "partners").write_text(text)
    with pytest.raises(SecretMissing, match=said):
        reader(folder).read(FileSecret("partners", json=True))


@pytest.mark.parametrize(
    "source",
    [EnvSecret("PASTED"), FileSecret("marked"), DotenvSecret("marked.env", "FIRST"), DotenvSecret("marked.env", "NEXT")],
)
def test_a_byte_order_mark_is_no_part_of_a_secrets_value(folder: Path, source: GivenSecret) -> None:
    """From a file that Windows wrote, and from a value that was pasted from one."""
    (folder / "marked").write_bytes(b"\xef\xbb\xbfvalue\r\n")
    (folder / "marked.env").write_bytes(b'\xef\xbb\xbfFIRST=value\nNEXT="\xef\xbb\xbfvalue"\n')
    told: list[str] = []
    marked = SecretReader({"PASTED": "\ufeffvalue"}, {}, ("*",), folder, (), told.append)
    assert marked.read(source) == "value"
    assert told == ["value"]


def test_a_wrong_line_of_a_dotenv_file_is_named_where_a_value_is_missing(folder: Path) -> None:
    """By its number and never by its content; a value that is there is read all the same."""
    (folder / "mail.env").write_text("USER=me\n\n# comment\n\nPASSWORD hunter2\n")
    assert reader(folder).read(DotenvSecret("mail.env", "USER")) == "me"
    with pytest.raises(SecretMissing) as missing:
        reader(folder).read(DotenvSecret("mail.env", "PASSWORD"))
    assert missing.value.message == "is not in mail.env, or in what is not NAME=value there: line 5"
    assert missing.value.hint == "correct line 5, or add a line PASSWORD=… to it"


@pytest.mark.parametrize("source", [FileSecret("a\0b"), DotenvSecret("a\0b", "A")])
def test_a_file_name_with_a_nul_character_is_refused(folder: Path, source: GivenSecret) -> None:
    """No file has such a name, and the operating system's own complaint is none for people."""
    with pytest.raises(SecretMissing, match="NUL character in its name"):
        reader(folder).read(source)


def test_a_json_secret_that_is_too_deep_is_refused(folder: Path) -> None:
    """It could not be written again."""
    (folder / "deep").write_text("[" * 900 + "]" * 900)
    with pytest.raises(SecretMissing, match="nested deeper"):
        reader(folder).read(FileSecret("deep", json=True))


@pytest.mark.parametrize(
    "source",
    [
        EnvSecret("Zx9_hunter2_Qq71LmN0pp"),
        EnvSecret("sk_live_0123456789abcdef"),
        FileSecret("Zx9-hunter2-Qq71LmN0pp"),
        FileSecret("tls/Zx9-hunter2-Qq71LmN0pp"),
        DotenvSecret(".env", "Zx9_hunter2_Qq71LmN0pp"),
        DotenvSecret("Zx9_hunter2_Qq71LmN0pp", "A"),
    ],
)
def test_a_value_in_place_of_a_name_is_not_quoted(folder: Path, source: GivenSecret) -> None:
    """A real name is, since it is needed to mend it."""
    for allowed in (("*",), ()):
        with pytest.raises(SecretMissing) as missing:
            reader(folder, allowed=allowed).read(source)
        said = f"{missing.value.message} {missing.value.hint}"
        assert "looks like the value itself" in said
        assert not any(part in said for part in ("hunter2", "sk_live"))
    for name in ("SHOP_TOKEN", "shopToken2", "tls/shop-token-2026.pem"):
        with pytest.raises(SecretMissing) as missing:
            reader(folder).read(FileSecret(name) if "." in name else EnvSecret(name))
        assert name in missing.value.message
