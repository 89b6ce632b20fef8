"""Is this machine a device, and still the one that enrolled?"""

import stat
from collections.abc import Iterator

from attestd.agent.doctor.check import Check, Unread
from attestd.agent.doctor.machine_readings import Place, StateReading
from attestd.agent.doctor.tpm_readings import TpmReading
from attestd.agent.errors import plain
from attestd.agent.state import Membership
from attestd.agent.trouble import LOST
from tpm.verify.device_id import device_identifier

_AGAIN = "run `attestd agent join URL` again"


def judge_state(place: Place | Unread) -> Iterator[Check]:
    """The directory of what is remembered."""
    name = "state"
    if isinstance(place, Unread):
        yield Check(name, "fail", plain(place.why), "run as its owner or as root, or name another --state")
    elif place.kind is None:
        yield Check(name, "ok", f"{place.path} is made when this machine joins")
    elif place.kind != "directory":
        yield Check(name, "fail", f"{place.path} is no directory", "move it away, or name another --state")
    elif place.mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Check(name, "fail", f"others may write into {place.path}", f"chmod 700 {place.path}")
    else:
        yield Check(name, "ok", f"{place.path}")


def judge_enrolment(state: StateReading, tpm: TpmReading | Unread, *, named: str | None) -> Iterator[Check]:
    """Enrolled where the settings say (`named`), as the device that this TPM is?"""
    name, membership = "enrolment", state.membership
    if isinstance(membership, Unread):
        fix = _AGAIN if membership.code == "misconfigured" else "run as the state's owner or as root"
        yield Check(name, "fail", plain(membership.why), fix)
        return
    if membership is None:
        yield Check(name, "warn", "this machine has joined no service", "run `attestd agent join URL`")
        return
    yield _membership(name, membership, tpm, named)


def _membership(name: str, membership: Membership, tpm: TpmReading | Unread, named: str | None) -> Check:
    device_id = membership.device_id
    said = f"{plain(membership.state)} at {plain(membership.server)} as {plain(device_id)}"
    if named is not None and named != membership.server:
        return Check(
            name, "fail", f"{said}, and {named} is named", "correct `server`, or name another --state"
        )
    if not isinstance(tpm, Unread) and not isinstance(tpm.endorsement, Unread):
        found = device_identifier(tpm.endorsement.public.public_key())
        if found != device_id:
            fix = "to make it a device of its own, move the state directory away and join again"
            return Check(name, "fail", f"{said}, but this TPM is the device {found}", fix)
    if membership.state == "pending":
        return Check(name, "warn", said, f"its operator: attestd device approve {plain(device_id)}")
    return Check(name, "ok", said)


def judge_ak(state: StateReading, tpm: TpmReading | Unread) -> Iterator[Check]:
    """Does this TPM still make the key that enrolled? Nothing is said before the enrolment."""
    name = "attestation key"
    if state.recipe is None:
        if isinstance(state.membership, Membership):
            yield Check(name, "fail", "its recipe is not in the state directory", _AGAIN)
        return
    if isinstance(state.recipe, Unread):
        yield Check(name, "fail", plain(state.recipe.why), "run as the state's owner or as root")
    elif isinstance(tpm, Unread):
        yield Check(name, "warn", "not tried: the TPM cannot be asked", "see tpm")
    elif isinstance(tpm.ak, Unread):
        fix = _AGAIN + ", or let the agent (reactivate = true)" if tpm.ak.code in LOST else "see tpm"
        yield Check(name, "fail", plain(tpm.ak.why), fix)
    elif tpm.ak is None:
        yield Check(name, "warn", "not tried: the machine was joining just now", "look again")
    else:
        yield Check(name, "ok", f"name {tpm.ak.hex()}")
