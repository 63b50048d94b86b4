"""Webhooks of every provider: only signed requests are accepted, and their payload is only a hint."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.model.events import WebhookRefusal
from kapso_sync.server.hooks import Ignored, Ping, Push, Refused, concerns, read_hook

SECRET = "the-webhook-secret"
NOW = 1_767_268_800.0
HTTPS = "https://github.com/acme/flows.git"
BODY = json.dumps({"ref": "refs/heads/main", "after": "c0ffee", "repository": {"clone_url": HTTPS}}).encode()
Headers = dict[str, str]


def hexed(body: bytes, key: str = SECRET, kind: str = "sha256") -> str:
    return hmac.new(key.encode(), body, kind).hexdigest()


def signed_by_gitlab(body: bytes, key: bytes, stamp: float = NOW) -> Headers:
    text = f"msg-1.{stamp:.0f}.".encode() + body
    signature = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return {"webhook-id": "msg-1", "webhook-timestamp": f"{stamp:.0f}", "webhook-signature": f"v1,{signature}"}


PROVIDERS: dict[str, Callable[[bytes], Headers]] = {
    "github": lambda body: {
        "x-hub-signature-256": f"sha256={hexed(body)}",
        "x-github-event": "push",
        "x-github-delivery": "d-1",
    },
    "gitlab": lambda _: {"x-gitlab-token": SECRET, "x-gitlab-event": "Push Hook", "x-gitlab-event-uuid": "d-1"},
    "gitlab-signed": lambda body: signed_by_gitlab(body, SECRET.encode()),
    "gitea": lambda body: {"x-gitea-signature": hexed(body), "x-gitea-event": "push", "x-gitea-delivery": "d-1"},
    "forgejo": lambda body: {"x-forgejo-signature": hexed(body), "x-gitea-signature": hexed(body), "x-forgejo-event": "push"},
    "gogs": lambda body: {"x-gogs-signature": hexed(body), "x-gogs-event": "push", "x-gogs-delivery": "d-1"},
    "bitbucket": lambda body: {"x-hub-signature": f"sha256={hexed(body)}", "x-event-key": "repo:push", "x-request-uuid": "d-1"},
    "generic": lambda body: {"x-signature": f"sha256={hexed(body)}"},
    "generic-512": lambda body: {"x-signature": f"sha512={hexed(body, kind='sha512')}"},
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_webhooks_of_every_provider_are_accepted(provider: str) -> None:
    """The signature is valid, and repository and ref are found."""
    verdict = read_hook(PROVIDERS[provider](BODY), BODY, SECRET, NOW)
    assert isinstance(verdict, Push)
    assert (verdict.repositories, verdict.refs) == ((HTTPS,), ("refs/heads/main",))
    assert concerns(verdict, "git@github.com:acme/flows", "main") is None


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("damage", ["", "sha256=", "v1,", "sha256=00", "wrong", "sha256=éé", "ключ", "sha1=" + "0" * 40])
def test_a_webhook_with_a_wrong_signature_is_401(provider: str, damage: str) -> None:
    """Wrong, empty, or not even ASCII; there is never an exception."""
    headers = PROVIDERS[provider](BODY)
    names = [name for name in headers if "signature" in name or name == "x-gitlab-token"]
    verdict = read_hook({**headers, **dict.fromkeys(names, damage)}, BODY, SECRET, NOW)
    assert isinstance(verdict, Refused)
    assert verdict.status == 401


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "gitlab"])
def test_a_webhook_signature_of_another_body_is_refused(provider: str) -> None:
    """The signature covers the raw body."""
    assert isinstance(read_hook(PROVIDERS[provider](BODY), BODY + b" ", SECRET, NOW), Refused)


def test_a_webhook_without_a_signature_is_refused() -> None:
    """The old SHA-1 beside an empty new one, as some providers send it, is refused too."""
    for headers in ({}, {"x-github-event": "ping"}, {"x-hub-signature": f"sha1={hexed(BODY, kind='sha1')}"}):
        assert read_hook(headers, BODY, SECRET, NOW) in (
            Refused(401, "no signature", WebhookRefusal.NO_SIGNATURE),
            Refused(401, "only sha256= is accepted", WebhookRefusal.WRONG_SIGNATURE),
        )


def test_a_webhook_timestamp_must_be_within_five_minutes() -> None:
    """A key in whsec_ form is decoded; one valid signature among several is enough."""
    key = base64.b64encode(b"raw key bytes").decode()
    good = signed_by_gitlab(BODY, b"raw key bytes")
    assert isinstance(read_hook(good, BODY, f"whsec_{key}", NOW), Push)
    several = {**good, "webhook-signature": f"v1,AAAA {good['webhook-signature']} v2,x"}
    assert isinstance(read_hook(several, BODY, f"whsec_{key}", NOW), Push)
    assert isinstance(read_hook(good, BODY, f"whsec_{key}", NOW + 301), Refused)
    assert isinstance(read_hook({**good, "webhook-timestamp": "soon"}, BODY, f"whsec_{key}", NOW), Refused)
    assert isinstance(read_hook(good, BODY, "whsec_***", NOW), Refused)


@pytest.mark.parametrize(("name", "value"), [("x-github-event", "ping"), ("x-event-key", "diagnostics:ping")])
def test_a_webhook_ping_is_recognised(name: str, value: str) -> None:
    """It must be signed too."""
    headers = {"x-hub-signature-256": f"sha256={hexed(b'{}')}", name: value}
    assert isinstance(read_hook(headers, b"{}", SECRET, NOW), Ping)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"a": NaN}', b"[" * 100_000, b'{"a": ' * 50_000, b"\xff", b"null"])
def test_a_signed_webhook_with_an_invalid_body_is_400(body: bytes) -> None:
    """Deeply nested, broken or not an object; there is no exception."""
    verdict = read_hook({"x-signature": f"sha256={hexed(body)}"}, body, SECRET, NOW)
    assert isinstance(verdict, Refused)
    assert verdict.status == 400


@pytest.mark.parametrize(
    "headers", [{"x-github-event": "issues"}, {"x-gitlab-event": "Pipeline Hook"}, {"x-event-key": "pullrequest:created"}]
)
def test_webhook_events_other_than_push_are_ignored(headers: Headers) -> None:
    """A hook that is subscribed to every event must not trigger a pass for each."""
    verdict = read_hook({**PROVIDERS["github"](BODY), **headers, "x-github-event": "issues"}, BODY, SECRET, NOW)
    assert verdict == Ignored("d-1", "not a push")


@pytest.mark.parametrize(("name", "kind"), [("push", Push), ("repository_update", Push), ("project_create", Ignored)])
def test_gitlab_system_hooks_are_distinguished_by_their_payload(name: str, kind: type) -> None:
    """They share one header."""
    body = json.dumps({"event_name": name, "changes": [{"ref": "refs/heads/main"}]}).encode()
    verdict = read_hook({"x-gitlab-token": SECRET, "x-gitlab-event": "System Hook"}, body, SECRET, NOW)
    assert isinstance(verdict, kind)
    assert not isinstance(verdict, Push) or verdict.refs == ("refs/heads/main",)


def test_a_form_encoded_webhook_is_accepted() -> None:
    """GitHub's default content type; the signature covers the form."""
    form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = urlencode({"payload": BODY.decode()}).encode()
    verdict = read_hook({"x-signature": f"sha256={hexed(body)}", **form}, body, SECRET, NOW)
    assert isinstance(verdict, Push)
    assert verdict.refs == ("refs/heads/main",)
    for broken in (b"", b"payload=%7B", b"other=1", b"&".join([b"a=1"] * 50), b"\xff"):
        assert isinstance(read_hook({"x-signature": f"sha256={hexed(broken)}", **form}, broken, SECRET, NOW), Refused)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[1]", "the payload is not a JSON object"),
        (b"payload=[1]", "the payload is not a JSON object"),
        (b"payload={", "the payload is not JSON"),
        (b"other=1", "the form has no field `payload`, and is not JSON"),
        (b"null", "the form has no field `payload`, and is not JSON"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused_for_what_is_wrong_with_it(body: bytes, reason: str) -> None:
    """A form's content type holds for JSON as well, as curl sends it."""
    headers = {"x-signature": f"sha256={hexed(body)}", "content-type": "application/x-www-form-urlencoded"}
    assert read_hook(headers, body, SECRET, NOW) == Refused(400, reason, WebhookRefusal.UNREADABLE)


def test_a_json_webhook_with_a_form_content_type_is_accepted() -> None:
    """As curl sends it by default."""
    headers = {"x-signature": f"sha256={hexed(BODY)}", "content-type": "application/x-www-form-urlencoded"}
    verdict = read_hook(headers, BODY, SECRET, NOW)
    assert isinstance(verdict, Push)
    assert verdict.refs == ("refs/heads/main",)


def test_an_empty_webhook_secret_is_refused() -> None:
    """Anybody could sign with it."""
    verdict = read_hook({"x-signature": f"sha256={hexed(BODY, key='')}"}, BODY, "", NOW)
    assert isinstance(verdict, Refused)


def push_of(payload: object) -> Push:
    body = json.dumps(payload).encode()
    verdict = read_hook({"x-signature": f"sha256={hexed(body)}"}, body, SECRET, NOW)
    assert isinstance(verdict, Push)
    return verdict


def test_bitbucket_webhooks_name_their_branches() -> None:
    """Cloud and Data Center have different payloads; a deletion names the old branch."""
    cloud = push_of({"push": {"changes": [{"new": {"type": "branch", "name": "main"}, "old": None}]}})
    gone = push_of({"push": {"changes": [{"new": None, "old": {"type": "branch", "name": "main"}}]}})
    centre = push_of({"changes": [{"refId": "refs/heads/main", "ref": {"id": "refs/heads/main"}}]})
    for push in (cloud, gone, centre):
        assert concerns(push, HTTPS, "main") is None
        assert concerns(push, HTTPS, "other") == "another ref"


@pytest.mark.parametrize(
    ("project", "slug", "page", "location"),
    [
        ("ACME", "flows", "projects/ACME/repos/flows/browse", "ssh://git@bitbucket.example:7999/acme/flows.git"),
        ("~ada", "flows", "users/ada/repos/flows/browse", "https://bitbucket.example/scm/~ada/flows.git"),
    ],
)
def test_a_webhook_of_bitbucket_server_may_name_a_page_alone(project: str, slug: str, page: str, location: str) -> None:
    """The repository is the one of its project and name."""
    links = {"self": [{"href": f"https://bitbucket.example/{page}"}]}
    push = push_of({"repository": {"slug": slug, "project": {"key": project}, "links": links}})
    assert concerns(push, location, None) is None
    assert concerns(push, location.replace("flows", "other"), None) == "another repository"


def test_a_webhook_for_another_repository_or_ref_is_ignored() -> None:
    """A missing repository or ref in the payload is not a mismatch."""
    push = push_of({"ref": "refs/heads/dev", "repository": {"links": {"clone": [{"href": "https://x.com/a/b.git"}]}}})
    assert concerns(push, "https://x.com/a/b", None) is None
    assert concerns(push, "https://x.com/a/b", "main") == "another ref"
    assert concerns(push, "https://x.com/a/c", "dev") == "another repository"
    assert concerns(push_of({}), "https://x.com/a/c", "dev") is None


@pytest.mark.parametrize(
    "place",
    [
        {"repository": {"default_branch": "main"}},
        {"project": {"default_branch": "main"}},
        {"repository": {"mainbranch": {"name": "main"}}},
    ],
)
def test_the_webhook_payload_names_the_default_branch(place: dict[str, object]) -> None:
    """It is used unless a branch is configured."""
    assert concerns(push_of({"ref": "refs/heads/main", **place}), HTTPS, None) is None
    assert concerns(push_of({"ref": "refs/heads/dev", **place}), HTTPS, None) == "another ref"
    assert concerns(push_of({"ref": "refs/heads/dev", **place}), HTTPS, "dev") is None


def test_a_webhook_for_the_deletion_of_our_branch_triggers_a_pass() -> None:
    """The missing branch is an error that people must see at once."""
    gone = push_of({"ref": "refs/heads/main", "after": "0" * 40, "deleted": True, "repository": {"clone_url": HTTPS}})
    assert concerns(gone, HTTPS, "main") is None
    assert concerns(gone, HTTPS, "other") == "another ref"


@pytest.mark.parametrize(
    ("address", "location"),
    [
        ("https://GitHub.com/acme/flows.git", "git@github.com:acme/flows"),
        ("https://github.com/Acme/Flows/", "ssh://git@ssh.github.com:443/acme/flows.git"),
        ("https://gitlab.com/acme/flows.git", "ssh://git@altssh.gitlab.com:443/acme/flows.git"),
        ("git@git.acme.example:acme/flows.git", "http://127.0.0.1:3000/acme/flows.git"),
        ("https://git.acme.example/acme/flows", "https://gitea-http.gitea.svc.cluster.local:3000/acme/flows.git"),
        ("https://acme.example/gitea/acme/flows.git", "ssh://git@gitea-ssh:2222/acme/flows.git"),
        ("https://git.acme.example/scm/acme/flows.git", "git@git.acme.example:acme/flows"),
        ("ssh://git@[2001:db8::1]:22/acme/flows.git", "git@[2001:db8::1]:acme/flows.git"),
        ("https://git.acme.example/acme/team/flows.git", "github.com:acme/team/flows"),
        ("https://git.acme.example/acme/flows.git", "/srv/mirrors/acme/flows.git"),
        ("/srv/git/flows.git", "file:///srv/git/flows"),
    ],
)
def test_a_signed_push_to_our_path_is_looked_at_under_every_name_of_the_host(address: str, location: str) -> None:
    """A forge has one name for people, one in the cluster, one for ssh; another path is another repository."""
    assert concerns(push_of({"repository": {"clone_url": address}}), location, None) is None
    for other in ("https://git.acme.example/acme/other", "https://git.acme.example/flows", "https://git.acme.example/x/flows"):
        assert concerns(push_of({"repository": {"clone_url": other}}), location, None) == "another repository"


def test_a_push_to_the_address_that_the_repository_moved_to_is_looked_at() -> None:
    """After a rename the payload has the new name, and the setting the former one."""
    push = push_of({"repository": {"clone_url": "https://git.acme.example/acme/renamed.git"}})
    assert concerns(push, "https://git.acme.example/acme/flows", None) == "another repository"
    moved = "https://git.acme.example/acme/renamed"
    assert concerns(push, "https://git.acme.example/acme/flows", None, moved) is None


@given(
    st.dictionaries(st.sampled_from([name for make in PROVIDERS.values() for name in make(BODY)]), st.text(), max_size=4),
    st.binary(max_size=50),
    st.text(max_size=20),
)
def test_any_webhook_request_gets_a_verdict_without_an_exception(headers: Headers, body: bytes, secret: str) -> None:
    """Without the secret it is a refusal."""
    verdict = read_hook(headers, body, f"prefix-{secret}", NOW)
    assert isinstance(verdict, Refused)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_signed_webhook_payload_gets_a_verdict_without_an_exception(value: object) -> None:
    """A valid signature does not restrict the payload."""
    for payload in ({"repository": value}, {"push": {"changes": value}}, {"changes": [value], "ref": value}):
        concerns(push_of(payload), HTTPS, "main")


@pytest.mark.parametrize("name", [{"a": 1}, ["push"], 1, None, True])
def test_a_system_hook_whose_event_name_is_no_text_is_ignored(name: object) -> None:
    """Whoever knows the secret gets an answer, and no traceback."""
    body = json.dumps({"event_name": name}).encode()
    assert isinstance(read_hook({"x-gitlab-token": SECRET, "x-gitlab-event": "System Hook"}, body, SECRET, NOW), Ignored)
