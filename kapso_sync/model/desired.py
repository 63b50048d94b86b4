"""Defines the desired state: the entries of the manifest, and the functions built from them."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Notice, Problem
from kapso_sync.model.functions import CODE, RUNTIME_CONTENT, Content, FunctionType, InvokeRequest, code_hash, content_hash
from kapso_sync.model.json_values import Json, is_json_text, parse_json_text
from kapso_sync.model.policies import Contract, DriftPolicy
from kapso_sync.model.source import Revision


@dataclass(frozen=True, slots=True)
class EnvSecret:
    """The value of an environment variable of the daemon; ``json``: it is a JSON object or list, and is set as one."""

    env: str
    json: bool = False


@dataclass(frozen=True, slots=True)
class FileSecret:
    """The content of a file below the secrets folder; ``json`` as in `EnvSecret`."""

    file: str
    json: bool = False


@dataclass(frozen=True, slots=True)
class DotenvSecret:
    """A value of a ``.env`` file below the secrets folder."""

    file: str
    name: str


@dataclass(frozen=True, slots=True)
class PlainSecret:
    """Plain configuration, written in the manifest: text, or a JSON object or list."""

    value: Json = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeepSecret:
    """A secret that somebody set on Kapso: it is left alone, and must exist."""


GivenSecret = EnvSecret | FileSecret | DotenvSecret | PlainSecret
"""A source that has a value."""

SecretSource = GivenSecret | KeepSecret


@dataclass(frozen=True, slots=True)
class SecretValue:
    """A secret's value and its keyed digest; only the digest is ever stored."""

    value: Json = field(repr=False)
    digest: str


NOTHING: Mapping[str, Any] = MappingProxyType({})
"""The empty mapping of most functions; one for each would take more of a thousand than their slugs."""

MAX_CHECKS = 20
"""Maximum number of checks of one function."""


class CheckMethod(enum.StrEnum):
    """The HTTP methods of a check's request."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class CheckSignature:
    """A signature of a check's request: the header holds ``prefix`` and the hex HMAC-SHA256 of the raw body.

    ``secret`` is the name of one of the function's own secrets, whose value is the key.
    """

    header: str
    secret: str
    prefix: str = ""

    def sign(self, body: bytes, key: str) -> str:
        """Return the header's value."""
        return self.prefix + hmac.new(key.encode("utf-8", "surrogatepass"), body, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Check:
    """A request to send after a deployment, and the expected answer.

    ``status`` None accepts any success. ``json`` must be a subset of the answer's JSON, ``text`` a part of its text, and the
    regular expression ``matches`` must be found in it. ``timeout`` is in seconds. ``body`` is sent as it is, in place of the
    JSON ``request``.
    """

    request: Json
    status: int | None = None
    json: Json = None
    text: str | None = None
    matches: str | None = None
    timeout: float = 10.0
    method: CheckMethod = CheckMethod.POST
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    sign: CheckSignature | None = None

    @property
    def after_deployment(self) -> bool:
        """Whether Kapso can pass the request on: its invoke call is a ``POST``, and nothing else is documented."""
        return self.method is CheckMethod.POST

    @property
    def has_headers(self) -> bool:
        """Whether the request has headers of its own, such as a signature."""
        return bool(self.headers) or self.sign is not None

    @property
    def sent(self) -> Json:
        """The request's body as Kapso records it: JSON, or a text that is none."""
        return self.request if self.body is None else parse_json_text(self.body)

    def to_request(self, secrets: Mapping[str, Json]) -> InvokeRequest:
        """Return the request; raises `UnsignedCheck` when ``secrets`` lacks the text to sign it with."""
        if self.body is None:
            plain = InvokeRequest.of_json(self.request)
        else:
            kind = "application/json" if is_json_text(self.body) else "text/plain; charset=utf-8"
            plain = InvokeRequest(self.body.encode(), kind)
        headers = dict(self.headers)
        if self.sign is not None:
            key = secrets.get(self.sign.secret)
            if not isinstance(key, str):
                raise UnsignedCheck(f"the secret {self.sign.secret} has no text to sign with")
            headers[self.sign.header] = self.sign.sign(plain.body, key)
        return dataclasses.replace(plain, headers=headers)

    def confidential(self, request: InvokeRequest, secrets: Mapping[str, Json]) -> tuple[str, ...]:
        """Return what nobody may read of a request that was made of these secrets: the key of the signature, and that."""
        if self.sign is None:
            return ()
        return str(secrets[self.sign.secret]), request.headers[self.sign.header].removeprefix(self.sign.prefix)

    def identity(self) -> Json:
        """Return what tells this check from others; one without newer keys has the identity that it always had."""
        newer = {"method": CheckMethod.POST, "headers": (), "body": None, "sign": None}
        values = dataclasses.asdict(self)
        values["headers"] = [list(pair) for pair in self.headers]
        return {name: value for name, value in values.items() if name not in newer or getattr(self, name) != newer[name]}


class UnsignedCheck(Exception):
    """A check cannot be signed."""


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """What of a function's invocations in ``period`` seconds after a deployment takes that deployment back.

    At least ``failures`` of them failed, and at least ``percent`` of all.
    """

    period: float = 600.0
    failures: int = 3
    percent: int = 50


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """The manifest's rollout policy: nothing else is written before ``canary`` is in sync, or after ``max_failures``."""

    canary: str | None = None
    max_failures: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One function of the manifest (or of a ``function.yaml``), with defaults applied and paths checked.

    ``file`` is relative to the functions folder. ``fields`` holds the managed fields only: omitted ones are not managed.
    ``protected`` and ``drift`` are None if the entry does not set them. ``exact_secrets``: other secrets are removed.
    ``moved_from`` holds former slugs, the latest first; empty means that the function is new, None that nothing is known.
    ``secret_locations`` are the positions of the values of its secrets, which may be in the defaults.
    ``whatsapp_flow`` is the id of the WhatsApp Flow whose data endpoint it becomes. ``watch`` is how the daemon watches it
    after a deployment; None: it does not.
    """

    slug: str
    file: str
    location: Location
    fields: Mapping[str, Json] = field(default_factory=lambda: NOTHING)
    contract: Contract = Contract.AUTO
    deploy: bool = True
    protected: bool | None = None
    drift: DriftPolicy | None = None
    moved_from: tuple[str, ...] | None = None
    secrets: Mapping[str, SecretSource] = field(default_factory=lambda: NOTHING)
    secret_locations: Mapping[str, Location] = field(default_factory=lambda: NOTHING)
    exact_secrets: bool = False
    checks: tuple[Check, ...] = ()
    minify: bool = False
    whatsapp_flow: str | None = None
    watch: WatchPolicy | None = None

    @property
    def function_type(self) -> FunctionType:
        """The managed function type, or Kapso's default for new functions."""
        given = self.fields.get("function_type")
        return FunctionType.CLOUDFLARE_WORKER if given is None else FunctionType(str(given))


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a functions folder declares.

    ``broken`` holds, by slug, the entries that name a file which is missing or cannot be read: each is its own
    function's failure. ``moved_from`` holds the former slugs that they name. ``present`` says whether there was a manifest
    file (folders of the Kapso CLI need none). ``elsewhere`` holds an entry for each file that another environment names:
    it is not built here, but it is not unlisted either. ``unusable_files`` are files that a broken entry means. ``misnamed``
    says, a line each, which files are not read and may declare functions nevertheless: their names are nearly right.
    """

    entries: tuple[Entry, ...]
    broken: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    present: bool = True
    rollout: RolloutPolicy = RolloutPolicy()
    elsewhere: tuple[Entry, ...] = ()
    unusable_files: frozenset[str] = frozenset()
    moved_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    misnamed: tuple[str, ...] = ()


class CodeStyle(enum.StrEnum):
    """How uploaded code presents its handler: a top-level ``handler``, or a default export."""

    SCRIPT = "script"
    MODULE = "module"

    @property
    def other(self) -> CodeStyle:
        """The other style."""
        return CodeStyle.MODULE if self is CodeStyle.SCRIPT else CodeStyle.SCRIPT


MODULE_TAIL = "\nexport default { fetch: (request, env, ctx) => handler(request, env, ctx) };\n"
"""The suffix that turns a script into a module; without it, the script is unchanged."""


@dataclass(frozen=True, slots=True)
class BundledPackage:
    """An npm package in a function's code: ``size`` is the number of bytes of it there, after everything unused was left out.

    ``name``, ``version`` and ``license`` are what its own ``package.json`` says, None where it says nothing.
    """

    name: str
    version: str | None
    license: str | None
    size: int


@dataclass(frozen=True)
class DesiredFunction:
    """A usable function: its entry, the code to upload, and the values of its secrets.

    ``style`` is the style of the code if it may be uploaded in the other one as well; None if the manifest asks for one.
    ``compiled``: the code was built, and is not the file byte for byte. ``secrets_digest`` is the digest of all values together
    for the ownership mark; None if there is no secret, or a value is missing. ``packages`` are the npm packages in the code.
    """

    entry: Entry
    code: str = field(repr=False)
    secrets: Mapping[str, SecretValue] = field(default_factory=lambda: NOTHING, repr=False)
    style: CodeStyle | None = None
    compiled: bool = False
    secrets_digest: str | None = None
    packages: tuple[BundledPackage, ...] = ()

    def hashed(self, digest: str) -> DesiredFunction:
        """Return the function, whose code is known to have this hash: it is not computed again."""
        self.__dict__["content"] = {**self.entry.fields, CODE: digest}
        return self

    def in_style(self, style: CodeStyle) -> DesiredFunction:
        """Return the function with its code in a style; unchanged if only one style is possible."""
        if self.style is None or self.style is style:
            return self
        script = self.code.removesuffix(MODULE_TAIL) if self.style is CodeStyle.MODULE else self.code
        return dataclasses.replace(self, code=script if style is CodeStyle.SCRIPT else script + MODULE_TAIL, style=style)

    @property
    def slug(self) -> str:
        """The identity."""
        return self.entry.slug

    @property
    def kept(self) -> frozenset[str]:
        """The names of secrets that must exist on Kapso and are left alone."""
        return frozenset(name for name, source in self.entry.secrets.items() if isinstance(source, KeepSecret))

    @functools.cached_property
    def content(self) -> Content:
        """The managed fields and the code's hash."""
        return {**self.entry.fields, CODE: code_hash(self.code)}

    @property
    def attempt(self) -> str:
        """A hash of the code that runs, in either style, and of its checks. An attempt that failed is not tried again."""
        content = self.in_style(CodeStyle.SCRIPT).content
        runs = {name: value for name, value in content.items() if name in RUNTIME_CONTENT}
        return content_hash({**runs, "checks": [check.identity() for check in self.entry.checks]})


@dataclass(frozen=True, slots=True)
class UnusableFunction:
    """A function that git lists and that is unusable now. Its version on Kapso stays, and is never deleted for that reason.

    ``blocked`` distinguishes a build that is not available (True) from an invalid input (False). ``moved_from`` is as in
    `Entry`.
    """

    slug: str
    file: str | None
    problems: tuple[Problem, ...]
    blocked: bool = False
    moved_from: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired state at one revision. Functions are sorted by slug.

    ``remote_ids`` holds functions' ids by slug, from the map of a Kapso CLI: a hint, often out of date. ``project_id`` is the
    project that the repository belongs to, where the CLI's project file says so. ``misnamed`` is as in `Manifest`.
    ``self_contained``: the snapshot alone decided it, the values of secrets apart.
    """

    source: str
    revision: Revision
    functions: tuple[DesiredFunction, ...]
    unusable: tuple[UnusableFunction, ...] = ()
    notices: tuple[Notice, ...] = ()
    manifest_present: bool = True
    rollout: RolloutPolicy = RolloutPolicy()
    remote_ids: Mapping[str, str] = field(default_factory=dict)
    project_id: str | None = None
    misnamed: tuple[str, ...] = ()
    self_contained: bool = True

    @property
    def slugs(self) -> frozenset[str]:
        """Every slug that git lists, usable or not."""
        return frozenset(f.slug for f in self.functions) | frozenset(f.slug for f in self.unusable)
