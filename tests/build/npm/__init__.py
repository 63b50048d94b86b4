"""Packages of a git source: lock files, tarballs, a registry on loopback, and what of them reaches a build."""
