"""What a credential looks like: well-known shapes only, so that a hit is worth a warning."""

from __future__ import annotations

import re

CREDENTIAL = re.compile(
    r"(?:sk|pk|rk)[_-](?:live|test|proj|ant)[_-]\S{8,}|gh[pousr]_\w{20,}|glpat-\S{16,}|AKIA[0-9A-Z]{16}|xox[abprs]-\S{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|eyJ\w{10,}\.eyJ\w{10,}"
)
