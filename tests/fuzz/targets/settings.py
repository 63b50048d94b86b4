"""Settings: an archive of the environment (``NAME=value`` lines), an ``--env-file``, and files that settings name."""

from __future__ import annotations

from pathlib import Path

from kapso_sync.api.base_url import other_base, parse_base_url, platform_base, sibling_base
from kapso_sync.errors import KapsoSyncError
from kapso_sync.settings import VARIABLES, Settings, load_settings
from kapso_sync.sources.spec import parse_source
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw
from tests.fuzz.kit import print_error, printed, workspace
from tests.fuzz.promises import CANARY
from tests.fuzz.target import Target

READS = ("key", "webhook_key", "admin_key", "git_password", "commit_status_key")
FILES = ("key", "env")
PASSWORD = "$CANARY"


def run(data: bytes) -> None:
    """Load the settings, and read everything that they promise; what is wrong is told without a credential's value."""
    sections = dict(unpack(data))
    with workspace() as root:
        for name in FILES:
            if name in sections:
                (root / name).write_bytes(sections[name])
        pairs = (
            line.partition("=") for line in sections.get("environment", b"").decode("utf-8", "surrogateescape").split("\n")
        )
        environment = {name: _value(name, value, root) for name, _, value in pairs if name and "\0" not in name + value}
        try:
            settings = load_settings({}, env_file=root / "env" if "env" in sections else None, environment=environment)
        except KapsoSyncError as error:
            print_error(error)
            return
        printed(lambda console: console.warning("".join(n.message for n in settings.notices)), lines=1)
        _read(settings, root)


def _value(name: str, text: str, root: Path) -> str:
    """Return a value with its places filled in; a canary stands where a credential does, and in no other setting."""
    secret = name.endswith(("_KEY", "_SECRET", "_TOKEN")) or (
        f"://user:{PASSWORD}@" in text and not name.endswith(("_FILE", "_DIR", "_ESBUILD"))
    )
    return text.replace("$ROOT", str(root)).replace(PASSWORD, CANARY if secret else "x")


def _read(settings: Settings, root: Path) -> None:
    for name in READS:
        try:
            getattr(settings, name)()
        except KapsoSyncError as error:
            print_error(error)
    _ = settings.key_source, settings.credential_files, settings.has_key
    try:
        base = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
        _ = other_base(base), sibling_base(base), platform_base(base)
        parse_source(settings.source or ".", branch=settings.branch, ref=settings.ref, path=settings.path, cwd=root)
    except KapsoSyncError as error:
        print_error(error)


VALUES = (
    "",
    " ",
    "1",
    "0",
    "true",
    "5m",
    "1h30m",
    "9" * 400 + "s",
    "0.0000000001ms",
    "25%",
    "999999%",
    "auto",
    "$ROOT/key",
    "$ROOT",
    "$ROOT/missing",
    "/dev/zero/x",
    "https://app.kapso.ai/api/v1",
    "http://127.0.0.1:1/x",
    "https://[::1",
    "https://user:$CANARY@host/x",
    "https://host:99999",
    "https://ho\u2100st/",
    "git@host:path.git",
    "ssh://git@host/a//b",
    "ext::sh -c id",
    "file:///",
    "acme/flows",
    "a[b]",
    "é",
    "$CANARY",
    "$CANARY\u00e9",
)


def make(draw: Draw) -> bytes:
    """Several settings, most with a value that some setting takes."""
    names = list(VARIABLES)
    lines = [
        f"{draw.pick(names)}={draw.pick(VALUES) if draw.chance(0.8) else draw.text()}" for _ in range(draw.random.randint(1, 6))
    ]
    lines += ["KAPSO_SYNC_TYPO=1"] if draw.chance(0.1) else []
    files = {"environment": "\n".join(line.replace("\n", " ") for line in lines).encode("utf-8", "surrogatepass")}
    if draw.chance(0.5):
        files["key"] = draw.pick(("\ufeffkey", "# comment\nkey", "key\n\n", "k\u201cey", draw.text())).encode(
            "utf-8", "surrogatepass"
        )
    if draw.chance(0.3):
        files["env"] = "\n".join(f"{draw.pick(names)}={draw.pick(VALUES)}" for _ in range(3)).encode()
    return pack(files)


TOKENS = (
    *(f"{name}=".encode() for name in VARIABLES),
    *(value.encode() for value in VALUES),
    b"export ",
    b"'",
    b'"',
    b"\\",
    b"#",
)
TARGETS = (Target("settings", run, make, TOKENS),)
