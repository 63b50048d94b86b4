"""Defines how GitHub, GitLab, Gitea and Forgejo take a commit's status: the forge of a host, and its request. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from urllib.parse import quote

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.notifications.commit_status import CommitState, CommitStatus
from kapso_sync.urls import parse_remote


class Forge(enum.StrEnum):
    """The APIs. Forgejo has Gitea's."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"


_LONGEST = {Forge.GITHUB: 140, Forge.GITLAB: 255, Forge.GITEA: 255}
"""Maximum length of a description, in characters; GitHub refuses more."""

_HOSTS = {"codeberg.org": Forge.GITEA, "gitea.com": Forge.GITEA}
_LABELS = {"github": Forge.GITHUB, "gitlab": Forge.GITLAB, "gitea": Forge.GITEA, "forgejo": Forge.GITEA}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on a forge: ``api`` is the base of its API, without a final slash, ``path`` its full name."""

    forge: Forge
    api: str
    path: str


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """One POST that sets a status. Only ``headers`` holds the token."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: Mapping[str, str]


def find_repository(location: str, forge: Forge | None, api: str | None) -> Repository:
    """Return the repository that gets the statuses of a remote's commits; if ``forge`` is None, the host decides.

    Raises `ConfigError` if there is no host, or if its forge is unknown.
    """
    base, host, path = _parts(location)
    if not host and (forge is None or api is None):
        raise ConfigError(
            "KAPSO_SYNC_COMMIT_STATUS needs a source on a forge, and this one is a folder or a repository on this machine",
            hint="name an https:// or ssh:// source, or set KAPSO_SYNC_COMMIT_STATUS=off",
        )
    forge = forge or _guess(host)
    if forge is None:
        raise ConfigError(
            f"KAPSO_SYNC_COMMIT_STATUS=auto does not know what {host} is",
            hint="set it to github, gitlab or gitea (Forgejo too)",
        )
    return Repository(forge, (api or _api(forge, base, host)).rstrip("/"), path)


def _parts(location: str) -> tuple[str, str, str]:
    """Return scheme and host for a browser, the host alone, and the repository's full name."""
    remote = parse_remote(location)
    if not remote.host:
        return "", "", remote.path
    named = f"[{remote.host}]" if ":" in remote.host else remote.host
    if remote.scheme in ("http", "https"):
        return f"{remote.scheme}://{named}" + (f":{remote.port}" if remote.port else ""), remote.host, remote.path
    return f"https://{named}", remote.host, remote.path


def _guess(host: str) -> Forge | None:
    labels = host.split(".")
    return _HOSTS.get(host) or next((_LABELS[label] for label in labels if label in _LABELS), None)


def _api(forge: Forge, base: str, host: str) -> str:
    match forge:
        case Forge.GITHUB:
            return "https://api.github.com" if host == "github.com" else f"{base}/api/v3"
        case Forge.GITLAB:
            return f"{base}/api/v4"
        case Forge.GITEA:
            return f"{base}/api/v1"


def status_request(repository: Repository, context: str, status: CommitStatus, token: str, page: str | None) -> StatusRequest:
    """Return the request that sets a commit's status; ``page`` is the status page's URL."""
    forge, verdict = repository.forge, status.state
    longest = _LONGEST[forge]
    text = status.text if len(status.text) <= longest else f"{status.text[: longest - 1]}…"
    body = {"description": text, **({"target_url": page} if page else {})}
    if forge is Forge.GITLAB:
        project = quote(repository.path, safe="")
        url = f"{repository.api}/projects/{project}/statuses/{status.commit}"
        state = "failed" if verdict is CommitState.FAILURE else str(verdict)
        return StatusRequest(url, {"PRIVATE-TOKEN": token}, {"state": state, "name": context, **body})
    url = f"{repository.api}/repos/{quote(repository.path)}/statuses/{status.commit}"
    if forge is Forge.GITHUB:
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
    else:
        headers = {"Authorization": f"token {token}"}
    return StatusRequest(url, headers, {"state": str(verdict), "context": context, **body})


def is_settled(forge: Forge, status: int, text: str) -> bool:
    """Return whether an answer means that the commit has this status: GitLab refuses to set the one that is there already."""
    return 200 <= status < 300 or (forge is Forge.GITLAB and status == 400 and "Cannot transition status" in text)
