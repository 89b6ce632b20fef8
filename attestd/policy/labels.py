"""Which words may operators use for names and labels?

Names and labels come from operators alone. What may stand in a SPIFFE ID is narrower than what a label may
say; wildcards are refused, so that nobody believes that `*` matches.
"""

from __future__ import annotations

import re

SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}")
"""A name, a label's key, and a label's value as far as it stands in a SPIFFE ID."""

AGENT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""An agent or a sealed key."""

MAX_LABEL_VALUE = 128


def label_value_fault(value: str) -> str | None:
    """Why this text is no label value, or None if it is one."""
    if not 1 <= len(value) <= MAX_LABEL_VALUE:
        return f"a label's value has 1 to {MAX_LABEL_VALUE} characters"
    if not value.isprintable() or value != value.strip():
        return "a label's value is printable text without spaces around it"
    if "*" in value or "?" in value:
        return "a label's value has no wildcards: name every value"
    return None
