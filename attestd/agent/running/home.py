"""Which device of which service is this machine, and what if it is none any more?

Enrolling is done by itself where the operator named a service; enrolling anew where the TPM's own key is
gone or the service has forgotten it, and only as the same device: another TPM is another device, which an
operator decides about.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Self

from attestd.agent.enroll import enroll
from attestd.agent.errors import Misconfigured, NotEnrolled
from attestd.agent.logs import OWN, LogFiles
from attestd.agent.machine import Machine, opened
from attestd.agent.running.era import Era
from attestd.agent.state import Membership, State
from attestd.agent.transport import Server
from attestd.agent.trouble import AnotherTpm
from tpm.verify.device_id import device_identifier


@dataclass(frozen=True, slots=True)
class Home:
    """Where this machine's agent lives: its TPM, its state, its logs, and how it reaches a service by its
    URL (Misconfigured where it may not). `era` is told what its attestations show."""

    tcti: str
    state: State
    connect: Callable[[str], Server]
    files: LogFiles = OWN
    era: Era = field(default_factory=Era)

    def within(self, seconds: float) -> Self:
        """The same, where all that is asked of a service is over after so many seconds from now."""
        end = time.monotonic() + seconds
        return replace(self, connect=lambda url: self.connect(url).ending(end))

    def machine(self, named: str | None) -> Machine:
        """The machine as it is enrolled. NotEnrolled, or Misconfigured when `named`, the service that the
        operator set, is another one."""
        membership, _ = self.state.enrolment()
        _check_named(named, membership)
        return Machine(self.tcti, self.state, self.connect(membership.server), self.files, self.era.saw)

    def enrolled(self, named: str | None) -> Machine:
        """The same, after enrolling there where that has not been done, or anew where only the attestation
        key is lost. Refusal, Unreachable, DeviceError or AnotherTpm."""
        try:
            return self.machine(named)
        except NotEnrolled:
            membership = self.state.membership()
            if membership is None and named is None:
                raise
        if membership is not None:
            _check_named(named, membership)
            self.reactivate()
        elif named is not None:
            with opened(self.tcti, self.state.directory) as device:
                enroll(device, self.connect(named), self.state)
        return self.machine(named)

    def reactivate(self) -> Membership:
        """Enrol anew as the device that this machine is. AnotherTpm when its TPM is not that device's; the
        service is not asked then."""
        membership = self.state.membership()
        if membership is None:
            raise NotEnrolled(f"{self.state.directory} has no enrolment")
        with opened(self.tcti, self.state.directory) as device:
            found = device_identifier(device.endorsement().public.public_key())
            if found != membership.device_id:
                raise AnotherTpm(
                    f"this TPM is the device {found}, not {membership.device_id} that enrolled here; "
                    "run `attestd agent join` to make it a device of its own"
                )
            return enroll(device, self.connect(membership.server), self.state)

    def admitted(self, trust_domain: str) -> None:
        """Remember that the service takes this machine for an active device of this trust domain, the first
        time for good."""
        membership = self.state.membership()
        if membership is None:
            return
        told = replace(membership, state="active", trust_domain=membership.trust_domain or trust_domain)
        if told != membership:
            with suppress(OSError):  # On a full disk the accepted round counts all the same.
                self.state.keep_membership(told)


def _check_named(named: str | None, membership: Membership) -> None:
    if named is not None and named != membership.server:
        raise Misconfigured(
            f"this machine is enrolled at {membership.server}, the settings name {named}; correct them, "
            "or name another state directory"
        )
