"""Edits a functions folder in memory: decides which file gets a function's code, and which file each key. Pure."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError
from kapso_sync.manifest.entries import folded
from kapso_sync.manifest.layout import edited_file, misfit, read_layout
from kapso_sync.manifest.remote_map import read_remote_map
from kapso_sync.manifest.schema import SECRET_PATTERN
from kapso_sync.manifest.text import Edit, edited
from kapso_sync.model.desired import Desired, DesiredFunction
from kapso_sync.model.functions import (
    CODE,
    DESCRIPTION,
    FIELDS,
    DeploymentStatus,
    FunctionType,
    InvokeMode,
    RemoteFunction,
    code_hash,
    normal_code,
)
from kapso_sync.model.json_values import Json, same_json
from kapso_sync.model.names import is_slug
from kapso_sync.model.policies import Contract
from kapso_sync.model.pull import FileChange, FolderLayout
from kapso_sync.model.source import CODE_LIMIT, FUNCTION_FILE, MANIFEST_LIMIT, MANIFEST_NAMES, Snapshot
from kapso_sync.model.state import InventoryRecord
from kapso_sync.reconcile.plan.comparison import compare
from kapso_sync.reconcile.plan.line_ends import comparable_content
from kapso_sync.reconcile.plan.observed import stored_content

MAX_FILE_STEM = 200
"""A longer name of a new file or folder is cut to this many characters, and a hash follows; file systems allow 255 bytes."""

SECRET_COMMENT = "its value is on Kapso alone: fill in {env: NAME} to set it from git"  # noqa: S105 - a comment

_DEFAULTS: Mapping[str, Json] = {
    DESCRIPTION: "",
    "function_type": str(FunctionType.CLOUDFLARE_WORKER),
    "invoke_response_mode": str(InvokeMode.PASSTHROUGH),
    "public_endpoint": False,
    "runtime_config": {},
}
"""Kapso's defaults for a new function."""


class CannotPull(Exception):
    """A function cannot be written into the folder; the message is the end of a sentence."""


@dataclass
class FunctionEdit:
    """The edits for one function: whole files and edits by path, and remarks for people.

    ``incomplete``: something of it could not be written.
    """

    remote: RemoteFunction
    code: str
    paths: list[str] = field(default_factory=list)
    writes: dict[str, bytes] = field(default_factory=dict)
    edits: dict[str, list[Edit]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    incomplete: bool = False

    @property
    def slug(self) -> str:
        """The identity."""
        return self.remote.slug

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the function, as far as they are known here."""
        return tuple(dict.fromkeys((*self.paths, *self.edits)))

    def amiss(self, remark: str) -> None:
        """Add a remark that something could not be written."""
        self.remarks.append(remark)
        self.incomplete = True


class FolderEditor:
    """A functions folder, to which functions are added one after the other.

    Without ``layout``, new ones are written in the folder's own layout. ``modules`` are declared as such. ``force`` overwrites
    local changes. In an ``environment`` of the manifest, keys are written there only.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        desired: Desired,
        layout: FolderLayout | None = None,
        modules: frozenset[str] = frozenset(),
        *,
        environment: str | None = None,
        force: bool,
    ) -> None:
        self._files = snapshot.files
        self._modules = modules
        self._force = force
        self._layout = read_layout(self._files, environment)
        self._map = read_remote_map(snapshot.remote_map)
        folders_only = bool(self._layout.folders) and self._layout.manifest is None
        self._as_folders = layout is FolderLayout.KAPSO or (layout is None and folders_only)
        self._wanted = {function.slug: function for function in desired.functions}
        self._broken = {function.slug: function for function in desired.unusable}
        self._used = {function.entry.file for function in desired.functions}
        self._used |= {function.file for function in desired.unusable if function.file is not None}
        self._names = {name: slug for slug, entry in self._layout.entries.items() if isinstance(name := entry.get("name"), str)}
        self._taken = {folded(path) for path in self._files}
        self._writes: dict[str, bytes] = {}
        self._edits: dict[str, list[Edit]] = {}

    def add(self, remote: RemoteFunction, secrets: Sequence[str]) -> FunctionEdit:
        """Add a function that the folder does not list; raises `CannotPull`, and then nothing of it is added."""
        draft = FunctionEdit(remote, _code_of(remote))
        if not is_slug(draft.slug):
            raise CannotPull("a manifest takes no such slug")
        if draft.slug in self._layout.left_out:
            raise CannotPull("this environment leaves it out")
        if self._as_folders and self._layout.home:
            raise CannotPull("a folder of the Kapso CLI would be in every environment")
        if self._as_folders:
            self._add_folder(draft)
        else:
            self._add_entry(draft)
        if remote.status is DeploymentStatus.DRAFT:
            self._set(draft, "deploy", value=False)
        if draft.slug in self._modules:
            self._set(draft, "contract", value=str(Contract.MODULE))
        self._secrets(draft, secrets)
        return self._enter(draft)

    def rewrite(
        self, remote: RemoteFunction, last_applied: InventoryRecord | None, secrets: Sequence[str], *, free: bool
    ) -> FunctionEdit:
        """Rewrite a function that the folder lists; raises like `add`.

        ``last_applied`` is our last write of it, which shows what was changed in the folder since. ``free``: it is unowned.
        """
        draft = FunctionEdit(remote, _code_of(remote))
        folder = self._layout.folders.get(draft.slug)
        if folder is not None and folder.problems:
            raise CannotPull(f"its folder is broken: {folder.problems[0]}")
        local = self._wanted.get(draft.slug)
        if not self._force and self._changed_here(draft, local, last_applied):
            raise CannotPull("it was changed here, or never synced from here; --force overwrites it")
        self._rewrite_code(draft, local)
        for name in FIELDS:
            self._field(draft, name)
        if free and remote.status is DeploymentStatus.DRAFT and self._layout.said(draft.slug, "deploy") is not False:
            self._set(draft, "deploy", value=False)
        self._secrets(draft, secrets)
        return self._enter(draft)

    def changes(self) -> tuple[FileChange, ...]:
        """Return the files to write, the manifest last: if writing stops early, only files remain that no entry names.

        Raises `KapsoSyncError` when the manifest would grow beyond its limit.
        """
        edits = sorted(self._edits.items(), key=lambda item: ("/" not in item[0], item[0]))
        made = sorted(self._writes.items())
        made += [(path, edited_file(path, self._content(path), listed)) for path, listed in edits]
        for path, content in made:
            if path in self._edits and len(content) > MANIFEST_LIMIT:
                raise KapsoSyncError(
                    f"{path} would be larger than {MANIFEST_LIMIT // 1024} KiB, which is not read",
                    hint="pull less with --only, or as folders with --layout kapso",
                )
        return tuple(FileChange(path, self._content(path), new) for path, new in made if new != self._content(path))

    def _enter(self, draft: FunctionEdit) -> FunctionEdit:
        self._writes |= draft.writes
        for path, edits in draft.edits.items():
            self._edits.setdefault(path, []).extend(edits)
            self._names |= {
                str(edit.value): draft.slug
                for edit in edits
                if edit.path == (*self._layout.home, "functions", draft.slug, "name")
            }
        self._used |= set(draft.paths)
        self._taken |= set(map(folded, draft.paths))
        return draft

    # Functions that the folder does not list

    def _add_entry(self, draft: FunctionEdit) -> None:
        path = self._free_file(draft.slug, _suffix(draft.remote))
        self._write(draft, path, draft.code.encode())
        self._set(draft, "file", path)
        for name in FIELDS:
            self._field(draft, name)

    def _add_folder(self, draft: FunctionEdit) -> None:
        noted = self._map.code_file(draft.slug, hashlib.sha256(draft.code.encode()).hexdigest())
        folder, entrypoint = noted or (draft.slug, f"index{_suffix(draft.remote)}")
        home = self._free_folder(folder)
        content: dict[str, Json] = {"entrypoint": entrypoint, "name": draft.slug, "slug": draft.slug}
        for name in FIELDS:
            value = _value(draft.remote, name)
            value = _DEFAULTS.get(name) if value is None else value
            written = name != DESCRIPTION or value or self._layout.defaults.get(name)
            if value is not None and written and self._fits(draft, name, value):
                content[name] = value
        text = edited("", [Edit((name,), content[name]) for name in sorted(content)], nested=True)
        if len(text.encode()) > MANIFEST_LIMIT:
            raise CannotPull(f"its {FUNCTION_FILE} would be larger than {MANIFEST_LIMIT // 1024} KiB")
        self._write(draft, f"{home}/{entrypoint}", draft.code.encode())
        self._write(draft, f"{home}/{FUNCTION_FILE}", text.encode())

    def _free_file(self, slug: str, suffix: str) -> str:
        """Return a path for new code that no entry uses, and that cannot be mistaken for another file's name."""
        for stem in _stems(slug):
            path = f"{stem}{suffix}"
            if path not in self._used and (path in self._files or folded(path) not in self._taken):
                return path
        raise AssertionError(slug)

    def _free_folder(self, folder: str) -> str:
        homes = {path.partition("/")[0] for path in (*self._files, *self._writes)}
        close = set(map(folded, homes))
        used = {known.location.file.partition("/")[0] for known in self._layout.folders.values()}
        used |= {path.partition("/")[0] for path in self._writes}
        for stem in _stems(folder):
            if stem not in used and (stem in homes or folded(stem) not in close):
                return stem
        raise AssertionError(folder)

    # Functions that the folder lists

    def _changed_here(self, draft: FunctionEdit, local: DesiredFunction | None, last_applied: InventoryRecord | None) -> bool:
        if local is None:
            path = self._path_of(draft.slug)
            content = self._content(path) if path is not None else None
            if content is None:
                return False
            code = content.decode("utf-8", "replace")
            applied = last_applied.wanted.get(CODE) if last_applied is not None else None
            return normal_code(code) != normal_code(draft.code) and code_hash(code) != applied
        last = stored_content(draft.remote) if last_applied is None else last_applied.wanted
        grown = last_applied is not None and local.content.keys() != last_applied.wanted.keys()
        wanted = comparable_content(local, draft.remote, last_applied)
        if CODE in last and normal_code(local.code) == normal_code(draft.code):
            wanted = {**wanted, CODE: last[CODE]}
        return grown or bool(compare(wanted, last, None).fields)

    def _rewrite_code(self, draft: FunctionEdit, local: DesiredFunction | None) -> None:
        path = local.entry.file if local is not None else self._path_of(draft.slug)
        if path is None:
            path = self._free_file(draft.slug, _suffix(draft.remote))
            self._set(draft, "file", path)
        if local is not None and normal_code(local.code) == normal_code(draft.code):
            return
        built = local is not None and local.code.encode() != self._content(path)
        if built or (local is None and self._broken[draft.slug].blocked):
            raise CannotPull(f"its code is built from {path}, and Kapso's code cannot be turned back into that")
        self._write(draft, path, draft.code.encode(), known=True)

    def _path_of(self, slug: str) -> str | None:
        """Return the path of an unusable function's code, if the folder names it."""
        folder, named = self._layout.folders.get(slug), self._layout.entries.get(slug, {}).get("file")
        if self._broken[slug].file is not None:
            return self._broken[slug].file
        if isinstance(named, str):
            return named
        return folder.file if folder is not None else None

    # Keys and files

    def _field(self, draft: FunctionEdit, name: str) -> None:
        """Write Kapso's value of a field into the folder, if the folder has another one."""
        value, said = _value(draft.remote, name), self._layout.said(draft.slug, name)
        default = draft.slug if name == "name" else _DEFAULTS.get(name)
        value = default if value is None else value
        if same_json(value, default if said is None else said):
            return
        if self._fits(draft, name, value):
            self._set(draft, name, value)
        elif self._layout.defaults.get(name) is not None:
            raise CannotPull(f"{draft.remarks[-1]}, and `defaults` sets another one")

    def _fits(self, draft: FunctionEdit, name: str, value: Json) -> bool:
        reason = misfit("x", name, value)
        first = self._names.get(value) if name == "name" and isinstance(value, str) else None
        if reason is not None:
            draft.amiss(f"its {name} is left out: {reason.removeprefix('functions.x.')}")
        elif first not in (None, draft.slug) and self._place_of(draft.slug, name) is None and not self._as_folders:
            draft.amiss(f"its name is left out: a manifest gives each name once, and `{first}` has it")
        else:
            return True
        return False

    def _place_of(self, slug: str, key: str) -> str | None:
        """Return the ``function.yaml`` for a key, or None for the manifest."""
        if self._layout.home:
            return None
        folder = self._layout.folders.get(slug)
        overridden = key in self._layout.entries.get(slug, {})
        return folder.location.file if folder is not None and key in FIELDS and not overridden else None

    def _set(self, draft: FunctionEdit, key: str, value: Json) -> None:
        place = self._place_of(draft.slug, key)
        if place is not None:
            draft.edits.setdefault(place, []).append(Edit((key,), value))
        else:
            self._edit_manifest(draft, Edit((*self._layout.home, "functions", draft.slug, key), value))

    def _edit_manifest(self, draft: FunctionEdit, edit: Edit) -> None:
        draft.edits.setdefault(self._layout.manifest or MANIFEST_NAMES[0], []).append(edit)

    def _secrets(self, draft: FunctionEdit, names: Sequence[str]) -> None:
        said = self._layout.said(draft.slug, "secrets")
        known = said if isinstance(said, dict) else {}
        missing = [name for name in sorted(names) if name not in known]
        place = (*self._layout.home, "functions", draft.slug, "secrets")
        if missing and not self._layout.home and not self._layout.entries.get(draft.slug, {}).get("secrets"):
            # The entry's own mapping replaces the whole mapping of the defaults.
            for name, source in known.items():
                self._edit_manifest(draft, Edit((*place, name), source))
        for name in missing:
            if not re.fullmatch(SECRET_PATTERN, name):
                draft.amiss(f"its secret `{name}` is left out: a manifest takes no such name")
                continue
            self._edit_manifest(draft, Edit((*place, name), {"keep": True}, SECRET_COMMENT))

    def _write(self, draft: FunctionEdit, path: str, content: bytes, *, known: bool = False) -> None:
        """Add a file to write. An existing file that is not in git is somebody's work, and is refused."""
        file = self._files.get(path)
        if file is not None and file.content is None:
            raise CannotPull(f"{path} {file.problem}")
        if self._writes.get(path, content) != content:
            raise CannotPull(f"{path} is to hold the code of another function as well")
        here = None if file is None else file.content
        if here not in (None, content) and not known and not self._force:
            raise CannotPull(f"{path} is here already and differs; --force overwrites it")
        draft.paths.append(path)
        if here != content:
            draft.writes[path] = content

    def _content(self, path: str) -> bytes | None:
        file = self._files.get(path)
        return file.content if file is not None else None


def _stems(name: str) -> Iterator[str]:
    """Yield names for a file or folder, the best first, without end."""
    stem = name if len(name) <= MAX_FILE_STEM else f"{name[:MAX_FILE_STEM]}-{code_hash(name)[7:15]}"
    yield stem
    yield from (f"{stem}-{number}" for number in itertools.count(2))


def _code_of(remote: RemoteFunction) -> str:
    if remote.code is None:
        raise CannotPull("Kapso does not show its code")
    try:
        size = len(remote.code.encode())
    except UnicodeEncodeError:
        raise CannotPull("its code is not Unicode text") from None
    if size > CODE_LIMIT:
        raise CannotPull(f"its code has {size} bytes, and {CODE_LIMIT // 1024} KiB are read")
    return remote.code


def _value(remote: RemoteFunction, name: str) -> Json:
    """Return a field's value for the folder; the description without any mark."""
    return remote.text if name == DESCRIPTION else remote.fields.get(name)


def _suffix(remote: RemoteFunction) -> str:
    return ".ts" if remote.fields.get("function_type") == FunctionType.SUPABASE_FUNCTION else ".js"
