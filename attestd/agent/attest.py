"""How does the device ask for credentials? It signs the request itself, together with its registers.

The quote's qualifying data is the SHA-256 of the request's exact bytes, so the TPM signs what is asked for,
for whom, and which keys it is to be bound to. A key in the TPM is made here, certified by the attestation
key, and proves itself.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from attestd.agent.errors import Refusal, Unreachable, plain
from attestd.agent.keys import CredentialKey, make_key
from attestd.agent.logs import Known, Logs, boot_id
from attestd.agent.state import Membership
from attestd.agent.transport import Server
from attestd.wire import Problem, b64, b64encode
from tpm.device.connection import LoadedKey
from tpm.device.device import Device
from tpm.errors import AttestationError, DeviceError
from tpm.structures.attest import parse_quote
from tpm.structures.pcrs import PcrSelection

ATTEMPTS = 3
"""Rounds before giving up where the service says to begin anew."""
ROUND_SECONDS = 300.0
"""For all that a round asks of the service: the next one is planned only when it is over."""
NONCE_BYTES = 32
BOUND = frozenset({"x509-svid", "wit-svid", "client-attestation"})
"""The formats of credentials that are bound to a key."""

NO_LOGS = Logs()

_ANEW = frozenset({"nonce_spent", "nonce_expired", "conflict", "log_needed"})
# What a shortened log may be refused by, should what was remembered of it be wrong.
_DOUBTFUL = frozenset({"malformed", "evidence_incomplete"})

Tpm = Callable[[], AbstractContextManager[Device]]
"""Opens this machine's TPM for one turn."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for one agent: credentials, and sealed keys by name. `key` is "tpm" or "software"."""

    agent: str | None
    formats: tuple[str, ...]
    key: str
    audiences: tuple[str, ...]
    seals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What one agent was given, as the service wrote it: its credentials in the order of the formats, its
    sealed keys in the order of their names, and the key that its SVIDs are bound to (None where there is
    none)."""

    wanted: Wanted
    credentials: tuple[Mapping[str, Any], ...]
    sealed_keys: tuple[Mapping[str, Any], ...]
    key: CredentialKey | None


@dataclass(frozen=True, slots=True)
class Received:
    """The service's answer, and the part of it for each that was wanted, in that order. `boot`: the TPM's
    counters of resets and restarts, as they were quoted."""

    answer: Mapping[str, Any]
    parts: tuple[Part, ...]
    boot: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Ask:
    """One agent's wishes with the key that was made for them."""

    wanted: Wanted
    key: CredentialKey | None

    def credentials(self) -> list[dict[str, Any]]:
        told = None if self.key is None else self.key.told
        return [
            {"format": form, "agent": self.wanted.agent}
            | ({"key": told} if form in BOUND else {"audience": list(self.wanted.audiences)})
            for form in self.wanted.formats
        ]


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the service wants to see: registers of the first bank that there is, under this nonce (base64)."""

    nonce: str
    selections: tuple[PcrSelection, ...]
    event_log: bool
    ima_log: bool


def attest(
    tpm: Tpm,
    server: Server,
    membership: Membership,
    *,
    recipe: bytes,
    wanted: Sequence[Wanted],
    logs: Logs = NO_LOGS,
) -> Received:
    """One accepted attestation, for several agents at once. Refusal, Unreachable or DeviceError. Logs are
    sent where the service asks for them. The TPM is others' to use while the network is waited for."""
    server, known = server.within(ROUND_SECONDS), logs.known()
    asks: list[_Ask] = []
    bank: str | None = None
    for attempt in range(1, ATTEMPTS + 1):
        challenge = read_challenge(server.post("/v1/challenges", {"device_id": membership.device_id}))
        with tpm() as device:
            asks = asks or [_Ask(each, _key_for(device, each)) for each in wanted]
            selection = choose_selection(challenge, device.banks(), bank)
            with device.ak(recipe) as ak:
                parent = _storage_name(device) if any(ask.wanted.seals for ask in asks) else None
                asked = _request(challenge, server, membership, asks, parent=parent)
                request = _signed(asked, ima_from=known.ima_next if challenge.ima_log else 0)
                body = _evidence(device, ak, request, selection, asks, with_parent=parent is not None)
        body |= logs.members(known, event_log=challenge.event_log, ima_log=challenge.ima_log)
        try:
            answer = server.post("/v1/attestations", body)
        except Refusal as refusal:
            doubted = refusal.code in _DOUBTFUL and _rests_on(known, challenge, body)
            if doubted or refusal.code == "log_needed":
                logs.forget()
                known = Known()
            bank = _expected_bank(refusal)
            if attempt == ATTEMPTS or not (bank or doubted or refusal.code in _ANEW):
                raise
        else:
            received = Received(answer, _parts(answer, asks), _boot(body))
            logs.remember(answer)
            return received
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


def _key_for(device: Device, wanted: Wanted) -> CredentialKey | None:
    return make_key(device, wanted.key) if BOUND & set(wanted.formats) else None


def _rests_on(known: Known, challenge: Challenge, body: Mapping[str, Any]) -> bool:
    """Was a log left out of this body, or its beginning, because of what was remembered?"""
    return isinstance(body.get("event_log"), dict) or (challenge.ima_log and known.ima_next > 0)


def _request(
    challenge: Challenge,
    server: Server,
    membership: Membership,
    asks: Sequence[_Ask],
    *,
    parent: bytes | None,
) -> dict[str, Any]:
    """What is asked for, as the TPM is to sign it."""
    seals = [name for ask in asks for name in ask.wanted.seals]
    return {
        "v": 1,
        "purpose": "attest",
        "server": server.url,
        "nonce": challenge.nonce,
        "device_id": membership.device_id,
        "boot_id": boot_id(),
        "credentials": [credential for ask in asks for credential in ask.credentials()],
        "sealed_keys": [{"name": name, "parent": {"name": parent.hex()}} for name in seals if parent],
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
    asks: Sequence[_Ask],
    *,
    with_parent: bool,
) -> dict[str, Any]:
    """The body: the request, the quote over it, and what the attestation key says of the keys it names."""
    digest = hashlib.sha256(request).digest()
    quote = device.quote(ak, selection, digest)
    certified, proofs = [], []
    for blob in [ask.key.blob for ask in asks if ask.key is not None and ask.key.blob is not None]:
        with device.key(blob) as loaded:
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


def _parts(answer: Mapping[str, Any], asks: Sequence[_Ask]) -> tuple[Part, ...]:
    """The answer by agent. Unreachable unless it holds what was asked for and nothing else, in that order:
    no name of a file is the server's choice."""
    try:
        credentials, sealed_keys = list(answer["credentials"]), list(answer["sealed_keys"])
        told = [(each["agent"], each["format"]) for each in credentials]
        if told != [(ask.wanted.agent, form) for ask in asks for form in ask.wanted.formats]:
            raise ValueError("other credentials than were asked for")
        if [each["name"] for each in sealed_keys] != [name for ask in asks for name in ask.wanted.seals]:
            raise ValueError("other sealed keys than were asked for")
    except (LookupError, TypeError, ValueError) as error:
        raise Unreachable(
            f"the server's answer cannot be read ({plain(error)}); is it attestd, in this version?"
        ) from None
    rest, kept = iter(credentials), iter(sealed_keys)
    return tuple(
        Part(
            ask.wanted,
            tuple(islice(rest, len(ask.wanted.formats))),
            tuple(islice(kept, len(ask.wanted.seals))),
            ask.key,
        )
        for ask in asks
    )


def _boot(body: Mapping[str, Any]) -> tuple[int, int]:
    clock = parse_quote(b64(body["quote"]["attest"], "attest")).clock
    return clock.reset_count, clock.restart_count


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
