"""Secret values: a user who can push cannot read variables and files that are not allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapso_sync.model.desired import DotenvSecret, EnvSecret, FileSecret, GivenSecret, PlainSecret
from kapso_sync.sources import SecretMissing, SecretReader


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
    return SecretReader(
        environment, allowed, folder, (folder / "api-key", folder / "state"), ([] if told is None else told).append
    )


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
        (FileSecret("kubernetes.io/serviceaccount/token"), "a credential of the Pod's"),
        (FileSecret("tls/../kubernetes.io/serviceaccount/token"), "a credential of the Pod's"),
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
        (FileSecret("big"), "65536 are allowed"),
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


def test_only_allowed_environment_variables_are_secret_sources(folder: Path) -> None:
    """Globs name them."""
    limited = reader(folder, allowed=("STRIPE", "FN_*"))
    assert limited.read(EnvSecret("STRIPE")) == "sk_1"
    with pytest.raises(SecretMissing, match="may not be the variable AWS_KEY"):
        limited.read(EnvSecret("AWS_KEY"))


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


@pytest.mark.parametrize(
    ("text", "said"), [("not json", "is not JSON"), ('"text"', "neither a JSON object nor a list"), ("5", "neither")]
)
def test_a_json_secret_that_is_not_json_is_an_error(folder: Path, text: str, said: str) -> None:
    """Before anything of the function is written."""
    (folder / "partners").write_text(text)
    with pytest.raises(SecretMissing, match=said):
        reader(folder).read(FileSecret("partners", json=True))


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
