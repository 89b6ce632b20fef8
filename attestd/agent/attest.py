"""How does the device ask for credentials? It signs the request itself, together with its registers.

The quote's qualifying data is the SHA-256 of the request's exact bytes, so the TPM signs what is asked for,
for whom, and which keys it is to be bound to. A key in the TPM is made here, certified by the attestation
key, and proves itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.keys import CredentialKey, make_key
from attestd.agent.logs import Logs, boot_id
from attestd.agent.state import Membership
from attestd.agent.transport import Server
from attestd.wire import Problem, b64, b64encode
from tpm.device.connection import LoadedKey
from tpm.device.device import Device
from tpm.errors import AttestationError, DeviceError
from tpm.structures.pcrs import PcrSelection

ATTEMPTS = 3
"""Rounds before giving up where the service says to begin anew."""
NONCE_BYTES = 32
BOUND = frozenset({"x509-svid", "wit-svid", "client-attestation"})
"""The formats of credentials that are bound to a key."""

NO_LOGS = Logs()

_ANEW = frozenset({"nonce_spent", "nonce_expired", "conflict", "log_needed"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for: credentials of one agent, and sealed keys by name. `key` is "tpm" or "software"."""

    agent: str | None
    formats: tuple[str, ...]
    key: str
    audiences: tuple[str, ...]
    seals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """The service's answer, and the key that its SVIDs are bound to (None where there is none)."""

    answer: Mapping[str, Any]
    key: CredentialKey | None


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the service wants to see: registers of the first bank that there is, under this nonce (base64)."""

    nonce: str
    selections: tuple[PcrSelection, ...]
    event_log: bool
    ima_log: bool


def attest(
    device: Device,
    server: Server,
    membership: Membership,
    *,
    recipe: bytes,
    wanted: Wanted,
    logs: Logs = NO_LOGS,
) -> Received:
    """One accepted attestation. Refusal, Unreachable or DeviceError. Logs are sent where the service asks
    for them."""
    key = make_key(device, wanted.key) if BOUND & set(wanted.formats) else None
    bank: str | None = None
    for attempt in range(1, ATTEMPTS + 1):
        challenge = read_challenge(server.post("/v1/challenges", {"device_id": membership.device_id}))
        selection = choose_selection(challenge, device.banks(), bank)
        with device.ak(recipe) as ak:
            parent = _storage_name(device) if wanted.seals else None
            known = logs.known()
            asked = _request(challenge, server, membership, wanted, key=key, parent=parent)
            request = _signed(asked, ima_from=known.ima_next if challenge.ima_log else 0)
            body = _evidence(device, ak, request, selection, key, with_parent=parent is not None)
        body |= logs.members(known, event_log=challenge.event_log, ima_log=challenge.ima_log)
        try:
            answer = server.post("/v1/attestations", body)
        except Refusal as refusal:
            if refusal.code == "log_needed":
                logs.forget()
            bank = _expected_bank(refusal)
            if attempt == ATTEMPTS or not (bank or refusal.code in _ANEW):
                raise
        else:
            logs.remember(answer)
            return Received(answer, key)
    raise AssertionError("the last attempt returns or raises")


def read_challenge(answer: Mapping[str, Any]) -> Challenge:
    """Unreachable for anything but a nonce of its one length and selections that a TPM can quote."""
    try:
        if len(b64(answer["nonce"], "nonce")) != NONCE_BYTES:
            raise ValueError("a nonce of another length")
        offered = tuple(PcrSelection.of(each["bank"], each["pcrs"]) for each in answer["pcr_selection"])
        if not all(registers for selection in offered for _, registers in selection.banks):
            raise ValueError("a selection of nothing")
    except (KeyError, TypeError, ValueError, AttributeError, Problem, AttestationError):
        raise Unreachable("the server's challenge cannot be read; is it attestd, in this version?") from None
    return Challenge(answer["nonce"], offered, answer.get("event_log") is True, answer.get("ima_log") is True)


def choose_selection(challenge: Challenge, banks: tuple[str, ...], wanted: str | None) -> PcrSelection:
    """The registers to quote: of the bank that the service asked for again, else of the first that this TPM
    has."""
    offered = {bank: selection for selection in challenge.selections for bank, _ in selection.banks}
    for bank, selection in offered.items():
        if bank == (wanted or bank) and bank in banks:
            return selection
    asked, have = ", ".join(offered) or "none", ", ".join(banks) or "none"
    raise DeviceError(
        "bank_missing",
        f"the service asks for the banks {asked}; this TPM has {have}; enable one in the firmware",
    )


def _request(
    challenge: Challenge,
    server: Server,
    membership: Membership,
    wanted: Wanted,
    *,
    key: CredentialKey | None,
    parent: bytes | None,
) -> dict[str, Any]:
    """What is asked for, as the TPM is to sign it."""
    credentials = []
    for form in wanted.formats:
        bearer = form == "jwt-svid"
        binding: dict[str, Any] = (
            {"audience": list(wanted.audiences)} if bearer else {"key": key and key.told}
        )
        credentials.append({"format": form, "agent": wanted.agent} | binding)
    return {
        "v": 1,
        "purpose": "attest",
        "server": server.url,
        "nonce": challenge.nonce,
        "device_id": membership.device_id,
        "boot_id": boot_id(),
        "credentials": credentials,
        "sealed_keys": [{"name": name, "parent": {"name": parent.hex()}} for name in wanted.seals if parent],
    }


def _signed(asked: dict[str, Any], *, ima_from: int) -> bytes:
    """The bytes that the TPM signs."""
    members = asked | ({"ima_from": ima_from} if ima_from else {})
    return json.dumps(members, separators=(",", ":")).encode()


def _evidence(
    device: Device,
    ak: LoadedKey,
    request: bytes,
    selection: PcrSelection,
    key: CredentialKey | None,
    *,
    with_parent: bool,
) -> dict[str, Any]:
    """The body: the request, the quote over it, and what the attestation key says of the keys it names."""
    digest = hashlib.sha256(request).digest()
    quote = device.quote(ak, selection, digest)
    certified, proofs = [], []
    if key is not None and key.blob is not None:
        with device.key(key.blob) as loaded:
            certified.append(device.certify(loaded, ak, digest))
            proofs.append(b64encode(device.sign(loaded, request)))
    if with_parent:
        with device.storage_key() as parent:
            certified.append(device.certify(parent, ak, digest))
    return {
        "request": b64encode(request),
        "quote": {"attest": b64encode(quote.attest), "signature": b64encode(quote.signature)},
        "pcrs": {
            bank: {str(register): value.hex() for register, value in values.items()}
            for bank, values in quote.pcrs.items()
        },
        "certified": [
            {
                "public": b64encode(each.public),
                "attest": b64encode(each.attest),
                "signature": b64encode(each.signature),
            }
            for each in certified
        ],
        "proofs": proofs,
    }


def _storage_name(device: Device) -> bytes:
    with device.storage_key() as parent:
        return parent.name


def _expected_bank(refusal: Refusal) -> str | None:
    """The bank that the device's policy uses, where the service says that another one was quoted."""
    findings = refusal.problem.get("findings")
    for finding in findings if isinstance(findings, list) else []:
        if isinstance(finding, dict) and finding.get("code") == "bank_missing":
            expected = finding.get("expected")
            if isinstance(expected, list) and expected and isinstance(expected[0], str):
                return expected[0]
    return None
