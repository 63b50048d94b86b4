"""Requests to the webhook: headers and a body, as text; the value ``sign`` of a header becomes its true signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from kapso_sync.server.hooks import Push, Refused, concerns, read_hook
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.promises import BrokenPromise, check_printed
from tests.fuzz.target import Target

SECRETS = ("s3cret", "whsec_c2VjcmV0", "whsec_!", "ключ", "")
NOW = 1_767_225_600.0
WATCHED = (("https://github.com/acme/flows", None), ("git@host:acme/flows.git", "main"), ("/srv/git/flows", "refs/heads/x"))


def run(data: bytes) -> None:
    """Read the request with several secrets: whoever cannot sign is refused, and a push says what it concerns."""
    head, _, body = data.partition(b"\n\n")
    given = dict(_header(line) for line in head.decode("latin-1").split("\n") if ":" in line)
    for secret in SECRETS:
        headers = {name: _signed(name, value, body, secret, given) for name, value in given.items()}
        answer = read_hook(headers, body, secret, NOW)
        authentic = any(value == "sign" for value in given.values()) or given.get("x-gitlab-token") == secret
        if not isinstance(answer, Refused) and not authentic:
            raise BrokenPromise(f"takes an unsigned request: {answer}")
        if isinstance(answer, Refused):
            check_printed(answer.reason)
            if answer.status not in (400, 401, 404):
                raise BrokenPromise(f"answers {answer.status}")
        elif len(answer.delivery or "") > 200:
            raise BrokenPromise("keeps a delivery id without a limit")
        if isinstance(answer, Push):
            for location, ref in WATCHED:
                check_printed(concerns(answer, location, ref) or "")


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip(" ")


def _signed(name: str, value: str, body: bytes, secret: str, given: Mapping[str, str]) -> str:
    if value != "sign":
        return value
    key = secret.encode()
    if name == "x-gitlab-token":
        return key.decode("latin-1")
    if name == "webhook-signature":
        try:
            raw = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if secret.startswith("whsec_") else key
        except ValueError:
            raw = key
        signed = f"{given.get('webhook-id', '')}.{given.get('webhook-timestamp', '')}.".encode("latin-1") + body
        return "v1," + base64.b64encode(hmac.new(raw, signed, hashlib.sha256).digest()).decode()
    digest = hmac.new(key, body, hashlib.sha256).hexdigest()
    return digest if name in ("x-gitea-signature", "x-forgejo-signature", "x-gogs-signature") else f"sha256={digest}"


PROVIDERS: tuple[Mapping[str, str], ...] = (
    {"X-Hub-Signature-256": "sign", "X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"},
    {"X-Gitlab-Token": "sign", "X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": "13792a34"},
    {"X-Gitlab-Token": "sign", "X-Gitlab-Event": "System Hook"},
    {"Webhook-Signature": "sign", "Webhook-Timestamp": str(int(NOW)), "Webhook-Id": "msg_1", "X-Gitlab-Event": "Push Hook"},
    {"X-Gitea-Signature": "sign", "X-Gitea-Event": "push", "X-Gitea-Delivery": "f6266f16"},
    {"X-Forgejo-Signature": "sign", "X-Forgejo-Event": "push"},
    {"X-Gogs-Signature": "sign", "X-Gogs-Event": "push"},
    {"X-Hub-Signature": "sign", "X-Event-Key": "repo:push", "X-Request-UUID": "1"},
    {"X-Hub-Signature": "sign", "X-Event-Key": "diagnostics:ping"},
    {"X-Signature": "sign"},
)
ADDRESSES = (
    "https://github.com/acme/flows.git",
    "git@github.com:acme/flows",
    "ssh://git@ssh.github.com:443/acme/flows.git",
    "git@[::1]:acme/flows",
    "https://[::1/acme",
    "https://host:99999/acme/flows",
    "https://ho\u2100st/acme",
    "file:///srv/git/flows",
    "://",
    "https://github.com/%00%ff%2e%2e/x",
)


def make(draw: Draw) -> bytes:
    """A push of one of the providers, with the keys that all of them use."""
    address: Callable[[], Any] = lambda: draw.pick((*ADDRESSES, draw.text()))  # noqa: E731
    repository = {
        "clone_url": address,
        "ssh_url": address,
        "html_url": address,
        "git_http_url": address,
        "default_branch": "main",
        "mainbranch": {"name": "main"},
        "links": lambda: draw.object({"clone": [{"href": address(), "name": "https"}], "self": {"href": address()}}),
    }
    names = list(repository)
    usual = {"new": {"name": "main", "type": "branch"}, "old": {"id": "x"}, "refId": "refs/heads/main"}
    body = draw.object(
        {
            "ref": lambda: draw.pick(("refs/heads/main", "refs/tags/v1", "refs/heads/\u0130", draw.text())),
            "repository": lambda: draw.object({name: repository[name] for name in draw.several(names, 5)}),
            "project": lambda: draw.object({name: repository[name] for name in draw.several(names, 3)}),
            "push": lambda: draw.object({"changes": [draw.object(usual) for _ in range(draw.pick((0, 1, 30)))]}),
            "changes": lambda: [draw.object(usual)],
            "event_name": lambda: draw.pick(("push", "tag_push", draw.text())),
        },
        odd=0.2,
    )
    headers = dict(draw.pick(PROVIDERS))
    if draw.chance(0.15):
        headers |= draw.pick(PROVIDERS)
    if draw.chance(0.15):
        headers[draw.pick(list(headers))] = draw.pick(
            ("", "sha1=0", "sha256=", "é", "v1,", "ping", draw.text().replace("\n", " "))
        )
    text = dumps(body, ascii_only=draw.chance(0.7))
    if draw.chance(0.15):
        headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
        text = b"payload=" + quote(text).encode()
    head = "\n".join(f"{name}: {value}" for name, value in headers.items()).encode("utf-8", "surrogatepass")
    return head + b"\n\n" + text


TOKENS = (
    *(f"{name}: ".encode() for provider in PROVIDERS for name in provider),
    *(
        b"sign",
        b"push",
        b"Push Hook",
        b"ping",
        b"repo:push",
        b"Content-Type: application/x-www-form-urlencoded",
        b"payload=",
        b"&",
    ),
    *(address.encode() for address in ADDRESSES),
)

TARGETS = (Target("webhook", run, make, TOKENS),)
