"""Patterns that detect credentials, for warnings about code and manifests, and to mask credentials in logs and output."""

from __future__ import annotations

import re

_SHAPES = (
    r"(?:sk|pk|rk)[_-](?:live|test|proj|ant)[_-][\w-]{8,}",  # Stripe, OpenAI, Anthropic
    r"gh[pousr]_\w{20,}",  # GitHub
    r"github_pat_\w{20,}",
    r"glpat-[\w-]{16,}",  # GitLab
    r"AKIA[0-9A-Z]{16}",  # AWS
    r"xox[abprs]-[\w-]{10,}",  # Slack
    r"whsec_[\w+/=]{16,}",  # signed webhooks
    r"kapso[-_][A-Za-z0-9_-]{24,}",
    r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]+)?",  # JSON Web Tokens
)

USERINFO = re.compile(r"(?<=://)[^/@\s\"']+@")
"""The user, and maybe a password, in a URL."""

CREDENTIAL = re.compile("|".join((*_SHAPES, r"-----BEGIN [A-Z ]*PRIVATE KEY")))
"""A well-known credential; if it is in code or in a manifest, the user gets a warning."""

MASKED = re.compile("|".join((*_SHAPES, r"(?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", USERINFO.pattern)))
"""Text that is removed from all output of the program: well-known credentials, header values, and users in URLs."""

LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{40,}")
"""A long random word; it is removed from the API's error texts, because they may quote the request."""
