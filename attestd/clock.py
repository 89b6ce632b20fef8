"""What time is it, and how is a time written?

Inside the service a time is an `int`: milliseconds since the Unix epoch, UTC. On the wire it is RFC 3339 in
whole seconds. A duration is an `int` of seconds.
"""

import re
import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def now_ms() -> int:
    """The wall clock; called at the rim only, everything below takes `now` as an argument."""
    return time.time_ns() // 1_000_000


def rfc3339(ms: int) -> str:
    """Drops the milliseconds: an expiry is never told later than it is."""
    seconds = ms // 1000
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> int:
    """Milliseconds since the epoch. ValueError without an offset and for a leap second."""
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no RFC 3339 time such as 2026-11-25T17:38:07Z")
    delta = datetime.fromisoformat(text) - EPOCH
    return delta // timedelta(milliseconds=1)


def parse_duration(text: str) -> int:
    """Seconds, from a whole number and one unit: "60s", "10m", "1h", "7d". ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: write a whole number and one of s, m, h, d, such as 10m")
    return int(match[1]) * _SECONDS[match[2]]
