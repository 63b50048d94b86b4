"""Makes HTTP clients that reach every host as the machine's network settings say, and says why a request failed."""

from __future__ import annotations

import importlib.util
import ssl
import sys

import httpx

from kapso_sync.network import Network
from kapso_sync.visible import visible

if importlib.util.find_spec("sniffio") is None:
    # httpcore imports it several times for each request, and Python looks for a module that is missing in all folders.
    sys.modules["sniffio"] = None  # type: ignore[assignment]


def open_client(network: Network, *, timeout: httpx.Timeout, limits: httpx.Limits, secure: bool = True) -> httpx.AsyncClient:
    """Return a client that goes through the proxy of each URL, follows no redirect, and reads nothing from the environment.

    ``secure`` False: it is for ``http://`` alone, so that no authorities are loaded.
    """
    verify = network.ssl_context() if secure else False
    return httpx.AsyncClient(
        transport=_ProxyRouter(network, verify, limits), timeout=timeout, follow_redirects=False, trust_env=False
    )


MAX_REASON = 300
"""Most characters of a failed request's reason: the libraries quote up to 100 KiB of an answer that is not HTTP."""


def failure_reason(error: BaseException) -> str:
    """Return why a request failed, in one line of a limited length that controls no terminal."""
    text = visible(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


class _ProxyRouter(httpx.AsyncBaseTransport):
    """Sends each request directly or through its proxy. httpx's own rules know neither networks nor loopback in NO_PROXY."""

    def __init__(self, network: Network, verify: ssl.SSLContext | bool, limits: httpx.Limits) -> None:
        self._network = network
        self._verify = verify
        self._limits = limits
        self._by_proxy: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        return await self._transport(self._network.proxy_for(str(request.url))).handle_async_request(request)

    def _transport(self, address: str | None) -> httpx.AsyncHTTPTransport:
        if address not in self._by_proxy:
            proxy = None
            if address is not None:
                # httpcore takes a context for the proxy itself only where that speaks TLS.
                context = self._verify if isinstance(self._verify, ssl.SSLContext) else None
                proxy = httpx.Proxy(address, ssl_context=context if address.startswith("https:") else None)
            self._by_proxy[address] = httpx.AsyncHTTPTransport(
                verify=self._verify, limits=self._limits, proxy=proxy, trust_env=False
            )
        return self._by_proxy[address]

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._by_proxy.values():
            await transport.aclose()
