"""Is this service weakened in a way that others could use?

What helps on a desk or in a test must not reach production unnoticed: every such mode is named where
operators look, and a root that vouches for software TPMs keeps a service from starting where others can
reach it.
"""

from collections.abc import Iterable

from attestd.config import Config
from tpm.errors import PolicyError
from tpm.verify.certificate import Certificate

_EMULATOR = "swtpm"


def emulators_of(roots: Iterable[Certificate]) -> tuple[Certificate, ...]:
    """The roots that call themselves a software TPM's, as those of `attestd swtpm` and `swtpm_setup` do.

    A root made for a software TPM under another name is not found; who trusts it has been told what it is.
    """
    return tuple(root for root in roots if _EMULATOR in root.title.lower())


def unsafe_modes(config: Config, roots: Iterable[Certificate]) -> tuple[str, ...]:
    """Everything in use that weakens who becomes a device: switches, and roots of software TPMs."""
    return (*config.unsafe_modes(), *(["emulated_tpms"] if emulators_of(roots) else []))


def refuse_exposed_emulators(config: Config, roots: Iterable[Certificate]) -> None:
    """PolicyError `emulator_exposed` if software TPMs are trusted where other machines can connect."""
    found = emulators_of(roots)
    if found and config.exposed:
        raise PolicyError(
            "emulator_exposed",
            f"{found[0].title} vouches for software TPMs, which prove nothing, and others can reach "
            f"{config.listen}; `attestd ek-roots remove {found[0].sha256[:16]}`, or listen on 127.0.0.1",
        )
