"""What does the authorization server answer?"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A granted request: the JSON body's members, or None for an empty body. Never to be stored by anyone.

    `device_id` is the device that has proven itself, if one has; `proven` says that the caller has, whoever
    it is, so that the request is not counted against its address."""

    members: Mapping[str, Any] | None
    headers: Mapping[str, str] = field(default_factory=dict)
    device_id: str | None = None
    proven: bool = True

    def with_headers(self, headers: Mapping[str, str]) -> "Answer":
        """The same with these headers, where it has none of that name."""
        return replace(self, headers={**headers, **self.headers})
