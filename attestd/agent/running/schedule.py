"""When is the next try?

Three answers. What is held is renewed in the second half of its life, machines that began together apart from
each other. Where nothing answers, the pauses double with full jitter, up to five minutes. Where somebody
said no, asking more often changes nothing: slow, at fixed intervals. Pure: `draw` gives a number from 0 to
1 (1 excluded), times are milliseconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from attestd.agent.trouble import DOUBLING, Regime

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000

RENEW_FROM, RENEW_TO = 0.5, 0.6
"""Of a lifetime: the first try lies between; all that follows is for trying again."""
SHORTEST_RENEWAL = 10 * SECOND
"""Between two rounds that succeed, however soon a service lets end what it gives."""
FIRST_PAUSE, LONGEST_PAUSE = SECOND, 5 * MINUTE
"""Of what doubles."""
LEAST_PAUSE = 200
DENIED_PAUSE, DENIED_SPREAD = 5 * MINUTE, 0.1
PENDING_PAUSE = 30 * SECOND
UNENROLLED_PAUSE = 10 * SECOND
"""Between two looks into the state directory, which cost nothing."""
LOOK_PAUSE = 30 * SECOND
"""Between two looks, while denied, at whether the machine is another than when it was denied."""
WITHHELD_PAUSE = HOUR
RELOAD_PAUSE = 10 * SECOND
"""Between two tries because an operator has the settings read again."""
TRIES_AN_HOUR = 60
"""Failed ones; whatever the far side says and whatever this machine's registers do."""
SHORTEST_REFRESH, USUAL_REFRESH, LONGEST_REFRESH = MINUTE, 5 * MINUTE, HOUR

Draw = Callable[[], float]


def renewal_at(since: int, until: int, draw: Draw) -> int:
    """When to renew what lives from `since` until `until`; ten seconds later at the earliest."""
    return since + max(
        SHORTEST_RENEWAL, int((until - since) * (RENEW_FROM + (RENEW_TO - RENEW_FROM) * draw()))
    )


def refresh_at(now: int, hint: int | None, draw: Draw) -> int:
    """When to fetch the bundle again: `hint` (seconds) is the bundle's own wish, within our bounds."""
    wish = USUAL_REFRESH if hint is None else hint * SECOND
    return now + int(min(max(wish, SHORTEST_REFRESH), LONGEST_REFRESH) * (0.9 + 0.1 * draw()))


def withheld_until(now: int, draw: Draw) -> int:
    """When to ask again for what the policy gave to nobody."""
    return now + _around(WITHHELD_PAUSE, draw)


def pause(regime: Regime, failures: int, draw: Draw, *, retry_after: int | None = None) -> int:
    """Milliseconds until the next try after so many failures (at least 1) of this regime. `retry_after`
    (seconds, bounded by whoever read it) is waited for in any case."""
    match regime:
        case Regime.OUTAGE | Regime.FAULT:
            window = _doubled(FIRST_PAUSE, failures)
            wait = max(LEAST_PAUSE, int(window * draw()))
            if retry_after is not None:
                # All who were told the same come back apart from each other.
                wait = retry_after * SECOND + int(max(window, FIRST_PAUSE) * draw())
            return wait
        case Regime.DENIED:
            wait = _around(DENIED_PAUSE, draw)
        case Regime.PENDING:
            wait = _around(_doubled(PENDING_PAUSE, failures), draw)
        case Regime.UNENROLLED:
            wait = UNENROLLED_PAUSE
        case Regime.GOOD:
            raise ValueError("what is good has no failures")
    return wait if retry_after is None else max(wait, retry_after * SECOND)


def _doubled(first: int, failures: int) -> int:
    return min(LONGEST_PAUSE, first << min(failures - 1, 20))


def _around(middle: int, draw: Draw) -> int:
    return int(middle * (1 + DENIED_SPREAD * (2 * draw() - 1)))


@dataclass(frozen=True, slots=True)
class Tries:
    """The failed tries of the last hour, oldest first, and how many there were in a row in one regime."""

    regime: Regime = Regime.GOOD
    in_a_row: int = 0
    times: Sequence[int] = field(default=())

    def failed(self, regime: Regime, now: int, *, counts: bool = True) -> Self:
        """With one more. One that an operator asked for by a reload takes nothing of what an hour may have,
        and makes no pause longer."""
        same = regime == self.regime or {regime, self.regime} <= DOUBLING
        recent = [time for time in self.times if now - HOUR < time <= now]
        if counts and regime is not Regime.UNENROLLED:  # A look into a directory asks nobody.
            recent.append(now)
        in_a_row = max(1, self.in_a_row + counts) if same else 1
        return type(self)(regime, in_a_row, tuple(recent[-TRIES_AN_HOUR:]))

    def next_at(self, now: int, draw: Draw, *, retry_after: int | None = None) -> int:
        """The time of the next try, within what an hour may have."""
        return self.not_before(now + pause(self.regime, self.in_a_row, draw, retry_after=retry_after))

    def not_before(self, wished: int) -> int:
        """The wish, or later where the hour before it has had its tries."""
        if len(self.times) < TRIES_AN_HOUR:
            return wished
        return max(wished, self.times[-TRIES_AN_HOUR] + HOUR)
