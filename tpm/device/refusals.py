"""What does the TPM's refusal mean for the person who runs the machine?

tpm2-pytss raises numbers; here they become one word for programs and one sentence with a next step for
people.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tpm2_pytss.TSS2_Exception import TSS2_Exception

from tpm.errors import DeviceError

_LAYER = 0xFFFF0000
# The TPM's own answers come as they are, or through a resource manager that puts its layer in front.
_FROM_TPM = (0x00000000, 0x000B0000, 0x000C0000)
_TCTI = 0x000A0000

# Part 2, 6.6.3. Format one errors (bit 7) come with the number of a handle, parameter or session,
# stripped here.
_MEANING = {
    0x100: ("tpm_not_started", "the TPM waits for TPM2_Startup; restart the machine"),
    0x101: ("tpm_failed", "the TPM is in failure mode; power the machine off and on"),
    0x120: (
        "hierarchy_disabled",
        "the firmware has disabled this hierarchy; enable it in the firmware's set-up",
    ),
    0x128: ("pcr_changed", "a register moved while the policy session was open; try again"),
    0x12F: ("policy_needed", "the object opens by its policy only, not by a password"),
    0x143: ("tpm_unsupported", "this TPM does not know the command"),
    0x082: ("tpm_unsupported", "this TPM lacks the attributes that are needed"),
    0x084: ("tpm_refused", "a value is out of range or not what the object demands"),
    0x085: ("hierarchy_disabled", "the hierarchy is disabled; enable it in the firmware's set-up"),
    0x083: ("tpm_unsupported", "this TPM lacks the hash algorithm"),
    0x08A: ("tpm_unsupported", "this TPM lacks the type of object"),
    0x08B: ("tpm_no_object", "there is no such object or index in the TPM"),
    0x08E: (
        "auth_needed",
        "an authorization value is set that this program does not know; it uses empty ones",
    ),
    0x092: ("tpm_unsupported", "this TPM lacks the signing or encryption scheme"),
    0x09D: (
        "policy_failed",
        "the policy that guards the object is not satisfied: the machine booted something else",
    ),
    0x09F: ("wrong_parent", "the object was made for another parent or another TPM, or is damaged"),
    0x0A2: (
        "auth_needed",
        "an authorization value is set that this program does not know; it uses empty ones",
    ),
    0x0A6: ("tpm_unsupported", "this TPM lacks the curve"),
    0x902: ("tpm_full", "no room for another object; use the resource manager (device:/dev/tpmrm0)"),
    0x903: ("tpm_full", "no room for another session; use the resource manager (device:/dev/tpmrm0)"),
    0x904: ("tpm_full", "the TPM is out of memory; use the resource manager (device:/dev/tpmrm0)"),
    0x905: ("tpm_full", "no session handle is free; use the resource manager (device:/dev/tpmrm0)"),
    0x908: ("tpm_busy", "the TPM has no time to answer now; try again"),
    0x920: ("tpm_busy", "the TPM limits writes to protect its memory; try again in a minute"),
    0x921: (
        "tpm_lockout",
        "the TPM is locked after wrong passwords; wait, or clear the lockout with its owner",
    ),
    0x922: ("tpm_busy", "the TPM was not ready; try again"),
    0x923: ("tpm_failed", "the TPM's memory is unavailable; power the machine off and on"),
}


@contextmanager
def explained(action: str) -> Iterator[None]:
    """Translate what tpm2-pytss raises inside into DeviceError; `action` completes "the TPM did not …"."""
    try:
        yield
    except TSS2_Exception as error:
        raise device_error(action, int(error.rc), str(error)) from error
    except (IndexError, ValueError) as error:
        # What tpm2-pytss cannot even put into the library's structures: longer than a TPM takes.
        raise DeviceError(
            "tpm_refused", f"The TPM did not {action}: it cannot be asked so ({error})."
        ) from error


def device_error(action: str, code: int, text: str) -> DeviceError:
    """The word and sentence for a TSS2 response code; `text` is the library's own description of it."""
    layer, number = code & _LAYER, code & 0xFFFF
    if layer == _TCTI:
        return DeviceError(
            "tpm_unreachable",
            f"The TPM did not {action}: no answer ({text}). Does the device exist, and may this user open it "
            "(group tss)?",
        )
    if layer in _FROM_TPM:
        stripped = number & 0x0BF if number & 0x080 else number
        reason, meaning = _MEANING.get(stripped, ("tpm_refused", text))
        return DeviceError(reason, f"The TPM did not {action}: {meaning} ({code:#x}).")
    return DeviceError("tpm_refused", f"The TPM did not {action}: {text} ({code:#x}).")
