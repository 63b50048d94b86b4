"""Verifies and reads push webhooks of every provider. A payload is a hint, never a command. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from kapso_sync.dataclass import dataclass
from kapso_sync.model.events import WebhookRefusal
from kapso_sync.urls import is_same_path, parse_remote

TIMESTAMP_TOLERANCE = 300.0
"""Maximum difference, in seconds, between a signed timestamp and our clock."""

Headers = Mapping[str, str]
"""Header values by lower-case name."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is not authentic, or not a readable push: the status to answer with, the reason, and its kind."""

    status: int
    reason: str
    kind: WebhookRefusal


@dataclass(frozen=True, slots=True)
class Ping:
    """A test request of the provider."""

    delivery: str | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """It is authentic, and reports something else than a push."""

    delivery: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Push:
    """A push. ``refs`` are full names, or plain branch names; empty if the payload has none.

    ``default_branch`` is the repository's default branch, if the payload has it.
    """

    delivery: str | None
    repositories: tuple[str, ...]
    refs: tuple[str, ...]
    default_branch: str | None = None


def read_hook(headers: Headers, body: bytes, secret: str, now: float) -> Refused | Ping | Ignored | Push:
    """Return the meaning of a request to the hook. ``now`` is Unix time, for signatures with a timestamp.

    ``headers`` are by lower-case name, read as Latin-1. ``secret`` must not be empty: anybody can sign with nothing.
    """
    if not secret:
        return Refused(404, "no webhook is configured", WebhookRefusal.UNUSABLE_SECRET)
    key = secret.encode("utf-8")
    problem = _signature_problem(headers, body, key, now)
    if problem is not None:
        return problem
    delivery = _delivery(headers)
    event = _event(headers)
    if event in ("ping", "diagnostics:ping"):
        return Ping(delivery)
    payload = _payload(headers, body)
    if isinstance(payload, Refused):
        return payload
    if event not in _PUSHES and not (event == "system hook" and str(payload.get("event_name")) in _SYSTEM_PUSHES):
        return Ignored(delivery, "not a push")
    return Push(delivery, _repositories(payload), _refs(payload), _default_branch(payload))


_PUSHES = frozenset({"push", "push hook", "tag push hook", "repo:push", "repo:refs_changed", "mirror:repo_synchronized"})
_SYSTEM_PUSHES = frozenset({"push", "tag_push", "repository_update"})
"""GitLab's system hooks share one event header."""


_WRONG = Refused(401, "wrong signature", WebhookRefusal.WRONG_SIGNATURE)


def _signature_problem(headers: Headers, body: bytes, key: bytes, now: float) -> Refused | None:
    """Return why the signature is refused, or None; a provider's own header is checked before the generic one."""
    for header, check in _CHECKS.items():
        if header in headers:
            return check(headers, headers[header], body, key, now)
    return Refused(401, "no signature", WebhookRefusal.NO_SIGNATURE)


def _hub256(_headers: Headers, value: str, body: bytes, key: bytes, _now: float) -> Refused | None:
    prefix, _, given = value.partition("=")
    if prefix != "sha256":
        return Refused(401, "only sha256= is accepted", WebhookRefusal.WRONG_SIGNATURE)
    return _same(given, hmac.new(key, body, hashlib.sha256).hexdigest())


def _bare(_headers: Headers, value: str, body: bytes, key: bytes, _now: float) -> Refused | None:
    return _same(value, hmac.new(key, body, hashlib.sha256).hexdigest())


def _generic(_headers: Headers, value: str, body: bytes, key: bytes, _now: float) -> Refused | None:
    prefix, _, given = value.partition("=")
    digests: Mapping[str, Callable[..., Any]] = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
    if prefix not in digests:
        return Refused(401, "only sha256= and sha512= are accepted", WebhookRefusal.WRONG_SIGNATURE)
    return _same(given, hmac.new(key, body, digests[prefix]).hexdigest())


def _token(_headers: Headers, value: str, _body: bytes, key: bytes, _now: float) -> Refused | None:
    return _same(value, key)


def _timed(headers: Headers, value: str, body: bytes, key: bytes, now: float) -> Refused | None:
    """Check a signature of GitLab by the Standard Webhooks specification; a header may hold several signatures."""
    stamp, identity = headers.get("webhook-timestamp", ""), headers.get("webhook-id", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
        return Refused(401, "no timestamp", WebhookRefusal.WRONG_TIME)
    if abs(now - int(stamp)) > TIMESTAMP_TOLERANCE:
        return Refused(401, "the timestamp is too far from now", WebhookRefusal.WRONG_TIME)
    text = key.decode("utf-8")
    try:
        raw = base64.b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else key
    except ValueError:
        return Refused(401, "the secret is not a whsec_ key", WebhookRefusal.UNUSABLE_SECRET)
    signed = _sent(identity) + f".{stamp}.".encode("ascii") + body
    wanted = base64.b64encode(hmac.new(raw, signed, hashlib.sha256).digest()).decode("ascii")
    given = [part.partition(",") for part in value.split()]
    problems = [_same(signature, wanted) for version, _, signature in given if version == "v1"]
    return None if None in problems else _WRONG


def _same(given: str, wanted: str | bytes) -> Refused | None:
    """Compare in constant time, as bytes: the library refuses text beyond ASCII."""
    expected = wanted.encode("utf-8") if isinstance(wanted, str) else wanted
    if not given:
        return Refused(401, "an empty signature", WebhookRefusal.NO_SIGNATURE)
    return None if hmac.compare_digest(_sent(given), expected) else _WRONG


def _sent(value: str) -> bytes:
    """Return the bytes of a header: servers read them as Latin-1."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


_CHECKS: Mapping[str, Callable[[Headers, str, bytes, bytes, float], Refused | None]] = {
    "x-hub-signature-256": _hub256,
    "webhook-signature": _timed,
    "x-gitlab-token": _token,
    "x-forgejo-signature": _bare,
    "x-gitea-signature": _bare,
    "x-gogs-signature": _bare,
    "x-signature": _generic,
    "x-hub-signature": _hub256,
}
"""Providers by header, in order.

Bitbucket signs with `X-Hub-Signature`, where GitHub and Gitea send an old SHA-1, which is refused.
"""


def _delivery(headers: Headers) -> str | None:
    names = (
        "x-github-delivery",
        "x-gitea-delivery",
        "x-forgejo-delivery",
        "x-gogs-delivery",
        "x-request-uuid",
        "x-request-id",
        "webhook-id",
        "x-gitlab-event-uuid",
    )
    return next((headers[name][:200] for name in names if headers.get(name)), None)


def _event(headers: Headers) -> str:
    names = ("x-github-event", "x-gitea-event", "x-forgejo-event", "x-gogs-event", "x-event-key", "x-gitlab-event")
    return next((headers[name].lower() for name in names if name in headers), "push")


def _payload(headers: Headers, body: bytes) -> Mapping[str, Any] | Refused:
    try:
        # GitHub's and Gitea's forms offer both kinds; the signature is over the body as it was sent. curl says
        # form of whatever it sends.
        form = headers.get("content-type", "").split(";")[0].strip().lower() == "application/x-www-form-urlencoded"
        if form and not body.lstrip().startswith((b"{", b"[")):
            text = _form_payload(body)
            if text is None:
                return Refused(400, "the form has no field `payload`, and is not JSON", WebhookRefusal.UNREADABLE)
        else:
            text = body.decode("utf-8")
        payload = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Refused(400, "the payload is not JSON", WebhookRefusal.UNREADABLE)
    return payload if isinstance(payload, dict) else Refused(400, "the payload is not a JSON object", WebhookRefusal.UNREADABLE)


def _form_payload(body: bytes) -> str | None:
    """Return the field `payload` of a form, or None if this is not a form that has one."""
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=10)
    except ValueError:
        return None
    return fields.get("payload", [None])[0]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _repositories(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """Return every address of the repository in the payload; Bitbucket Server may have its names alone, or a page of it."""
    found: list[str] = []
    for place in (payload.get("repository"), payload.get("project")):
        if isinstance(place, dict):
            names = ("clone_url", "ssh_url", "html_url", "git_url", "git_http_url", "git_ssh_url", "http_url", "web_url", "url")
            found += [place[name] for name in names if isinstance(place.get(name), str)]
            links = place.get("links")
            if isinstance(links, dict):
                found += [href for link in links.values() for href in _hrefs(link)]
            project = place.get("project")
            names_of_server = (project.get("key") if isinstance(project, dict) else None, place.get("slug"))
            if all(isinstance(name, str) and name for name in names_of_server):
                found.append("/".join(map(str, names_of_server)))
    return tuple(dict.fromkeys(found))


def _hrefs(link: object) -> list[str]:
    items = link if isinstance(link, list) else [link]
    return [item["href"] for item in items if isinstance(item, dict) and isinstance(item.get("href"), str)]


def _refs(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pushed refs, deleted ones included: a deleted branch is a reason to reconcile."""
    refs = [payload["ref"]] if isinstance(payload.get("ref"), str) else []
    push = payload.get("push")
    changes = push.get("changes") if isinstance(push, dict) else payload.get("changes")
    for change in changes if isinstance(changes, list) else ():
        if isinstance(change, dict):
            sides = [change.get("new"), change.get("old"), change.get("ref")]
            names = [side.get("name") or side.get("id") for side in sides if isinstance(side, dict)]
            refs += [name for name in [*names, change.get("ref"), change.get("refId")] if isinstance(name, str)]
    return tuple(dict.fromkeys(refs))


def _default_branch(payload: Mapping[str, Any]) -> str | None:
    """Return the default branch: GitLab has it in the project, Bitbucket in the repository's main branch."""
    for place in (payload.get("repository"), payload.get("project")):
        if isinstance(place, dict):
            main = place.get("mainbranch")
            name = place.get("default_branch") or (main.get("name") if isinstance(main, dict) else None)
            if isinstance(name, str) and name:
                return name
    return None


def concerns(push: Push, location: str, ref: str | None, moved_to: str | None = None) -> str | None:
    """Return why a push does not concern us, or None.

    ``location`` is the address of our repository, ``moved_to`` the one to which the server redirects us, if it does. Only their
    paths are compared, since a forge may have other names in its payload than for us: inside of a cluster, behind a proxy, for
    ssh. A needless pass is harmless, and the signature was made with our own secret.

    ``ref`` None: the default branch is watched; any ref may be the default branch, unless the payload has its name.
    """
    ours = (location,) if moved_to is None else (location, moved_to)
    if push.repositories and not any(_is_same(address, one) for address in push.repositories for one in ours):
        return "another repository"
    watched = ref or push.default_branch
    if watched is not None and push.refs and not any(_plain(name) == _plain(watched) for name in push.refs):
        return "another ref"
    return None


def _plain(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def _is_same(address: str, location: str) -> bool:
    try:
        return is_same_path(parse_remote(address).path, parse_remote(location).path)
    except ValueError:
        return address == location
