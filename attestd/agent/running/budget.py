"""How often may each agent of this machine ask for something within a minute?

Each has a share that the others cannot use up, and all together have no more than the whole: what they ask
for takes the TPM, and the service's patience, from the machine's own rounds.
"""

from collections import deque

_MINUTE_MS = 60_000


class Budget:
    """`whole`: how often a minute for all together. Used by one thread."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._spent: dict[str, deque[int]] = {}

    def spend(self, agent: str, *, sharing: int, now: int) -> bool:
        """May it ask once more, by the time `now` (milliseconds), where so many agents share? Then that
        counts. Each of them may ask once a minute at least, as far as the whole goes."""
        for name in list(self._spent):
            self._forget(name, now)
        mine = self._spent.get(agent, deque())
        if len(mine) >= max(1, self._whole // max(1, sharing)):
            return False
        if sum(map(len, self._spent.values())) >= self._whole:
            return False
        self._spent.setdefault(agent, mine).append(now)
        return True

    def _forget(self, agent: str, now: int) -> None:
        """What is a minute old, or of a time that is not yet: the clock was set back."""
        kept = deque(at for at in self._spent[agent] if 0 <= now - at < _MINUTE_MS)
        if kept:
            self._spent[agent] = kept
        else:
            del self._spent[agent]
