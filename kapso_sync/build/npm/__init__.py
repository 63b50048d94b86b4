"""Fetch the npm packages of a git source: those that its ``package-lock.json`` pins, from one registry, without npm.

* `lock` reads lock files, and finds in them what Node would find in ``node_modules``; it is pure.
* `registry` downloads tarballs, and asks no other host.
* `cache` keeps them in the state folder, by their sha512.
* `tarball` unpacks them: regular files only, within limits.
* `source` puts this together, as a `kapso_sync.build.packages.PackageSource`.

No code of a package is run, no ``.npmrc`` is read, and no token is sent.
"""

from kapso_sync.build.npm.cache import TarballCache
from kapso_sync.build.npm.registry import Registry, RegistryLimits, parse_registry_url
from kapso_sync.build.npm.source import LockedPackages, NpmPackages

__all__ = [
    "LockedPackages",
    "NpmPackages",
    "Registry",
    "RegistryLimits",
    "TarballCache",
    "parse_registry_url",
]
