"""What is noteworthy about a log that can be read?"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a reader of the log should know; whether it matters is for the policy to say."""

    code: str
    """snake_case, such as "separator_repeated"."""
    detail: str
    """A sentence for people; nothing in it is copied from the log unescaped."""
    register: int | None = None
    event: int | None = None
