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
    r"sb_secret_[\w-]{16,}|sbp_[0-9a-f]{40}",  # Supabase
    r"AIza[\w-]{35}",  # Google
    r"SG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
    r"EAA[A-Za-z0-9]{80,}",  # Meta, which WhatsApp belongs to
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"npm_[A-Za-z0-9]{36}",
    r"kapso[-_][A-Za-z0-9_-]{24,}",
    r"eyJ[\w-]{10,500}+\.eyJ[\w-]{10,}(?:\.[\w-]+)?",  # JSON Web Tokens; the limit is for `eyJeyJeyJ…`
)

MASK = "[redacted]"
"""What stands for a secret wherever it was left out."""

USERINFO = re.compile(r"(?<=://)[^/@\s\"']+@")
"""The user, and maybe a password, in a URL."""

CREDENTIAL = re.compile("|".join((*_SHAPES, r"-----BEGIN [A-Z ]*PRIVATE KEY")))
"""A well-known credential; if it is in code or in a manifest, the user gets a warning."""

_WORD_ENDS = re.compile(r"[/.#\s]+")


def looks_like_a_value(name: str) -> bool:
    """Return whether a name looks like the credential itself: one of known shape, or a long word of mixed case with digits."""
    return CREDENTIAL.search(name) is not None or any(
        len(word) >= 12 and all(re.search(chars, word) for chars in ("[a-z]", "[A-Z]", "[0-9]"))
        for word in _WORD_ENDS.split(name)
    )


_HEADER_VALUES = (
    r"(?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}",
    # A webhook's signature, as most providers write it: with it and the body anybody can send the request again.
    r"(?i:(?<=sha1=)[0-9a-f]{40}|(?<=sha256=)[0-9a-f]{64}|(?<=sha512=)[0-9a-f]{128})\b",
)

MASKED = re.compile("|".join((*_SHAPES, *_HEADER_VALUES, USERINFO.pattern)))
"""Text that is removed from all output of the program: credentials, header values, signatures, and users in URLs."""

LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{40,}")
"""A long random word; it is removed from the API's error texts, because they may quote the request."""
