"""What did a program that was killed leave in the TPM?

Behind a resource manager nothing: it flushes when the program is gone, and shows nobody else's. Without one,
objects and sessions stay until somebody flushes them, and there are three slots.
"""

from contextlib import suppress

from tpm2_pytss.TSS2_Exception import TSS2_Exception

from tpm.device.connection import Connection
from tpm.errors import DeviceError

_TRANSIENT = (0x80000000, 0x80FFFFFF)
_SESSIONS = (0x02000000, 0x03FFFFFF)


def leavings(tpm: Connection) -> tuple[int, ...]:
    """The handles of every transient object and session that is to be seen."""
    return tuple(handle for first, last in (_TRANSIENT, _SESSIONS) for handle in tpm.handles(first, last))


def flush_leavings(tpm: Connection) -> int:
    """Flush every transient object and session that is to be seen; returns how many went. Only for who knows
    that nobody else is at the TPM now."""
    gone = 0
    for handle in leavings(tpm):
        # What cannot be flushed is not ours to worry about: the next command says what is wrong.
        with suppress(TSS2_Exception, DeviceError), tpm.known(handle) as known:
            tpm.esapi.flush_context(known)
            gone += 1
    return gone
