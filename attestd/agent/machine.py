"""Who uses this machine's TPM, and one at a time?

What proves and what attests shares one TPM with every other thread and process of this machine's agent.
Nothing stays open between two uses: other programs of this machine have their turn.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from attestd.agent.attest import Part, Received, Wanted, attest
from attestd.agent.keys import public_jwk
from attestd.agent.lock import TURN_SECONDS, tpm_turn
from attestd.agent.logs import OWN, LogFiles, Logs
from attestd.agent.state import State
from attestd.agent.transport import Server
from tpm.device.device import Device
from tpm.device.keys import KeyBlob


@contextmanager
def opened(tcti: str, directory: Path | None = None, *, patience: float = TURN_SECONDS) -> Iterator[Device]:
    """The TPM, for one thread at a time of all processes with this state directory (without one, of this
    process); closed again at the end. What a process left that died at it is flushed first. DeviceError, also
    when the turn does not come within `patience` seconds."""
    with tpm_turn(directory, patience=patience) as turn, Device(tcti) as device:
        if turn.orphaned:
            device.flush_leavings()
        try:
            yield device
        finally:
            turn.clean = True


@dataclass(frozen=True, slots=True)
class ResidentKey:
    """A P-256 key (ES256) that lives in this TPM and signs nowhere else. `directory` is the state directory,
    whose lock says whose turn it is."""

    tcti: str
    blob: KeyBlob
    directory: Path | None = None

    @property
    def jwk(self) -> Mapping[str, str]:
        """The public key, with exactly the members of its type (RFC 7518, section 6.2.1)."""
        return public_jwk(self.blob)

    def sign(self, message: bytes) -> bytes:
        """The JWS signature value; DeviceError when the TPM refuses."""
        with opened(self.tcti, self.directory) as device, device.key(self.blob) as loaded:
            return device.sign(loaded, message)


def _unheard(boot: tuple[int, int]) -> None:
    """For who attests once."""


@dataclass(frozen=True, slots=True)
class Machine:
    """This device, enrolled: its TPM as tpm2-tools name it, what it remembers, and its service. `accepted` is
    told the TPM's counters of resets and restarts in each attestation that was accepted."""

    tcti: str
    state: State
    server: Server
    files: LogFiles = OWN
    accepted: Callable[[tuple[int, int]], None] = _unheard

    @classmethod
    def enrolled(cls, tcti: str, directory: Path, *, ca: Path | None = None, files: LogFiles = OWN) -> Self:
        """The machine as it enrolled: `directory` is where `attestd agent join` keeps its state, `ca` the
        only authority trusted if given, else the one kept when it joined, `files` are its logs. NotEnrolled,
        or Misconfigured for a damaged state."""
        state = State(directory)
        membership, _ = state.enrolment()
        return cls(tcti, state, Server(membership.server, ca or state.ca()), files)

    @property
    def trust_domain(self) -> str | None:
        """The one that it is of; None before its first accepted attestation."""
        membership = self.state.membership()
        return None if membership is None else membership.trust_domain

    def attest(self, *wanted: Wanted) -> Received:
        """One accepted attestation for all of them; errors as for `attestd.agent.attest.attest`, and
        NotEnrolled."""
        membership, recipe = self.state.enrolment()
        tpm, logs = partial(opened, self.tcti, self.state.directory), Logs(self.files, self.state)
        received = attest(tpm, self.server, membership, recipe=recipe, wanted=wanted, logs=logs)
        self.accepted(received.boot)
        return received

    def key(self, part: Part) -> ResidentKey:
        """The key that what was received is bound to; it must live in the TPM."""
        if part.key is None or part.key.blob is None:
            raise ValueError("the credential is not bound to a key of this TPM")
        return ResidentKey(self.tcti, part.key.blob, self.state.directory)
