"""The one table of what looks like a credential: for warnings about code and manifests, and for whatever is logged or shown."""

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

CREDENTIAL = re.compile("|".join((*_SHAPES, r"-----BEGIN [A-Z ]*PRIVATE KEY")))
"""A well-known credential: worth a warning where it stands in code or in a manifest."""

MASKED = re.compile("|".join((*_SHAPES, r"(?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", r"(?<=://)[^/@\s\"']+@")))
"""What is taken out of any text that leaves the program: well-known credentials, header values, and users in URLs."""

LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{40,}")
"""A word that no person writes: taken out of what the API says in an error, since it may quote what was sent."""
