"""Keeps who has signed in to the page, in memory, and limits guesses of the token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable

from kapso_sync.dataclass import dataclass
from kapso_sync.model.clock import Clock
from kapso_sync.server.control import ServerLimits

COOKIE = "kapso_sync_session"

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """A person who has signed in. ``form_token`` is what each form of theirs must send along."""

    form_token: str

    def sent(self, given: str) -> bool:
        """Return whether a form sent the session's own token."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.form_token.encode())


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at the page. ``trusted``: they have shown the admin token, and may see code, history and invocations."""

    session: Session | None = None
    trusted: bool = False


STRANGER = Viewer()


@dataclass(frozen=True, slots=True)
class _Opened:
    """A session: when it ends, and the admin token, as a digest, with which it was opened."""

    until: float
    token: bytes


class Sessions:
    """The sessions of one daemon. Only digests are kept, and none survives the process. ``random`` returns that many bytes.

    A session ends with its time, when somebody signs out, when the admin token changes, and when too many others were opened.
    """

    def __init__(self, clock: Clock, limits: ServerLimits, random: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._limits = limits
        self._random = random
        self._key = random(KEY_BYTES)
        self._opened: OrderedDict[bytes, _Opened] = OrderedDict()

    def open(self, token: str) -> str:
        """Open a session for who has given this admin token, and return the cookie's value."""
        self._drop_ended()
        cookie = base64.urlsafe_b64encode(self._random(KEY_BYTES)).decode().rstrip("=")
        self._opened[self._digest(cookie)] = _Opened(self._clock.monotonic() + self._limits.session, self._digest(token))
        while len(self._opened) > self._limits.sessions:
            self._opened.popitem(last=False)
        return cookie

    def find(self, cookie: str | None, token: Callable[[], str]) -> Session | None:
        """Return the session of a cookie, or None; ``token`` returns the present admin token and may raise `KapsoSyncError`."""
        self._drop_ended()
        # Who guesses a cookie cannot choose its digest, so that the time of this look-up says nothing.
        digest = self._digest(cookie) if cookie else b""
        opened = self._opened.get(digest)
        if opened is None or not hmac.compare_digest(opened.token, self._digest(token())):
            return None
        return Session(hmac.new(self._key, b"form" + digest, hashlib.sha256).hexdigest())

    def close(self, cookie: str | None) -> None:
        """End the session of a cookie."""
        if cookie:
            self._opened.pop(self._digest(cookie), None)

    def _drop_ended(self) -> None:
        while self._opened and next(iter(self._opened.values())).until <= self._clock.monotonic():
            self._opened.popitem(last=False)

    def _digest(self, text: str) -> bytes:
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).digest()


class Guesses:
    """The wrong tokens of the last minute, by address. Beyond the limit no token is looked at, not even the right one."""

    def __init__(self, clock: Clock, limits: ServerLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._wrong: deque[tuple[float, str]] = deque()

    def wait(self, address: str) -> float | None:
        """Return the seconds after which this address may guess again, or None if it may now."""
        now, window = self._clock.monotonic(), self._limits.guess_window
        while self._wrong and self._wrong[0][0] + window <= now:
            self._wrong.popleft()
        everybody, own = [at for at, _ in self._wrong], [at for at, its in self._wrong if its == _network(address)]
        limits = ((own, self._limits.guesses), (everybody, self._limits.guesses_in_all))
        return max((times[-limit] + window - now for times, limit in limits if len(times) >= limit), default=None)

    def add(self, address: str) -> None:
        """Count a wrong token of this address."""
        self._wrong.append((self._clock.monotonic(), _network(address)))


def _network(address: str) -> str:
    """Return whom an address belongs to: of version 6, everybody has as many as they like, with one beginning."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
