"""How does a round go that begins wherever this machine is: not enrolled yet, or not known any more?"""

from collections.abc import Callable, Sequence

from attestd.agent.attest import ROUND_SECONDS
from attestd.agent.errors import Refusal
from attestd.agent.running.home import Home
from attestd.agent.running.renewal import OnBundle, Renewed, renew, unheard
from attestd.agent.running.schedule import DENIED_PAUSE
from attestd.agent.settings import Settings, Workload
from attestd.agent.trouble import FORGOTTEN, LOST
from tpm.errors import DeviceError


class Rounds:
    """Of one machine, in one thread. Enrolling anew is tried once in a denial's pause."""

    def __init__(
        self,
        home: Home,
        *,
        clock: Callable[[], int],
        say: Callable[[str], None],
        on_bundle: OnBundle = unheard,
    ) -> None:
        """`on_bundle` is told each bundle that a round reads, whatever becomes of the round."""
        self._home, self._clock, self._say, self._on_bundle = home, clock, say, on_bundle
        self._reactivated_at: int | None = None

    def run(self, settings: Settings, workloads: Sequence[Workload]) -> Renewed:
        """One accepted round. Refusal, Unreachable, DeviceError, Misconfigured or AnotherTpm."""
        home = self._home.within(ROUND_SECONDS)
        machine = home.enrolled(settings.server)
        try:
            renewed = renew(machine, workloads, clock=self._clock, on_bundle=self._on_bundle)
        except (DeviceError, Refusal) as error:
            if not (settings.reactivate and self._helps(error)):
                raise
            lost = error.reason if isinstance(error, DeviceError) else error.code
            self._reactivated_at = self._clock()
            self._say(f"enrolling anew as the same device ({lost})")
            home.reactivate()
            renewed = renew(machine, workloads, clock=self._clock, on_bundle=self._on_bundle)
        home.admitted(renewed.bundle.trust_domain)
        return renewed

    def _helps(self, error: DeviceError | Refusal) -> bool:
        """Is it the attestation key that is not known any more, and was enrolling anew not tried just now?"""
        word, words = (error.reason, LOST) if isinstance(error, DeviceError) else (error.code, FORGOTTEN)
        before = self._reactivated_at
        rested = before is None or not 0 <= self._clock() - before < DENIED_PAUSE // 2
        return word in words and rested
