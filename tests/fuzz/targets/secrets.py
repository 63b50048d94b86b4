"""Sources of secrets, and the files that they name: an archive of ``sources`` (JSON objects) and of secret files."""

from __future__ import annotations

from pathlib import Path

from kapso_sync.manifest.schema import SecretModel
from kapso_sync.model.desired import DotenvSecret, EnvSecret, FileSecret, GivenSecret
from kapso_sync.model.json_values import canonical_json
from kapso_sync.reconcile.desired import keyed_digest, secrets_digest
from kapso_sync.sources.secrets import SecretMissing, SecretReader
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.kit import model_of, printed, workspace
from tests.fuzz.promises import CANARY, BrokenPromise, check_no_canary
from tests.fuzz.target import Target

ENVIRONMENT = {
    "TOKEN": "value",
    "JSON": '{"a": "\\ud800"}',
    "EMPTY": "",
    "KAPSO_API_KEY": CANARY,
    "kapso_x": CANARY,
    "OTHER": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
}

ENV_FILE = {"OF_FILE": "value", "KAPSO_API_KEY": CANARY}


def run(data: bytes) -> None:
    """Read every source below a folder that holds the files, links out of it and a credential of ours among them."""
    sections = dict(unpack(data))
    learned: list[str] = []
    with workspace() as root:
        ours = root / "ours"
        ours.write_text(CANARY, encoding="utf-8")
        (root / "out").symlink_to(root.parent / "canary")
        (root / "up").symlink_to(root.parent)
        (root / "hard").hardlink_to(ours)
        for name in ("mount", "kubernetes.io"):
            (root / name).mkdir()
            (root / name / "token").write_text(CANARY, encoding="utf-8")
        for name, content in sections.items():
            if name != "sources":
                _write(root, name, content)
        allowed = ["TOKEN", "JSON", "E*", "KAPSO*", "kapso*", "AWS*"]
        reader = SecretReader(ENVIRONMENT, ENV_FILE, allowed, root, [ours], learned.append, lambda folder: [folder / "mount"])
        for source in _sources(sections.get("sources", b"")):
            try:
                value = reader.read(source)
            except SecretMissing as missing:
                text = f"functions.greet.secrets.A {missing.message}"
                printed(lambda console, m=missing, t=text: console.error(t, m.hint), lines=2)  # type: ignore[misc]
                continue
            check_no_canary(canonical_json(value))
            keyed_digest(b"key")("A", value)
            secrets_digest(lambda: "key")({"A": value})
            if isinstance(value, str) and value not in learned:
                raise BrokenPromise("a value that nothing redacts")


def _write(root: Path, name: str, content: bytes) -> None:
    path = root / name
    try:
        inside = path.resolve().is_relative_to(root)
        if inside and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except (OSError, ValueError):
        return


def _sources(text: bytes) -> list[GivenSecret]:
    found: list[GivenSecret] = []
    for line in text.split(b"\n")[:20]:
        model = model_of(SecretModel, line)
        if model is None:
            continue
        if model.env is not None:
            found.append(EnvSecret(model.env, json=model.json_ is True))
        elif model.file is not None:
            found.append(FileSecret(model.file, json=model.json_ is True))
        elif model.dotenv is not None:
            file, _, name = model.dotenv.rpartition("#")
            found.append(DotenvSecret(file, name))
    return found


NAMES = (
    "a",
    "b/c",
    ".env",
    "out",
    "up/canary",
    "hard",
    "ours",
    "../canary",
    "/etc/hostname",
    "kubernetes.io/token",
    "mount/token",
    ".",
    "a\0b",
)


def make(draw: Draw) -> bytes:
    """Sources that name files, links and variables, most of which are there."""
    sources = [
        dumps(
            draw.pick(
                (
                    {"file": draw.pick((*NAMES, draw.text() or "x")), "json": draw.chance(0.5)},
                    {"dotenv": f"{draw.pick(NAMES)}#{draw.pick(('A', 'B1', 'KAPSO_API_KEY', draw.text()))}"},
                    {"env": draw.pick((*ENVIRONMENT, *ENV_FILE, draw.text()))},
                )
            )
        )
        for _ in range(draw.random.randint(1, 5))
    ]
    lines = [draw.pick(("A=1", "B1='two\nlines'", 'export A="x\\ny"', "A", "=", "A=${B1}", draw.text())) for _ in range(3)]
    content = {
        "a": draw.pick((b"value\n", b"\xef\xbb\xbfvalue", b"\xff", b"", b"x\0y", dumps(draw.json()))),
        ".env": "\n".join(lines).encode("utf-8", "surrogatepass"),
        "b/c": draw.text().encode("utf-8", "surrogatepass"),
    }
    return pack({"sources": b"\n".join(sources), **content})


TOKENS = (*(name.encode() for name in NAMES), b"A=", b"export ", b"'", b'"', b"\\n", b"${A}", b"#", b"\r\n", b'{"file": "a"}')
TARGETS = (Target("secrets", run, make, TOKENS),)
