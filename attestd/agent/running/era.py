"""Is what the service gave this machine before still good, or has the machine started anew since?

By the TPM's own counters in each accepted quote. A service that sees them move (a boot, or a resume from
hibernation) ends all that it gave before, and so it does when it refuses the machine.
"""


class Era:
    """Counts how often what was given before came to its end. One thread writes it, any may read `number`."""

    def __init__(self) -> None:
        self.number = 0
        self._boot: tuple[int, int] | None = None

    def saw(self, boot: tuple[int, int]) -> None:
        """The TPM's counters of resets and restarts in an attestation that was accepted."""
        if self._boot not in (None, boot):
            self.number += 1
        self._boot = boot

    def ended(self) -> None:
        """The service refused this machine meanwhile."""
        self.number += 1
