"""Reads how this machine reaches others: proxies, certificate authorities, the ssh agent. One rule for the API, git and forges.

The variables are those of curl, git and OpenSSL. A name in lower case counts before its upper-case twin, as in curl.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.files import read_small
from kapso_sync.urls import is_loopback

PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")

AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")

PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})
"""Schemes of a proxy's address that the API's client, git and notifications all speak."""

AUTHORITY_HINT = (
    "a server or a proxy has a certificate of an authority that is not known here: let SSL_CERT_FILE name a PEM file "
    "that holds the authority's certificate, beside the public ones that are needed"
)
"""What to do about a certificate that cannot be verified."""

PROXY_HINT = (
    "the proxy of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: is it right, with its user and password? NO_PROXY lists exceptions"
)
"""What to do about a proxy that does not let a connection through."""

MAX_AUTHORITY_BYTES = 16 * 1024 * 1024
"""Maximum size of a file of authorities, in bytes; the public ones take about 300 KB."""

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
"""The name of a certificate in a directory that OpenSSL reads."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PROXY_PORTS = _DEFAULT_PORTS | {"socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Network:
    """How to reach other hosts.

    ``proxies`` are addresses by the scheme of the target, which may hold a password. ``no_proxy`` are hosts, domains, addresses
    and networks that are reached directly. ``cert_file`` and ``cert_dir`` replace the system's authorities; ``git_ca_info``
    does so for git alone. ``ssh_agent`` is the socket of an ssh agent.
    """

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    cert_file: str | None = None
    cert_dir: str | None = None
    git_ca_info: str | None = None
    ssh_agent: str | None = None

    def proxy_for(self, url: str) -> str | None:
        """Return the address of the proxy for a URL, or None; loopback is always reached directly."""
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
        proxy = self.proxies.get(parts.scheme)
        if proxy is None or not host or is_loopback(host):
            return None
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        return None if any(_is_excepted(entry, host, port) for entry in self.no_proxy) else proxy

    @property
    def passwords(self) -> tuple[str, ...]:
        """The passwords in proxies' addresses, as written and as sent, which no log may show."""
        found = [urlsplit(proxy).password for proxy in self.proxies.values()]
        return tuple(dict.fromkeys(form for password in found if password for form in (password, unquote(password))))

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the named authorities, else the system's; those of certifi if it has none.

        As in OpenSSL, the file replaces the system's file, and the directory its directory.
        """
        if self.cert_file is None and self.cert_dir is None and not system_has_authorities():
            return ssl.create_default_context(cafile=certifi.where())
        system = ssl.get_default_verify_paths()
        context = ssl.create_default_context(
            cafile=self.cert_file or _existing(system.openssl_cafile), capath=self.cert_dir or _existing(system.openssl_capath)
        )
        if self.cert_file is not None or self.cert_dir is not None:
            # Python 3.13 checks strictly, which many private authorities do not pass: they lack a key identifier. git does not.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def git_environment(self, protocol: str) -> dict[str, str]:
        """Return the variables for git that have to do with authorities and the agent; the proxy is a setting of git's."""
        if protocol == "ssh":
            return {} if self.ssh_agent is None else {"SSH_AUTH_SOCK": self.ssh_agent}
        file = self.git_ca_info or self.cert_file
        if file is None and self.cert_dir is None and not system_has_authorities():
            file = certifi.where()
        named = {"GIT_SSL_CAINFO": file, "GIT_PROXY_SSL_CAINFO": file, "GIT_SSL_CAPATH": self.cert_dir}
        return {name: value for name, value in named.items() if value is not None}

    def requests_environment(self) -> dict[str, str]:
        """Return the variables with which the library ``requests`` does the same; it reads the environment and nothing else.

        It takes one file or directory of authorities, and knows no exception for loopback.
        """
        found: dict[str, str] = {}
        if self.proxies and "*" not in self.no_proxy:
            found = {f"{scheme}_proxy": proxy for scheme, proxy in self.proxies.items()}
            found["no_proxy"] = ",".join(("localhost", "127.0.0.0/8", "::1", *self.no_proxy))
        first = (self.cert_dir or "").partition(os.pathsep)[0]
        system = ssl.get_default_verify_paths()
        named = {
            "SSL_CERT_FILE": self.cert_file,
            "SSL_CERT_DIR": self.cert_dir,
            "REQUESTS_CA_BUNDLE": self.cert_file or first or _existing(system.openssl_cafile),
        }
        return found | {name: value for name, value in named.items() if value}


def read_network(environment: Mapping[str, str]) -> Network:
    """Return the network of an environment; an empty variable is one that is not set.

    Raises `ConfigError` for a proxy that is not an address, and for authorities that cannot be read: the system's would then be
    trusted in silence, and a connection that is meant to be checked by others would fail or, worse, succeed.
    """
    proxies = {}
    for scheme in ("http", "https"):
        for name in (f"{scheme.upper()}_PROXY", "ALL_PROXY"):
            spelled, value = _variable(environment, name)
            if value is not None:
                proxies[scheme] = _checked_proxy(spelled, value)
                break
    _, exceptions = _variable(environment, "NO_PROXY")
    network = Network(
        proxies,
        tuple(entry for entry in re.split(r"[\s,]+", exceptions or "") if entry),
        _path(environment, "SSL_CERT_FILE"),
        _paths(environment, "SSL_CERT_DIR"),
        _path(environment, "GIT_SSL_CAINFO"),
        _path(environment, "SSH_AUTH_SOCK"),
    )
    # Often they are one file, and the public authorities take OpenSSL a while to read.
    for file, name in {network.git_ca_info: "GIT_SSL_CAINFO", network.cert_file: "SSL_CERT_FILE"}.items():
        if file is not None:
            _check_file(name, file)
    if network.cert_dir is not None:
        _check_directories(network.cert_dir)
    return network


def is_unverified(error: BaseException) -> bool:
    """Return whether a connection failed because the other side's certificate is of no known authority."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _named(environment: Mapping[str, str], name: str) -> str | None:
    return environment.get(name, "").strip() or None


def _path(environment: Mapping[str, str], name: str) -> str | None:
    """Return a path as an absolute one: git and ssh run in another folder than we do."""
    value = _named(environment, name)
    return None if value is None else str(Path(value).absolute())


def _paths(environment: Mapping[str, str], name: str) -> str | None:
    values = (_named(environment, name) or "").split(os.pathsep)
    return os.pathsep.join(str(Path(value).absolute()) for value in values if value) or None


def _variable(environment: Mapping[str, str], name: str) -> tuple[str, str | None]:
    """Return a variable's name in the case in which it is set, and its value."""
    for spelled in (name.lower(), name):
        value = _named(environment, spelled)
        if value is not None:
            return spelled, value
    return name, None


def _checked_proxy(name: str, value: str) -> str:
    """Return a proxy's address with scheme and port: without a port, git would ask at 1080, and everybody else at 80.

    The error does not show it, since it may hold a password.
    """
    address = value if "://" in value else f"http://{value}"
    example = "an example: http://proxy.example.com:3128"
    try:
        parts = urlsplit(address)
        sound = bool(parts.hostname) and parts.port != 0 and re.search(r"[\x00-\x20\x7f]", address) is None
    except ValueError:
        raise ConfigError(f"{name} is not the address of a proxy", hint=example) from None
    if parts.scheme not in PROXY_SCHEMES:
        raise ConfigError(
            f"{name} names a proxy of the kind {parts.scheme}://",
            hint=f"these are spoken: {', '.join(f'{scheme}://' for scheme in sorted(PROXY_SCHEMES))}",
        )
    if not sound:
        raise ConfigError(f"{name} is not the address of a proxy", hint=example)
    if parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc.removesuffix(':')}:{_PROXY_PORTS[parts.scheme]}")
    return parts.geturl()


def _is_excepted(entry: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY holds for a host: ``*``, a domain with all below it, an address or a network.

    An entry may have a port. A leading dot or ``*.`` makes no difference, as in curl.
    """
    if entry == "*":
        return True
    name, entry_port = entry.lower(), None
    if (match := re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+):(\d+)", name)) is not None:
        name, entry_port = match[1], int(match[2])
    if entry_port is not None and entry_port != port:
        return False
    name = name.replace("[", "").replace("]", "")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:
        domain = name.removeprefix("*").strip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _check_file(name: str, file: str) -> None:
    hint = f"correct or unset {name}: it has to name a file of certificates in PEM format"
    try:
        read_small(Path(file), MAX_AUTHORITY_BYTES, follow=True)  # OpenSSL would wait for a pipe without end
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError as error:
        raise ConfigError(f"{name} {file} holds no certificate that can be read", hint=hint) from error
    except OSError as error:
        raise ConfigError(f"{name} {file} cannot be read: {error.strerror or error}", hint=hint) from error


def _check_directories(directories: str) -> None:
    hint = "correct or unset SSL_CERT_DIR: it has to name a folder of certificates that `openssl rehash` has prepared"
    for directory in directories.split(os.pathsep):
        try:
            names = os.listdir(directory)  # noqa: PTH208 - names alone
        except OSError as error:
            raise ConfigError(f"SSL_CERT_DIR {directory} cannot be read: {error.strerror or error}", hint=hint) from error
        if not any(map(_HASHED.fullmatch, names)):
            raise ConfigError(f"SSL_CERT_DIR {directory} holds no certificate under the name that OpenSSL looks for", hint=hint)


def _existing(path: str) -> str | None:
    return path if path and Path(path).exists() else None


def system_has_authorities() -> bool:
    """Return whether OpenSSL's own file or directory of authorities holds any; slim images have none."""
    system = ssl.get_default_verify_paths()
    file, directory = Path(system.openssl_cafile), Path(system.openssl_capath)
    try:
        if file.is_file() and file.stat().st_size > 0:
            return True
        return directory.is_dir() and any(_HASHED.fullmatch(item.name) for item in directory.iterdir())
    except OSError:
        return False
