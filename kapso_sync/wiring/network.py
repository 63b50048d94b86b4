"""Finds the proxies and authorities of the settings' environment."""

from __future__ import annotations

from kapso_sync.network import Network, read_network
from kapso_sync.settings import Settings
from kapso_sync.telemetry.redact import Redactor


def find_network(settings: Settings, redactor: Redactor) -> Network:
    """Return how to reach other hosts; the passwords of proxies are never shown. Raises `ConfigError`."""
    network = read_network(settings.network_variables)
    for password in network.passwords:
        redactor.add(password)
    return network
