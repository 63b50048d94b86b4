"""``status``: shows the status of the running daemon, or of the state folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kapso_sync import __version__
from kapso_sync.advice import Advise, as_it_is
from kapso_sync.cli.console import Console, Part, whole
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.daemon_client import DaemonClient
from kapso_sync.cli.grouping import common_text, group_by, split_place, without_slug
from kapso_sync.cli.render import print_evidence
from kapso_sync.cli.state_folders import find_known_folder, source_of
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ConfigError, ExitCode
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.source import Revision
from kapso_sync.model.status import DaemonStatus, status_document
from kapso_sync.plurals import counted, span
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.store.database import find_state_damage, read_last_pass, read_running_pass, read_state
from kapso_sync.wiring.folder import state_root


def status(context: CommandContext, *, json_output: bool) -> int:
    """Print the status of the running daemon, or else of the state folder; takes no lock, and makes no API call."""
    settings = context.load_settings()
    folder = find_known_folder(settings, _is_known)
    if settings.source is None and not folder.exists():
        raise ConfigError(
            f"no daemon of this user runs, and nothing was synced: there is no state in {state_root(settings)}",
            hint="`kapso-sync sync` makes the first pass, `kapso-sync run` starts a daemon; "
            "what another user or KAPSO_SYNC_STATE_DIR has is not looked at",
        )
    running = DaemonClient(settings, folder).status()
    document = running or _of_folder(settings, folder)
    if json_output:
        context.stdout().document(document)
    else:
        of_its_source = context.of_source(source_of(folder)).advise
        # A daemon has completed the commands in its texts.
        print_status(context.stdout(), document, folder, as_it_is if running else of_its_source, of_its_source)
    return int(ExitCode.OK)


def _is_known(folder: Path) -> bool:
    return DaemonFiles(folder).daemon() is not None or read_last_pass(folder) is not None


def _of_folder(settings: Settings, folder: Path) -> dict[str, Any]:
    now = SystemClock().now()
    empty = status_document(DaemonStatus(__version__, now, now, settings.source or str(Path.cwd())))
    document: dict[str, Any] = {**empty, **(read_last_pass(folder) or {})}
    document["role"] = document["leader"] = None
    # No daemon of this folder answers, so nothing is watched.
    document["functions"] = [{**each, "watched_until": None} for each in document["functions"]]
    document["running"] = read_running_pass(folder)
    document["reconciling"] = document["running"] is not None
    document["unfinished"] = [f"{intent.kind} {intent.slug}" for intent in read_state(folder).intents]
    return document


def print_status(
    console: Console,
    document: Mapping[str, Any],
    folder: Path | None = None,
    advise: Advise = as_it_is,
    advise_next: Advise = as_it_is,
) -> None:
    """Print a status document for people: the source, the passes, the functions that need somebody, then the others.

    ``advise`` completes the commands in the document's texts, and ``advise_next`` those of our own.
    """
    document = {**document, "functions": [_advised(each, advise) for each in document["functions"]]}
    now = SystemClock().now()
    _field(console, "Source", whole(document["source"]))
    if document["owner"]:
        _field(console, "Owner", whole(document["owner"]))
    if folder is not None:
        _field(console, "State folder", whole(str(folder)))
    if document.get("role") == "standby" or document.get("leader"):
        _field(console, "Role", f"{document['role']}; the leader is {document['leader'] or 'not known'}")
    suspended, running = document["suspended"], document.get("running")
    if suspended:
        until = f" until {_time(suspended['until'])}" if suspended["until"] else ""
        _field(console, "Suspended", f"since {_time(suspended['since'])}{until}: {suspended['reason']}")
    _print_passes(console, document, folder, advise, advise_next)
    listed, left = ([each for each in document["functions"] if each.get("in_git", True) is in_git] for in_git in (True, False))
    if document["functions"]:
        console.blank()
        console.line(_tally(listed, left), style="bold")
    if not running:
        listed = [_at_rest(each) for each in listed]
    for group in group_by(sorted(listed, key=lambda each: bool(each["state"] == "Ready")), _same):
        _print_functions(console, group, now)
    for group in group_by(left, _general_message):
        _print_group(console, "Left git", group)
    _print_notes(console, document)
    if any(each["state"] != "Ready" for each in document["functions"]) and not running:
        console.line(("next: ", "bold"), advise_next("`kapso-sync plan` shows what differs, and why"))


def _print_notes(console: Console, document: Mapping[str, Any]) -> None:
    for each in document["functions"]:
        if each.get("watched_until"):
            _field(console, "Watched", f"{each['slug']} until {_time(each['watched_until'])}, since it was deployed")
    if document.get("unused"):
        _field(console, "Unused", f"by any workflow: {console.names(document['unused'])}")
    if document["unfinished"]:
        _field(console, "Unfinished", console.names(document["unfinished"]))


def _advised(function: Mapping[str, Any], advise: Advise) -> Mapping[str, Any]:
    return {**function, "conditions": [{**each, "message": advise(each["message"])} for each in function["conditions"]]}


def _print_passes(
    console: Console, document: Mapping[str, Any], folder: Path | None, advise: Advise, advise_next: Advise
) -> None:
    last, revision, running = document["last_pass"], document["revision"], document.get("running")
    if revision:
        subject = f" “{revision['subject']}” by {revision['author']}" if revision["subject"] else ""
        _field(console, "Revision", f"{Revision(revision['id']).short}{subject}")
    if running:
        _field(console, "Now", f"a pass is running since {_time(running['since'])}, trigger: {running['trigger']}")
    if last is not None:
        calls = counted(last["api_calls"], "API call")
        _field(console, "Last pass", f"{_time(last['finished_at'])}, exit code {last['exit_code']}, {calls}")
        for name in ("error", "hint"):
            if last[name]:
                _field(console, name.capitalize(), advise(last[name]))
        broken = last.get("broken_by")
        if broken and broken["subject"]:
            _field(console, "Broken by", f"{Revision(broken['id']).short} “{broken['subject']}” by {broken['author']}")
    elif document.get("role") == "standby":
        _field(console, "Last pass", "at the leader: a standby runs none")
    elif not running:
        damage = find_state_damage(folder) if folder is not None else None
        none = "No pass was recorded here yet: `kapso-sync sync` makes the first."
        broken = f"The database of the state folder {damage}: `kapso-sync sync` renames it, and starts an empty one."
        console.line(advise_next(none if damage is None else broken))


def _field(console: Console, name: str, *parts: Part) -> None:
    console.line(f"{name:<14}", *parts, hang=14)


def _tally(listed: Sequence[Mapping[str, Any]], left: Sequence[Mapping[str, Any]]) -> str:
    ready = sum(each["state"] == "Ready" for each in listed)
    outside = f" {counted(len(left), 'more function')} left git." if left else ""
    return f"{ready} of {counted(len(listed), 'function')} in git {'is' if ready == 1 else 'are'} ready.{outside}"


def _at_rest(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the function as it is while no pass runs: one that no daemon tries again is not reconciling."""
    waits = function["state"] == "Reconciling" and function["retry_at"] is None
    return {**function, "state": "NotReady"} if waits else function


def _same(function: Mapping[str, Any]) -> object:
    """Return what functions must have in common to be printed together."""
    evidence = function.get("evidence")
    message = "" if function["state"] == "Ready" else _general_message(function)
    return function["state"], message, json.dumps(evidence) if evidence else ""


def _general_message(function: Mapping[str, Any]) -> str:
    """Return why the function is ready or not, in words that others may share."""
    return without_slug(split_place(_ready(function)["message"])[1], function["slug"])


def _ready(function: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(condition for condition in function["conditions"] if condition["type"] == "Ready")
    return found


def _print_functions(console: Console, group: Sequence[Mapping[str, Any]], now: datetime) -> None:
    if group[0]["state"] != "Ready":
        _print_group(console, group[0]["state"], group)
        return
    ages = [(now - datetime.fromisoformat(_ready(each)["since"])).total_seconds() for each in group]
    names = [each["slug"] for each in group]
    text = f"{names[0]}  for {span(ages[0])}"
    if len(group) > 1:
        text = f"{len(group)} functions for {span(min(ages))} or longer: {console.names(names)}"
    _state(console, "Ready", text)


def _print_group(console: Console, state: str, group: Sequence[Mapping[str, Any]]) -> None:
    """Print functions and the message that they share."""
    if len(group) == 1:
        _state(console, state, f"{group[0]['slug']}  {_ready(group[0])['message']}")
    else:
        _state(console, state, f"{len(group)} functions: {console.names([each['slug'] for each in group])}")
        messages = [split_place(_ready(each)["message"])[1] for each in group]
        console.line(common_text(messages, group[0]["slug"]), indent=14)
    evidence = group[0].get("evidence")
    if evidence:
        print_evidence(console, Evidence(tuple(evidence["console"]), evidence["place"]), indent=14)


def _state(console: Console, state: str, text: str) -> None:
    colour = {"Ready": "green", "Left git": "dim", "Drifted": "yellow", "Reconciling": "cyan"}.get(state, "red")
    console.line((f"{state:<12}", colour), text, indent=2, hang=12)


def _time(text: str) -> str:
    """Return a time of the document as people read it."""
    return f"{text[:19].replace('T', ' ')} UTC"
