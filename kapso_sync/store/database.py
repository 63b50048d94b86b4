"""Stores inventory and journal in SQLite: WAL, and one writer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from kapso_sync.errors import StateReplaced
from kapso_sync.files import require_regular
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.functions import RemoteFunction, Version
from kapso_sync.model.json_values import Json
from kapso_sync.model.settled import RecordedPass, SettledPass
from kapso_sync.model.state import (
    DeploymentWatch,
    Intent,
    InventoryRecord,
    MissingFunction,
    QuotaRefusal,
    ReconcilerState,
    RenameRecord,
)
from kapso_sync.model.status import RunningPass, running_document
from kapso_sync.permissions import make_private
from kapso_sync.store import backups, codec, secretkey, settled_pass
from kapso_sync.store.api_facts import ApiFactsFile
from kapso_sync.store.connection import (
    CACHE_KIB,
    DATABASE_NAME,
    LATER,
    LOCK_TIMEOUT,
    SCHEMA,
    Newer,
    check_version,
    find_damage,
    get_meta,
    is_torn,
    read_only,
    writing,
)
from kapso_sync.store.lock import LOCK_NAME, is_held

BACKUPS_NAME = "backups"

_CREATE = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE functions (function_id TEXT PRIMARY KEY, slug TEXT NOT NULL UNIQUE, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE intents (id INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL);
"""


class StateStore:
    """The state folder of one (source, project) pair, open for writing; the caller must hold the lock.

    Every method is durable when it returns, but for the marks of when a pass began and ended, which only people read.

    Raises `StateUnusable` whenever the folder or the database cannot be written. A database that is damaged, or written by a
    newer version, is set aside (``set_aside`` names it) and a new one created: everything in it can be observed again.
    """

    def __init__(
        self, folder: Path, now: Callable[[], datetime], *, patience: float = LOCK_TIMEOUT, facts: ApiFactsFile | None = None
    ) -> None:
        self._folder = folder
        self._now = now
        self._facts = facts or _own_facts(folder)
        self.set_aside: Path | None = None
        self._recorded: Json = None
        with writing(folder):
            make_private(folder)
            try:
                self._db, owned = _open(folder / DATABASE_NAME, patience)
            except (sqlite3.DatabaseError, Newer) as error:
                if isinstance(error, sqlite3.OperationalError) and not is_torn(error):
                    raise
                self.set_aside = _set_aside(folder / DATABASE_NAME, now())
                self._db, owned = _open(folder / DATABASE_NAME, patience)
            self._followed = settled_pass.take(self._db)
            self._files = _identities(folder)
        self._records = _Records(owned)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def follows(self, recorded: RecordedPass) -> bool:
        """Return whether nobody wrote to the state after this pass before it was opened here."""
        return self._followed == recorded

    def load_state(self) -> ReconcilerState:
        """Return everything remembered; records are read once, at the start: nobody else writes them while we hold the lock."""
        with writing(self._folder):
            return dataclasses.replace(_load_state(self._db, self._records.sorted()), facts=self._facts.read())

    def learn(self, facts: ApiFacts) -> None:
        """Store the observed behaviour of this API base, for every source that uses it."""
        self._facts.write(facts)

    def remember_owner(self, owner: str, also: Collection[str] = ()) -> None:
        """Record the folder's owner; former owners stay known, and ``also`` are known as if they were former ones."""
        known = self._meta("owner")
        before = set(json.loads(self._meta("former_owners") or "[]"))
        former = {known, *before, *also} - {owner, None}
        if known == owner and former == before:
            return
        self._set_meta("former_owners", json.dumps(sorted(former)) if former else None)
        self._set_meta("owner", owner)

    def settle(self, state: ReconcilerState, closed: tuple[int, ...]) -> None:
        """Replace all inventory records by those of ``state``, and close the intents."""
        with writing(self._folder), self._db:
            self._db.execute("DELETE FROM functions")
            self._put(state.owned.values())
            self._db.executemany("DELETE FROM intents WHERE id = ?", [(number,) for number in closed])
        self._records = _Records(state.owned.values())

    def begin(self, intent: Intent) -> int:
        """Open an intent and return its number."""
        with writing(self._folder), self._db:
            cursor = self._db.execute("INSERT INTO intents (record) VALUES (?)", (codec.encode_intent(intent),))
            return int(cursor.lastrowid or 0)

    def remember(self, *owned: InventoryRecord, closes: Sequence[int] = ()) -> None:
        """Keep functions' records, in place of any others of the same id or slug, and close intents, in one transaction."""
        with writing(self._folder), self._db:
            self._put(owned)
            self._db.executemany("DELETE FROM intents WHERE id = ?", [(number,) for number in closes])
        self._records.put(owned)

    def close(self, intent_id: int) -> None:
        """Close an intent; its write certainly did not happen."""
        with writing(self._folder), self._db:
            self._db.execute("DELETE FROM intents WHERE id = ?", (intent_id,))

    def forget(self, function_id: str) -> None:
        """Drop a function's record."""
        with writing(self._folder), self._db:
            self._db.execute("DELETE FROM functions WHERE function_id = ?", (function_id,))
            for key in (_version_key, _watch_key, _watched_key):
                self._db.execute("DELETE FROM meta WHERE key = ?", (key(function_id),))
        self._records.drop(function_id)

    def remember_quota(self, quota: QuotaRefusal | None) -> None:
        """Keep Kapso's refusal for the project's quota, or drop it (None)."""
        self._set_meta("quota", None if quota is None else codec.encode_quota(quota))

    def remember_renames(self, moves: Mapping[str, RenameRecord]) -> None:
        """Store the journal of each ``moved_from``."""
        self._set_meta("moves", codec.encode_renames(moves))

    def remember_missing(self, absences: Iterable[MissingFunction]) -> None:
        """Store the functions that git does not list, in place of those stored before."""
        self._set_meta("absences", codec.encode_missing(absences))

    def remember_manifest(self, *, present: bool) -> None:
        """Store whether the last completed pass had a manifest."""
        if present != (self._meta("manifest_present") is not None):
            self._set_meta("manifest_present", "1" if present else None)

    def remember_project(self, project_id: str) -> None:
        """Store the project that the API key opens."""
        self._set_meta("project_id", project_id)

    def remember_pass(self, trigger: str) -> None:
        """Store that a pass begins, and why.

        Raises `StateUnusable` if nothing can be written, and `StateReplaced` if nobody would find what is written: what was
        opened here can still be written after it was removed, and the lock keeps nobody away any more.
        """
        with writing(self._folder):
            there = _identities(self._folder)
        if there != self._files:
            raise StateReplaced(
                f"the state folder {self._folder} was removed or replaced while kapso-sync used it",
                hint="nothing is written to Kapso without a journal: a daemon opens the folder again, repeat a command",
            )
        running = RunningPass(trigger, self._now())
        with self._without_waiting():
            self._set_meta("pass_running", json.dumps(running_document(running)))

    def forget_running_pass(self) -> None:
        """Forget the pass of a process that was killed: the caller holds the lock now, and runs none yet."""
        self._set_meta("pass_running", None)

    def record_pass(
        self,
        document: Mapping[str, Json],
        functions: Iterable[str] | None = None,
        settled: SettledPass | None = None,
        circumstances: str = "",
    ) -> None:
        """Store the status after the last pass, for people, and that no pass runs now.

        ``functions`` are the documents of its functions as JSON, in place of those in ``document``. ``settled`` is that pass if
        the next one need not be made, under the same ``circumstances``: a digest of what it depends on besides.
        """
        text = json.dumps(dict(document))
        if functions is not None:
            text = f'{json.dumps(_without_functions(document))[:-1]}, "functions": [{",".join(functions)}]}}'
        self._recorded = document.get("now")
        kept = None
        if settled is not None:
            kept = RecordedPass(settled, circumstances, _without_functions(document), document.get("now"))
        self._end_pass("last_pass", text, drops=LATER, settled=kept)

    def record_later_pass(self, document: Mapping[str, Json]) -> None:
        """Store the status after a pass that left the functions of `record_pass` as they were.

        The documents of a thousand functions are a megabyte, which is not written again.
        """
        later = {"after": self._recorded, "document": _without_functions(document)}
        self._end_pass(LATER, json.dumps(later))

    def _end_pass(self, key: str, text: str, drops: str | None = None, settled: RecordedPass | None = None) -> None:
        with self._without_waiting(), writing(self._folder), self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))
            self._db.execute("DELETE FROM meta WHERE key IN ('pass_running', ?)", (drops,))
            settled_pass.put(self._db, settled)

    @contextlib.contextmanager
    def _without_waiting(self) -> Iterator[None]:
        """Write what only people read without waiting for the disk, for which all requests would wait as well.

        A process that is killed loses nothing of it. A power failure may take it, but nothing that was written before.
        """
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def keep_version(self, remote: RemoteFunction) -> None:
        """Store the running version, in place of the one stored before."""
        self._set_meta(_version_key(remote.id), codec.encode_version(remote))

    def version(self, function_id: str) -> Version | None:
        """Return the stored version of a function, or None."""
        text = self._meta(_version_key(function_id))
        return None if text is None else codec.decode_version(text)

    def watch(self, function_id: str) -> DeploymentWatch | None:
        """Return the watch of a function's deployment, or None; one that cannot be read is none."""
        text = self._meta(_watch_key(function_id))
        return None if text is None else _watch(text)

    def watches(self) -> tuple[DeploymentWatch, ...]:
        """Return all watches."""
        with writing(self._folder):
            return tuple(_read_watches(self._db).values())

    def remember_watch(self, watch: DeploymentWatch, version: RemoteFunction | None = None) -> None:
        """Keep a watch in place of the function's last one; ``version`` is the record of what is watched, with its code."""
        rows = [(_watch_key(watch.function_id), codec.encode_watch(watch))]
        if version is not None:
            rows.append((_watched_key(watch.function_id), codec.encode_version(version)))
        with writing(self._folder), self._db:
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def end_watch(self, function_id: str, *, proven: bool) -> None:
        """Forget a watch; what was ``proven`` by it becomes the previous version."""
        watched = self._meta(_watched_key(function_id))
        with writing(self._folder), self._db:
            if proven and watched is not None:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_version_key(function_id), watched))
            for key in (_watch_key, _watched_key):
                self._db.execute("DELETE FROM meta WHERE key = ?", (key(function_id),))

    def secret_key(self, random: Callable[[int], bytes]) -> bytes:
        """Return the key of the secrets' digests; ``random`` returns that many bytes for a new one."""
        with writing(self._folder):
            return secretkey.read_key(self._folder) or secretkey.make_key(self._folder, random)

    def back_up(self, remote: RemoteFunction, reason: str, *, keep: bool) -> str:
        """Save a copy of a function and return its name below the backups folder."""
        with writing(self._folder):
            return backups.back_up(self._folder / BACKUPS_NAME, remote, reason, self._now(), keep=keep)

    def _put(self, owned: Iterable[InventoryRecord]) -> None:
        for record in owned:
            self._db.execute("DELETE FROM functions WHERE slug = ? AND function_id != ?", (record.slug, record.function_id))
            self._db.execute(
                "INSERT INTO functions VALUES (?, ?, ?) "
                "ON CONFLICT (function_id) DO UPDATE SET slug = excluded.slug, record = excluded.record",
                (record.function_id, record.slug, codec.encode_record(record)),
            )

    def _meta(self, key: str) -> str | None:
        with writing(self._folder):
            return get_meta(self._db, key)

    def _set_meta(self, key: str, value: str | None) -> None:
        with writing(self._folder), self._db:
            if value is None:
                self._db.execute("DELETE FROM meta WHERE key = ?", (key,))
            else:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _identities(folder: Path) -> tuple[tuple[int, int] | None, ...]:
    """Return what tells the files of a state folder from others of the same names; raises OSError."""
    found = list[tuple[int, int] | None]()
    for name in (LOCK_NAME, DATABASE_NAME):
        try:
            about = (folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            found.append(None)
        else:
            found.append((about.st_dev, about.st_ino))
    return tuple(found)


def read_state(folder: Path, facts: ApiFactsFile | None = None) -> ReconcilerState:
    """Return the content of a state folder, without lock and without writing; empty if nothing is readable."""
    return dataclasses.replace(read_only(folder, _load_state) or ReconcilerState(), facts=(facts or _own_facts(folder)).read())


def find_state_damage(folder: Path) -> str | None:
    """Return why the next writer will set the database of a state folder aside, as the end of a sentence; else None."""
    return find_damage(folder, _load_state)


def read_owners(folder: Path) -> tuple[str, ...]:
    """Return the owners that a state folder knows, the present one first, without lock and without writing."""

    def query(db: sqlite3.Connection) -> tuple[str, ...]:
        owner = get_meta(db, "owner")
        return (*([] if owner is None else [owner]), *json.loads(get_meta(db, "former_owners") or "[]"))

    return read_only(folder, query) or ()


def owns_anything(folder: Path) -> bool:
    """Return whether a state folder knows a function of ours, without lock and without writing."""
    return bool(read_only(folder, lambda db: db.execute("SELECT 1 FROM functions LIMIT 1").fetchone()))


def read_version(folder: Path, function_id: str) -> Version | None:
    """Return a function's previous version that a state folder keeps, without lock and without writing."""
    text = read_only(folder, lambda db: get_meta(db, _version_key(function_id)))
    return None if text is None else codec.decode_version(text)


def _own_facts(folder: Path) -> ApiFactsFile:
    return ApiFactsFile(folder / "api-facts.json")


def read_last_pass(folder: Path) -> Mapping[str, Json] | None:
    """Return the last pass that was recorded, or None; one that cannot be read is none, since only people read it."""
    rows = read_only(folder, lambda db: dict(db.execute("SELECT * FROM meta WHERE key IN ('last_pass', ?)", (LATER,))))
    document = _document((rows or {}).get("last_pass"))
    functions = (document or {}).get("functions", [])
    if document is None or not isinstance(functions, list) or not all(isinstance(each, dict) for each in functions):
        return None
    later = _document((rows or {}).get(LATER)) or {}
    shown = later.get("document")
    # Another version may have recorded a pass in between, and knows nothing of the second row.
    return {**document, **shown} if isinstance(shown, dict) and later.get("after") == document.get("now") else document


def _document(text: str | None) -> dict[str, Json] | None:
    """Return a JSON document that is kept for people, or None without one, and for one that is damaged."""
    try:
        document = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _without_functions(document: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in document.items() if name != "functions"}


def read_running_pass(folder: Path) -> Mapping[str, Json] | None:
    """Return the trigger of the pass that runs, and since when, or None; a process that was killed runs none."""
    text = read_only(folder, lambda db: get_meta(db, "pass_running"))
    running = _document(text) if is_held(folder) else None
    return running if running is not None and {"trigger", "since"} <= running.keys() else None


class _Records:
    """The inventory records in the database. A function's id is in it once, and so is a slug."""

    def __init__(self, records: Iterable[InventoryRecord]) -> None:
        self._by_id: dict[str, InventoryRecord] = {}
        self._id_of: dict[str, str] = {}
        self.put(records)

    def put(self, records: Iterable[InventoryRecord]) -> None:
        """Keep records, in place of any others of the same id or slug."""
        for record in records:
            self.drop(record.function_id)
            self.drop(self._id_of.get(record.slug))
            self._by_id[record.function_id] = record
            self._id_of[record.slug] = record.function_id

    def drop(self, function_id: str | None) -> None:
        """Forget the record of a function, if there is one."""
        if function_id is not None and (record := self._by_id.pop(function_id, None)) is not None:
            del self._id_of[record.slug]

    def sorted(self) -> list[InventoryRecord]:
        """Return the records by slug."""
        return [self._by_id[self._id_of[slug]] for slug in sorted(self._id_of)]


def _open(path: Path, patience: float) -> tuple[sqlite3.Connection, list[InventoryRecord]]:
    """Return the database, created if there is none, and its records; raises `sqlite3.DatabaseError` if it is not whole."""
    require_regular(path)
    db = sqlite3.connect(path, timeout=patience, cached_statements=0)
    try:
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        if db.execute("PRAGMA user_version").fetchone() == (0,) and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            db.executescript(f"BEGIN; {_CREATE} PRAGMA user_version={SCHEMA}; COMMIT;")
        check_version(db)
        _check_whole(db)
        owned = _read_records(db)
        _load_state(db, owned)
    except (ValueError, KeyError, TypeError) as error:
        db.close()
        raise sqlite3.DatabaseError(f"a record cannot be read: {error}") from error
    except BaseException:
        db.close()
        raise
    return db, owned


def _check_whole(db: sqlite3.Connection) -> None:
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != ("ok",):
        raise sqlite3.DatabaseError(f"the database is torn: {verdict}")


def _set_aside(path: Path, now: datetime) -> Path:
    target = path.with_name(f"{path.name}.set-aside-{now:%Y%m%dT%H%M%S%f}")
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
    path.rename(target)
    return target


def _read_records(db: sqlite3.Connection) -> list[InventoryRecord]:
    return [codec.decode_record(record) for (record,) in db.execute("SELECT record FROM functions ORDER BY slug")]


def _load_state(db: sqlite3.Connection, known: list[InventoryRecord] | None = None) -> ReconcilerState:
    """Return everything in the database; ``known`` are its records where they were read already."""
    owned = _read_records(db) if known is None else known
    intents = [
        codec.decode_intent(number, record) for number, record in db.execute("SELECT id, record FROM intents ORDER BY id")
    ]
    quota, moves, absences = (get_meta(db, key) for key in ("quota", "moves", "absences"))
    watches = _read_watches(db)
    failing = {watch.function_id for watch in watches.values() if watch.finding is not None}
    versions = {
        record.function_id: codec.decode_version(text)
        for record in owned
        if (record.quarantine is not None or record.function_id in failing)
        and (text := get_meta(db, _version_key(record.function_id))) is not None
    }
    owner = get_meta(db, "owner")
    return ReconcilerState(
        owned={record.function_id: record for record in owned},
        intents=tuple(intents),
        quota=None if quota is None else codec.decode_quota(quota),
        manifest_present=get_meta(db, "manifest_present") is not None,
        project_id=get_meta(db, "project_id"),
        owners=frozenset([*([] if owner is None else [owner]), *json.loads(get_meta(db, "former_owners") or "[]")]),
        versions=versions,
        renames=None if moves is None else codec.decode_renames(moves),
        missing={} if absences is None else codec.decode_missing(absences),
        watches=watches,
    )


def _read_watches(db: sqlite3.Connection) -> dict[str, DeploymentWatch]:
    rows = db.execute("SELECT value FROM meta WHERE key >= 'watch:' AND key < 'watch;' ORDER BY key")
    return {watch.function_id: watch for (text,) in rows if (watch := _watch(text)) is not None}


def _watch(text: str) -> DeploymentWatch | None:
    """Return a watch; one that another version wrote otherwise is none, since nothing but its end depends on it."""
    try:
        return codec.decode_watch(text)
    except ValueError:
        return None


def _version_key(function_id: str) -> str:
    return f"version:{function_id}"


def _watch_key(function_id: str) -> str:
    return f"watch:{function_id}"


def _watched_key(function_id: str) -> str:
    return f"watched:{function_id}"
