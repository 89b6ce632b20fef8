"""How can an attestation go wrong, and who must act?

Each class names who has to do something; `reason` is the snake_case word for what happened, which audit
records and tests rely on; `detail` is a sentence for people.
"""


class AttestationError(Exception):
    """Base of all: one word for what happened and one sentence that says what was expected and found."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail or reason


class StructureError(AttestationError):
    """The sender built it wrong: the bytes are not the structure that they should be."""


class NoncanonicalError(StructureError):
    """The bytes can be read but are not the one encoding of what they say; trailing bytes are the plainest
    case."""


class EvidenceError(AttestationError):
    """The evidence claims what is not so."""


class PolicyError(AttestationError):
    """A document of ours is unusable; its author must act."""


class DeviceError(AttestationError):
    """The local TPM refused, or is not there; the machine's operator must act."""
