"""Settings: sources, valid values, and errors that are all reported at once."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync import mounted_files
from kapso_sync.errors import ConfigError
from kapso_sync.model.policies import DriftPolicy, MaxDelete
from kapso_sync.settings import MAX_CREDENTIAL_BYTES, SETTINGS, VARIABLES, Settings, load_settings, variable
from kapso_sync.units import parse_duration


def load(**environment: str) -> Settings:
    return load_settings({}, environment=environment)


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("20s", 20), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("7d", 604800)]
)
def test_durations_are_parsed_from_numbers_with_units(text: str, seconds: float) -> None:
    """One unit, or several of them."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0s", "-1s", "5", "8d", "1e9s", "five minutes", "1s 2s", "999999999999999999999d"])
def test_invalid_durations_are_refused(text: str) -> None:
    """Zero, negative, without a unit, enormous."""
    with pytest.raises(ConfigError, match="KAPSO_SYNC_DEPLOY_TIMEOUT"):
        load(KAPSO_SYNC_DEPLOY_TIMEOUT=text)


@pytest.mark.parametrize(
    ("name", "digit", "unit"),
    [("DEPLOY_TIMEOUT", "5", "m"), ("MAX_DELETE", "5", "%"), ("MAX_DELETE", "5", ""), ("CONCURRENCY", "5", "")],
)
def test_numbers_have_the_digits_0_to_9_alone(name: str, digit: str, unit: str) -> None:
    """Python takes those of every script for digits."""
    load(**{f"KAPSO_SYNC_{name}": f"{digit}{unit}"})
    for other in ("\u0665", "\uff15", "\u096b"):
        with pytest.raises(ConfigError, match=name):
            load(**{f"KAPSO_SYNC_{name}": f"{other}{unit}"})


def test_an_empty_variable_counts_as_not_set() -> None:
    """As compose files and CI write them; an empty listen address means no server."""
    empty = load(**dict.fromkeys(VARIABLES, ""))
    assert replace(empty, listen="127.0.0.1:8321", origin=load().origin) == load()
    assert (empty.listen, load().listen) == ("", "127.0.0.1:8321")


def test_addresses_are_checked_with_the_other_settings_and_all_at_once() -> None:
    """One error names every mistake; what can be an address is none."""
    names = ("KAPSO_API_BASE_URL", *(f"KAPSO_SYNC_{name}" for name in ("LISTEN", "KUBE_API", "NPM_REGISTRY", "PUBLIC_URL")))
    with pytest.raises(ConfigError) as raised:
        load(**dict.fromkeys((*names, "KAPSO_SYNC_COMMIT_STATUS_URL"), "foo"), KAPSO_SYNC_INTERVAL="5")
    named = re.findall(r"(KAPSO_[A-Z_]+) is ", raised.value.message)
    assert sorted(named) == sorted((*names, "KAPSO_SYNC_COMMIT_STATUS_URL", "KAPSO_SYNC_INTERVAL"))
    with pytest.raises(ConfigError, match=r"^KAPSO_SYNC_PUBLIC_URL: it carries a user name or password$"):
        load(KAPSO_SYNC_PUBLIC_URL="https://ada:s3cret@status.example")
    with pytest.raises(ConfigError, match=r"KAPSO_SYNC_NPM_REGISTRY is 'https://npm.acme.dev/x': it has a query") as raised:
        load(KAPSO_SYNC_NPM_REGISTRY="https://npm.acme.dev/x?auth=s3cret")
    assert "s3cret" not in raised.value.message
    for text in ("127.0.0.1:70000", "127.0.0.1", "127.0.0.1:\u00b2", "127.0.0.1:http", ":"):
        with pytest.raises(ConfigError, match=r"KAPSO_SYNC_LISTEN is .*: expected HOST:PORT"):
            load(KAPSO_SYNC_LISTEN=text)
    good = load(
        KAPSO_API_BASE_URL="https://kapso.example", KAPSO_SYNC_LISTEN=" :0 ", KAPSO_SYNC_PUBLIC_URL="http://x.example/a"
    )
    assert (good.api_base_url, good.listen, good.public_url) == ("https://kapso.example", ":0", "http://x.example/a")


def test_blanks_around_a_choice_are_no_part_of_it() -> None:
    """As around numbers and durations; inside of one they are."""
    assert load(KAPSO_SYNC_DRIFT=" report ").drift is DriftPolicy.REPORT
    with pytest.raises(ConfigError, match="KAPSO_SYNC_DRIFT is 're port'"):
        load(KAPSO_SYNC_DRIFT="re port")


PATHS = sorted(name for name in SETTINGS if name.endswith(("_file", "_dir")) or name in ("esbuild", "source"))


@pytest.mark.parametrize("name", PATHS)
def test_a_tilde_at_the_beginning_of_a_path_is_the_home_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a variable, a flag and an --env-file, where no shell expands it; nowhere else in a path."""
    monkeypatch.setenv("HOME", "/home/ada")
    for text, expected in (
        ("~/kapso", "/home/ada/kapso"),
        ("~", "/home/ada"),
        ("./~/kapso", "~/kapso"),
        ("/a/~/kapso", "/a/~/kapso"),
    ):
        assert Path(getattr(load(**{variable(name): text}), name)) == Path(expected)
    assert Path(getattr(load_settings({name: "~/kapso"}, environment={}), name)) == Path("/home/ada/kapso")


def test_a_path_of_a_user_without_a_home_folder_is_a_configuration_error() -> None:
    """A folder of that name would be made below the current one; a user who has one is found."""
    with pytest.raises(ConfigError, match="KAPSO_SYNC_STATE_DIR is '~nobody-of-this-name/state': its home folder is not known"):
        load(KAPSO_SYNC_STATE_DIR="~nobody-of-this-name/state")
    with pytest.raises(ConfigError, match="--env-file ~nobody-of-this-name/x: its home folder is not known"):
        load_settings({}, env_file=Path("~nobody-of-this-name/x"), environment={})
    assert load(KAPSO_SYNC_STATE_DIR="~root/state").state_dir == Path(pwd.getpwnam("root").pw_dir, "state")


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_an_api_key_file_may_have_a_byte_order_mark_and_a_line_break(tmp_path: Path, bom: str) -> None:
    """Neither is a part of the key."""
    (tmp_path / "key").write_text(f"{bom}the-key\r\n", encoding="utf-8")
    assert load(KAPSO_API_KEY_FILE=str(tmp_path / "key")).key() == "the-key"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# our key\nthe-s3cret-key\n", "has more than one line: more follows line 1"),
        ("\n\nthe-s3cret-key\r\nthe-s3cret-key", "has more than one line: more follows line 3"),
        ("\nthe-s3cret-k\x00ey", "line 2, character 13 is U+0000"),
        ("the-s3cret-key\x0b", "character 15 is U+000B"),
        ("the-s3cret\x85key", "character 11 is U+0085"),
        ("the-s3cret-key\u00a0", "character 15 is U+00A0"),
        ("the-s3cret-k\u00e9y", "character 13 is U+00E9"),
        ("\u201cthe-s3cret-key\u201d", "character 1 is U+201C"),
        ("the-s3cret\tkey", "character 11 is U+0009"),
    ],
)
def test_an_api_key_that_is_invalid_in_a_header_is_a_configuration_error(tmp_path: Path, text: str, said: str) -> None:
    """With the file and the place, and never the value; from a variable as well as from a file."""
    file = tmp_path / "key"
    file.write_text(text, encoding="utf-8")
    for settings in (load(KAPSO_API_KEY_FILE=str(file)), load(KAPSO_API_KEY=text)):
        with pytest.raises(ConfigError) as raised:
            settings.key()
        assert said in raised.value.message
        assert "s3cret" not in f"{raised.value.message} {raised.value.hint}"
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        load(KAPSO_API_KEY_FILE=str(file)).key()


BOM = "\ufeff".encode()
READS = {
    "api_key": Settings.key,
    "webhook_secret": Settings.webhook_key,
    "admin_token": Settings.admin_key,
    "git_token": Settings.git_password,
    "commit_status_token": Settings.commit_status_key,
}


@pytest.mark.parametrize("name", sorted(name for name in SETTINGS if f"{name}_file" in SETTINGS))
def test_a_byte_order_mark_is_no_part_of_any_credential_in_a_file(tmp_path: Path, name: str) -> None:
    """Windows' editors write one; a file without one reads the same."""
    for content in (BOM + b"the-value\r\n", b"the-value"):
        (tmp_path / "file").write_bytes(content)
        settings = load(**{f"{variable(name)}_FILE": str(tmp_path / "file")})
        assert READS[name](settings) == "the-value"


def test_a_byte_order_mark_is_no_part_of_an_env_file(tmp_path: Path) -> None:
    """Neither of its first name, nor of a value that was pasted with one; functions' secrets included."""
    file = tmp_path / "settings.env"
    file.write_bytes(BOM + b'KAPSO_SYNC_OWNER=acme/flows\nSTRIPE="' + BOM + b'sk"\n')
    settings = load_settings({}, env_file=file, environment={})
    assert settings.owner == "acme/flows"
    assert settings.env_file_variables["STRIPE"] == "sk"


def test_an_env_file_may_be_a_pipe(tmp_path: Path) -> None:
    """As a shell makes one of `--env-file <(sops decrypt settings.env)`."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b"KAPSO_SYNC_OWNER=acme/flows\n")
        os.close(writing)
        assert load_settings({}, env_file=Path(f"/dev/fd/{reading}"), environment={}).owner == "acme/flows"
    finally:
        os.close(reading)


CREDENTIAL_FILES = sorted(name for name in SETTINGS if f"{name}_file" in SETTINGS)


@pytest.mark.parametrize("name", CREDENTIAL_FILES)
@pytest.mark.parametrize("kind", ["a pipe that nobody writes into", "a device without end", "a folder", "too large"])
def test_a_credential_is_only_read_from_a_small_regular_file(tmp_path: Path, name: str, kind: str) -> None:
    """Anything else would block the daemon for ever, or fill its memory; a file beside it is read."""
    file = tmp_path / "credential"
    if kind == "a device without end":
        file.symlink_to("/dev/zero")
    elif kind == "too large":
        file.write_bytes(b"k" * (MAX_CREDENTIAL_BYTES + 1))
    else:
        (os.mkfifo if kind.startswith("a pipe") else os.mkdir)(file)
    settings = load(**{f"{variable(name)}_FILE": str(file)})
    with pytest.raises(ConfigError, match=f"{re.escape(str(file))} cannot be read: it is "):
        READS[name](settings)
    (tmp_path / "sound").write_bytes(b"k" * MAX_CREDENTIAL_BYTES)
    assert READS[name](load(**{f"{variable(name)}_FILE": str(tmp_path / "sound")})) == "k" * MAX_CREDENTIAL_BYTES


def test_an_env_file_that_is_a_pipe_without_writer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would block before anything is said; what never ends is refused as too large."""
    monkeypatch.setattr(mounted_files, "PIPE_PATIENCE", 0.01)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"nobody wrote into it for 0\.01 s"):
        load_settings({}, env_file=tmp_path / "pipe", environment={})
    with pytest.raises(ConfigError, match="it is larger than"):
        load_settings({}, env_file=Path("/dev/zero"), environment={})
    with pytest.raises(ConfigError, match="Is a directory"):
        load_settings({}, env_file=tmp_path, environment={})
    assert load_settings({}, env_file=Path(os.devnull), environment={}).owner is None


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"# key\nthe-s3cret-k\xe9y", "line 2, byte 13"),
        (b"\xe9", "line 1, byte 1"),
        (b"\xef\xbb\xbfk\xe9y", "line 1, byte 2"),
        (b"key\r\n\xe9", "line 2, byte 1"),
    ],
)
def test_a_byte_that_is_not_utf8_is_named_by_its_place(tmp_path: Path, content: bytes, where: str) -> None:
    """As every other character that no key has."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=f"key cannot be read: it is not UTF-8 text at {where}") as raised:
        load(KAPSO_API_KEY_FILE=str(tmp_path / "key")).key()
    assert "s3cret" not in raised.value.message


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_that_is_not_utf8_is_an_error_that_says_so(tmp_path: Path, encoding: str) -> None:
    """Mounting it again would not help."""
    (tmp_path / "file").write_bytes("KAPSO_SYNC_OWNER=größe".encode(encoding))
    for act in (
        lambda: load(KAPSO_API_KEY_FILE=str(tmp_path / "file")).key(),
        lambda: load_settings({}, env_file=tmp_path / "file", environment={}),
    ):
        with pytest.raises(ConfigError, match="it is not UTF-8 text") as raised:
            act()
        assert raised.value.hint == "save it as UTF-8"


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"listen"}))
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_or_flag_is_one_that_is_not_set(name: str, empty: str) -> None:
    """For every setting: as CI and compose write `${MISSING}`. A flag's outranks the variable, and the default holds."""
    unset = getattr(load(), name)
    assert getattr(load(**{variable(name): empty}), name) == unset
    assert getattr(load_settings({name: empty}, environment={}), name) == unset


def test_an_empty_flag_takes_the_default_and_not_the_variable() -> None:
    """Except for the address to listen on, of which an empty one means: no server."""
    environment = {"KAPSO_SYNC_DRIFT": "report", "KAPSO_SYNC_LISTEN": "127.0.0.1:1"}
    settings = load_settings({"drift": "", "listen": ""}, environment=environment)
    assert (settings.drift, settings.listen) == (DriftPolicy.CORRECT, "")


@pytest.mark.parametrize("value", ["kapso\nX-Evil: 1", "gr\u00fc\u00dfe", "a\x07b", "a\x00"])
def test_a_user_agent_that_no_header_can_carry_is_refused(value: str) -> None:
    """At the start, and not at each request."""
    with pytest.raises(ConfigError, match="KAPSO_SYNC_USER_AGENT"):
        load(KAPSO_SYNC_USER_AGENT=value)


def test_settings_precedence_is_flag_environment_file_default(tmp_path: Path) -> None:
    """Each layer overrides the next."""
    (tmp_path / "env").write_text("KAPSO_SYNC_OWNER=file\nKAPSO_SYNC_BRANCH=file\nKAPSO_SYNC_REF='file'\n# comment\n")
    settings = load_settings(
        {"owner": "flag"}, env_file=tmp_path / "env", environment={"KAPSO_SYNC_OWNER": "env", "KAPSO_SYNC_BRANCH": "env"}
    )
    assert (settings.owner, settings.branch, settings.ref, settings.env) == ("flag", "env", "file", None)


def test_all_invalid_settings_are_reported_at_once() -> None:
    """Nobody has to start the program once for each."""
    with pytest.raises(ConfigError) as raised:
        load(KAPSO_SYNC_PRUNE="perhaps", KAPSO_SYNC_CONCURRENCY="many", KAPSO_SYNC_DRIFT="ignore", KAPSO_SYNC_RATE_SHARE="0%")
    for said in (
        "KAPSO_SYNC_PRUNE is 'perhaps': expected true or false",
        "KAPSO_SYNC_CONCURRENCY is 'many': expected a whole number",
        "KAPSO_SYNC_DRIFT is 'ignore': expected 'correct' or 'report'",
        "KAPSO_SYNC_RATE_SHARE is '0%': expected a percentage from 1% to 100%",
    ):
        assert said in raised.value.message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("CONCURRENCY", "0", "expected at least 1"),
        ("CONCURRENCY", "65", "expected at most 64"),
        ("CONCURRENCY", "2.5", "expected a whole number"),
        ("CONCURRENCY", "\u0661", "expected a whole number"),
        ("ADOPT", "Always", "expected 'identical', 'always' or 'never'"),
        ("LOG_FORMAT", "text", "expected 'auto', 'json' or 'console'"),
        ("USER_AGENT", "grüße", "expected printable ASCII characters on one line"),
    ],
)
def test_an_invalid_setting_says_what_was_expected(name: str, text: str, said: str) -> None:
    """With the value as it was given; a credential's is not shown."""
    with pytest.raises(ConfigError) as raised:
        load(**{f"KAPSO_SYNC_{name}": text})
    assert raised.value.message == f"KAPSO_SYNC_{name} is {text!r}: {said}"


def test_whole_numbers_are_read_as_people_write_them() -> None:
    """With spaces around them, or as a number that a flag gives."""
    assert load(KAPSO_SYNC_CONCURRENCY=" 12 ").concurrency == 12
    assert load(KAPSO_SYNC_DEPLOYING="1_000").deploying == 1000
    assert load_settings({"concurrency": 12}, environment={}).concurrency == 12


def test_an_empty_variable_takes_the_default() -> None:
    """Compose files and charts set empty ones for what is not configured."""
    settings = load(KAPSO_SYNC_OWNER="", KAPSO_SYNC_STATE_DIR=" ", KAPSO_API_KEY="")
    assert (settings.owner, settings.state_dir, settings.api_key) == (None, None, None)


def test_the_api_key_file_is_read_again_for_each_use(tmp_path: Path) -> None:
    """A changed mounted secret is used at once; an empty or missing file is an error that names it."""
    path = tmp_path / "key"
    path.write_text("first-key\n")
    settings = load(KAPSO_API_KEY_FILE=str(path))
    assert settings.key() == "first-key"
    path.write_text("second-key\n")
    assert settings.key() == "second-key"
    path.write_text(" \n")
    with pytest.raises(ConfigError, match="is empty"):
        settings.key()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        settings.key()
    path.unlink()
    with pytest.raises(ConfigError, match=r"KAPSO_API_KEY_FILE .* cannot be read"):
        settings.key()
    os.mkfifo(path)  # nobody writes to it, and what is read again cannot be a pipe
    with pytest.raises(ConfigError, match=r"KAPSO_API_KEY_FILE .* cannot be read: it is not a regular file"):
        settings.key()


@pytest.mark.parametrize("value", ["9f86d081884c7d659a2feaa0c55ad015", "0b5e7c1e-4a4f-4f3a-9d55", "eyJhbGciOiJI.eyJzdWIi" * 3])
def test_a_key_that_was_given_in_place_of_its_file_is_not_shown(value: str) -> None:
    """The control: what may well be a file is named."""
    with pytest.raises(ConfigError, match=rf"KAPSO_API_KEY_FILE \({len(value)} characters\) cannot be read") as raised:
        load(KAPSO_API_KEY_FILE=value).key()
    assert value not in f"{raised.value.message} {raised.value.hint}"
    for name in ("/run/secrets/kapso-api-key-of-acme", "kapso-api-key.txt", "key"):
        with pytest.raises(ConfigError, match=f"KAPSO_API_KEY_FILE {name} cannot be read"):
            load(KAPSO_API_KEY_FILE=name).key()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_key_file_of_another_user_is_an_error_that_names_both_users(tmp_path: Path) -> None:
    """A bind mount keeps owner and mode: the error says which, and what to do."""
    folder = Path(tempfile.mkdtemp(prefix="kapso-sync-"))  # pytest's own folder lets nobody else in
    path = folder / "api-key"
    try:
        folder.chmod(0o755)
        path.write_text("a-key")
        path.chmod(0o600)
        os.chown(path, 4321, 4321)
        os.seteuid(10001)
        with pytest.raises(ConfigError) as raised:
            load(KAPSO_API_KEY_FILE=str(path)).key()
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)
    assert "belongs to uid 4321 with mode 0600, and this process is uid 10001" in raised.value.message
    assert "chown 10001 api-key" in str(raised.value.hint)


def test_a_secret_in_a_variable_and_in_a_file_is_refused(tmp_path: Path) -> None:
    """Choosing one would be a guess."""
    (tmp_path / "key").write_text("a-key")
    with pytest.raises(ConfigError, match="both KAPSO_API_KEY and KAPSO_API_KEY_FILE are set"):
        load(KAPSO_API_KEY="b-key", KAPSO_API_KEY_FILE=str(tmp_path / "key")).key()


def test_a_missing_api_key_error_has_a_hint() -> None:
    """It is the first error that a new user meets."""
    with pytest.raises(ConfigError) as raised:
        load().key()
    assert "KAPSO_API_KEY" in str(raised.value.hint)


@given(st.text(min_size=1).filter(lambda text: "\0" not in text and text.strip()))
def test_secrets_are_not_in_the_repr_of_settings_or_in_errors(secret: str) -> None:
    """Settings may be printed by mistake."""
    settings = load(KAPSO_API_KEY=f"key-{secret}", KAPSO_SYNC_GIT_TOKEN=f"key-{secret}")
    assert "git_token" in repr(settings)
    assert f"key-{secret}" not in repr(settings) + str(settings)


def test_settings_differ_by_variables_that_are_no_settings(tmp_path: Path) -> None:
    """A proxy of the `--env-file` is one: a daemon that was told to read it again has other settings. None shows in a repr."""
    (tmp_path / "one").write_text("HTTPS_PROXY=http://a-proxy:1\n")
    (tmp_path / "other").write_text("HTTPS_PROXY=gopher://a-proxy\n")
    one, same, other = (
        load_settings({}, env_file=tmp_path / "one", environment={"A": "a-proxy"}),
        load_settings({}, env_file=tmp_path / "one", environment={"A": "a-proxy"}),
        load_settings({}, env_file=tmp_path / "other", environment={"A": "a-proxy"}),
    )
    assert one == same
    assert one != other
    assert "a-proxy" not in repr(one) + repr(one.origin)


def test_misspelt_variables_are_a_warning_with_a_suggestion() -> None:
    """Variables of the daemon and of other programs are ignored here."""
    settings = load(KAPSO_SYNC_PRUNNE="true", KAPSO_SYNC_ZZZ="1", KAPSO_SYNC_INTERVAL="5m", KAPSO_OTHER="x")
    assert [notice.message for notice in settings.notices] == [
        "KAPSO_SYNC_PRUNNE is not a setting; did you mean KAPSO_SYNC_PRUNE?",
        "KAPSO_SYNC_ZZZ is not a setting",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", MaxDelete(5)), ("0", MaxDelete(0)), ("25%", MaxDelete(25, percent=True)), ("100%", MaxDelete(100, percent=True))],
)
def test_limits_are_numbers_or_shares(text: str, expected: MaxDelete) -> None:
    """They are shown in the same spelling."""
    assert load(KAPSO_SYNC_MAX_DELETE=text).max_delete == expected
    assert str(expected) == text


def test_a_share_rounds_down_and_allows_one() -> None:
    """A quarter of three functions is one, of eight is two."""
    quarter = MaxDelete(25, percent=True)
    assert [quarter.limit(owned) for owned in (0, 3, 7, 8)] == [1, 1, 1, 2]


def test_every_setting_has_an_environment_variable() -> None:
    """Kapso's own have Kapso's prefix, ours have ours."""
    assert variable("api_key_file") == "KAPSO_API_KEY_FILE"
    assert variable("state_dir") == "KAPSO_SYNC_STATE_DIR"


def test_an_env_file_with_our_credential_is_no_secret_source_for_functions(tmp_path: Path) -> None:
    """Code in git cannot name it as a secret file; a file that holds only values for functions may be read."""
    ours, plain = tmp_path / "ours.env", tmp_path / "plain.env"
    ours.write_text("KAPSO_API_KEY=k\nSTRIPE=s\n")
    plain.write_text("KAPSO_SYNC_PRUNE=true\nSTRIPE=s\n")
    assert load_settings({}, env_file=ours, environment={}).credential_files == (ours,)
    assert load_settings({}, env_file=plain, environment={}).credential_files == ()


@pytest.mark.parametrize("variable", ["KAPSO_SYNC_OWNER", "KAPSO_SYNC_ENV"])
@pytest.mark.parametrize("value", ["my team", "a[b]", "a\tb", "a\x07b", "a\x7fb", "a\u200bb"])
def test_a_name_that_no_mark_can_hold_is_refused(variable: str, value: str) -> None:
    """It would not be recognised again, and one more mark would be written in every pass."""
    with pytest.raises(ConfigError, match=f"{variable} .*without white space"):
        load_settings({}, environment={variable: value})
    load_settings({}, environment={variable: "acme/flows"})


def test_a_wrong_value_is_shown_without_the_user_of_a_url() -> None:
    """A variable may hold what was meant for another."""
    with pytest.raises(ConfigError) as caught:
        load_settings({}, environment={"KAPSO_SYNC_INTERVAL": "https://user:hunter2@host/x"})
    assert "hunter2" not in caught.value.message
    assert "KAPSO_SYNC_INTERVAL is 'https://[redacted]host/x'" in caught.value.message


def test_a_missing_key_names_the_line_that_may_be_meant_to_set_it(tmp_path: Path) -> None:
    """A space in place of `=`; the line itself is not shown, since it holds the key."""
    file = tmp_path / "settings.env"
    file.write_text("KAPSO_SYNC_OWNER=acme/flows\nKAPSO_API_KEY hunter2\n")
    with pytest.raises(ConfigError) as caught:
        load_settings({}, env_file=file, environment={}).key()
    assert caught.value.message == f"no API key; --env-file {file}: line 2 is not NAME=value, and left out"
    file.write_text("KAPSO_SYNC_OWNER=acme/flows\n")
    with pytest.raises(ConfigError, match=r"^no API key$"):
        load_settings({}, env_file=file, environment={}).key()


def test_an_env_file_with_a_nul_character_is_refused(tmp_path: Path) -> None:
    """A file's name cannot hold one, and Python's own complaint is none for people."""
    file = tmp_path / "settings.env"
    file.write_bytes(b"KAPSO_SYNC_OWNER=acme/flows\nKAPSO_API_KEY_FILE=hunter2\0\n")
    with pytest.raises(ConfigError) as caught:
        load_settings({}, env_file=file, environment={})
    assert caught.value.message == f"--env-file {file} cannot be read: line 2 holds a NUL character"
