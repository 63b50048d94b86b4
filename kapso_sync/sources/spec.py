"""Parses a SOURCE argument: a folder or a git repository, and refuses unsafe ones."""

from __future__ import annotations

import enum
import os.path
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError, SourceMissing, SourceRefused
from kapso_sync.model.source import DEFAULT_FOLDER, FUNCTION_FILE, MANIFEST_NAMES
from kapso_sync.sources.identity import find_work_tree
from kapso_sync.urls import is_loopback, is_scp_like


class SourceKind(enum.Enum):
    """How a source is read."""

    FOLDER = enum.auto()
    GIT = enum.auto()


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source that may be read. ``location`` is an absolute folder, or a git remote; it carries no password.

    ``given`` is the project's folder that was named, where its functions folder is used in its place.
    """

    kind: SourceKind
    location: str
    branch: str | None = None
    ref: str | None = None
    path: str | None = None
    given: str | None = None

    @property
    def protocol(self) -> str:
        """The only transport that git may use for it."""
        if "://" in self.location:
            return self.location.partition("://")[0]
        return "ssh" if is_scp_like(self.location) else "file"


def parse_source(
    text: str, *, branch: str | None = None, ref: str | None = None, path: str | None = None, cwd: Path
) -> SourceSpec:
    """Return the parsed source. URLs, scp-like names and bare repositories are git; a folder is a folder.

    A branch or ref makes a folder the repository that it belongs to, and a project's folder is its functions folder. Raises
    `SourceRefused` for unsafe sources, `SourceMissing` for missing ones, and `ConfigError` for contradictions.
    """
    branch, ref = _short(branch, "refs/heads/"), _short(ref, "refs/tags/")
    if branch is not None and ref is not None:
        raise ConfigError("both a branch and a ref are given", hint="--branch follows a branch, --ref pins a tag or a commit")
    for name, value in (("branch", branch), ("ref", ref)):
        if value is not None and not _safe_ref(value):
            raise SourceRefused(f"{name} {value!r} is not a name that git allows", hint="name a branch, a tag or a commit id")
    where = _checked_path(path)
    _refuse_unsafe(text)
    text = re.sub(r"^(git\+ssh|ssh\+git)://", "ssh://", text)  # other names of the same, which git knows too
    if "://" in text:
        return SourceSpec(SourceKind.GIT, _checked_url(text), branch, ref, where)
    folder = _without_dots(Path(cwd, text))
    if re.match(r"[^\s/@]*:[^\s@]*@", text) and not _holds(folder.exists):
        raise SourceRefused(
            "the source carries a user name and a password",
            hint="leave them out; a token goes into KAPSO_SYNC_GIT_TOKEN or KAPSO_SYNC_GIT_TOKEN_FILE",
        )
    if is_scp_like(text) and not _holds(folder.exists):
        return SourceSpec(SourceKind.GIT, text, branch, ref, where)
    if not _holds(folder.is_dir):
        raise SourceMissing(why_no_folder(text, folder), hint="name a folder with functions, or a git repository")
    location = str(folder.absolute())
    if is_bare_repository(folder):
        return SourceSpec(SourceKind.GIT, location, branch, ref, where)
    if branch is not None or ref is not None:
        top, below = _repository_of(folder.absolute(), where)
        return SourceSpec(SourceKind.GIT, str(top), branch, ref, below)
    if where is None and is_project(folder):
        return SourceSpec(SourceKind.FOLDER, str(folder.absolute() / DEFAULT_FOLDER), given=location)
    return SourceSpec(SourceKind.FOLDER, location, path=where)


def _refuse_unsafe(text: str) -> None:
    if text.startswith("-") or any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise SourceRefused(
            f"source {text!r} is not a folder or a repository", hint="it must not start with - or hold control characters"
        )
    if re.match(r"[A-Za-z0-9+.-]+::", text):
        raise SourceRefused(f"source {text!r} names a remote helper", hint="use https://, ssh://, git@host:path or a folder")


def is_project(folder: Path) -> bool:
    """Return whether a folder outside of any work tree only holds a functions folder, and is not one itself.

    A work tree is always read that way. Elsewhere `plan .` means `plan ./functions`, with the same owner and state, only where
    nothing else can be meant.
    """
    functions = folder / DEFAULT_FOLDER
    return _declares(functions) and not _declares(folder) and find_work_tree(folder) is None


def _declares(folder: Path) -> bool:
    """Return whether a folder has a manifest, in any capitals, or folders of the Kapso CLI."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return False
    return any(name.casefold() in MANIFEST_NAMES or (folder / name / FUNCTION_FILE).is_file() for name in names)


def why_no_folder(shown: str, path: Path) -> str:
    """Return the message for a path that is not a folder; ``shown`` is how the user names it."""
    return f"{shown} is not a folder" if _holds(path.exists) or _holds(path.is_symlink) else f"{shown} does not exist"


def _holds(test: Callable[[], bool]) -> bool:
    """Return what a test of a path says; a name that the file system refuses, such as one that is too long, passes none."""
    try:
        return test()
    except (OSError, ValueError):
        return False


def _without_dots(folder: Path) -> Path:
    """Return the folder without ``..``, since its owner is made of it; as given where a symlink makes that another folder."""
    short = Path(os.path.normpath(folder))
    return short if _holds(lambda: short.samefile(folder)) else folder


def _repository_of(folder: Path, path: str | None) -> tuple[Path, str | None]:
    """Return the root of the repository that a folder belongs to, and the path in it that means ``path`` in the folder."""
    tree = find_work_tree(folder)
    if tree is None:
        raise SourceMissing(f"{folder} is in no git repository", hint="--branch and --ref are for repositories")
    inside = folder.relative_to(tree.root).as_posix()
    return tree.root, "/".join(part for part in ("" if inside == "." else inside, path) if part) or path


def is_bare_repository(folder: Path) -> bool:
    """Return whether a folder looks like a bare git repository."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError as error:
        raise SourceRefused(f"the source is not a URL: {error}", hint="an example: https://github.com/acme/flows") from error
    if parts.password is not None or (parts.username is not None and parts.scheme in ("http", "https")):
        raise SourceRefused(
            "the source's URL carries a user name or a password",
            hint="leave it out of the URL; a token goes into KAPSO_SYNC_GIT_TOKEN or KAPSO_SYNC_GIT_TOKEN_FILE",
        )
    if parts.query or parts.fragment:
        # Tokens travel in queries, and this URL is shown in logs and plans.
        raise SourceRefused(
            "the source's URL has a query or a fragment",
            hint="leave it out; --branch and --ref name a revision, KAPSO_SYNC_GIT_TOKEN a token",
        )
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        if not _holds(folder.is_dir):
            raise SourceMissing(why_no_folder(str(folder), folder), hint="file:// needs the full path of a repository")
        return folder.as_uri()
    if parts.scheme == "http" and is_loopback(host or ""):
        return text
    if parts.scheme not in ("https", "ssh"):
        raise SourceRefused(
            f"source {parts.scheme}:// is not read", hint="use https://, ssh://, git@host:path, file:// or a folder"
        )
    if not host or host.startswith("-") or not parts.path.strip("/"):
        raise SourceRefused("the source's URL names no repository", hint="an example: https://github.com/acme/flows")
    return text


def _checked_path(path: str | None) -> str | None:
    if path is None:
        return None
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise ConfigError(f"--path {path!r} must lie inside the source", hint="use a relative path with forward slashes")
    return "" if str(pure) == "." else str(pure)


def _short(name: str | None, prefix: str) -> str | None:
    """Return the short name of a branch or a tag, which some write in full."""
    return None if name is None else name.removeprefix(prefix)


def _safe_ref(name: str) -> bool:
    """Return whether git accepts the name, by those rules of git-check-ref-format that matter to safety."""
    forbidden = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
    return not (not name or name.startswith(("-", "/", ".")) or name.endswith(("/", ".", ".lock")) or forbidden.search(name))
