"""What does whoever watches this machine read of it in its state directory?

How it stands now, and how its last attestation ended. Every write wears out a little of the disk: what says
nothing new is not written.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from attestd.agent.errors import Misconfigured
from attestd.agent.running.standing import Standing
from attestd.agent.state import Membership, State


def membership_of(state: State) -> Membership | None:
    """As far as it can be read now; why it cannot is a round's to say."""
    try:
        return state.membership()
    except (Misconfigured, OSError):
        return None


class Telling:
    """Of one agent, in one thread. A disk that cannot be written is said and ends nothing."""

    def __init__(self, state: State, *, say: Callable[[str], None]) -> None:
        self._state, self._say = state, say
        self._told: dict[str, Any] = {}

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """How the last attestation ended, for `agent status`, as after `agent attest`."""
        with suppress(OSError):  # A full disk is told of where the standing is written.
            self._state.keep_last(outcome)

    def stands(self, standing: Standing) -> None:
        told = standing.told()
        if told | {"time": None} == self._told | {"time": None}:
            return
        try:
            self._state.keep_standing(told)
            self._told = told
        except OSError as error:
            self._say(f"the standing was not written: {error.strerror or error}")
