"""Does the verifier believe a TPM that tells the truth, with the keys where it put them?

swtpm, spoken to by tpm2-pytss alone, so that nothing of ours is on the TPM's side.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tpm2_pytss import ESAPI, TCTILdr
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE
from tpm2_pytss.types import (
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
)

from tests.tpm import forge
from tpm.errors import EvidenceError
from tpm.structures.algorithms import SHA256, SHA384, Hash
from tpm.structures.attest import parse_certification, parse_quote
from tpm.structures.public import PublicArea, parse_public, qualified_name
from tpm.structures.signature import parse_signature
from tpm.swtpm import SoftwareTpm
from tpm.verify.certified import VerifiedKey, verify_certified_key, verify_key_proof
from tpm.verify.continuity import Baseline, judge_continuity
from tpm.verify.keys import accept_attestation_key, expected_signers
from tpm.verify.pcrs import verify_pcrs
from tpm.verify.quote import VerifiedQuote, verify_quote
from tpm.verify.templates import match_ek_template

POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK = bytes.fromhex("0023000b000300b20020") + POLICY_A + bytes.fromhex("00060080004300100003001000000000")
SRK = bytes.fromhex("0023000b0003047200000006008000430010000300100000" + "0000")
Loaded = tuple[Any, PublicArea]
OWN_SCHEME = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)


def key_template(attributes: int, scheme: str, hash: str = "sha256") -> bytes:
    """A template for TPM2_Create: an RSA-2048 or P-256 key with nothing in `unique`."""
    kind = 0x0023 if scheme == "ecdsa" else 0x0001
    head = (
        kind.to_bytes(2, "big")
        + bytes.fromhex("000b")
        + attributes.to_bytes(4, "big")
        + bytes(2)
        + forge.NULL
    )
    tail = bytes.fromhex("0003001000000000") if scheme == "ecdsa" else bytes.fromhex("0800000000000000")
    return head + forge.signing_scheme(scheme, hash) + tail


def sized_template(raw: bytes) -> TPM2B_PUBLIC:
    return TPM2B_PUBLIC(publicArea=TPMT_PUBLIC.unmarshal(raw)[0])


@dataclass
class Tpm:
    """The few commands that this needs; whatever is created is flushed."""

    esapi: ESAPI

    @contextmanager
    def primary(
        self, template: bytes, hierarchy: int = ESYS_TR.ENDORSEMENT
    ) -> Iterator[tuple[Any, PublicArea]]:
        handle, public, *_ = self.esapi.create_primary(
            TPM2B_SENSITIVE_CREATE(), sized_template(template), hierarchy
        )
        with self.flushed(handle):
            yield handle, parse_public(public.publicArea.marshal())

    @contextmanager
    def child(self, parent: Any, template: bytes, *, endorsed: bool) -> Iterator[Loaded]:
        with self.authorised(endorsed) as session:
            private, public, *_ = self.esapi.create(
                parent, TPM2B_SENSITIVE_CREATE(), sized_template(template), session1=session
            )
        with self.authorised(endorsed) as session:
            handle = self.esapi.load(parent, private, public, session1=session)
        with self.flushed(handle):
            yield handle, parse_public(public.publicArea.marshal())

    @contextmanager
    def authorised(self, endorsed: bool) -> Iterator[Any]:
        """How a parent is used: the EK by the hierarchy's policy, others by their empty password."""
        if not endorsed:
            yield ESYS_TR.PASSWORD
            return
        session = self.esapi.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
        )
        with self.flushed(session):
            self.esapi.policy_secret(ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
            yield session

    @contextmanager
    def flushed(self, handle: Any) -> Iterator[None]:
        try:
            yield
        finally:
            self.esapi.flush_context(handle)

    def quote(self, ak: Any, selection: str) -> tuple[bytes, bytes]:
        quoted, signature = self.esapi.quote(ak, TPML_PCR_SELECTION.parse(selection), forge.NONCE, OWN_SCHEME)
        return bytes(quoted.attestationData), signature.marshal()

    def certify(self, key: Any, ak: Any) -> tuple[bytes, bytes]:
        statement, signature = self.esapi.certify(key, ak, forge.NONCE, OWN_SCHEME)
        return bytes(statement.attestationData), signature.marshal()

    def registers(self, selection: str) -> dict[str, dict[int, bytes]]:
        bank, pcrs = selection.split(":")
        wanted = [int(pcr) for pcr in pcrs.split(",")]
        values = {}
        for pcr in wanted:
            _, _, digests = self.esapi.pcr_read(TPML_PCR_SELECTION.parse(f"{bank}:{pcr}"))
            values[pcr] = bytes(digests[0])
        return {bank: values}


@pytest.fixture
def real(shared_tpm: SoftwareTpm) -> Iterator[Tpm]:
    with TCTILdr(*shared_tpm.tcti.split(":", 1)) as tcti, ESAPI(tcti) as esapi:
        yield Tpm(esapi)


def verified(raw: tuple[bytes, bytes], ak: PublicArea, ek: PublicArea) -> VerifiedQuote:
    key = accept_attestation_key(ak)
    return verify_quote(
        parse_quote(raw[0]),
        parse_signature(raw[1]),
        ak=key,
        expected_extra_data=forge.NONCE,
        expected_signers=expected_signers(key, ek),
    )


def certified(raw: tuple[bytes, bytes], key: PublicArea, ak: PublicArea, ek: PublicArea) -> VerifiedKey:
    attesting = accept_attestation_key(ak)
    return verify_certified_key(
        parse_certification(raw[0]),
        parse_signature(raw[1]),
        key,
        ak=attesting,
        expected_extra_data=forge.NONCE,
        expected_signers=expected_signers(attesting, ek),
    )


AKS = [("ecdsa", SHA256), ("ecdsa", SHA384), ("rsassa", SHA256), ("rsapss", SHA256), ("rsapss", SHA384)]


@pytest.mark.parametrize(("scheme", "hash"), AKS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("selection", ["sha256:0,7,23", "sha384:0,1,2,3,4,5,6,7"])
def test_a_primary_and_a_child_of_the_endorsement_key_are_believed(
    real: Tpm, scheme: str, hash: Hash, selection: str
) -> None:
    template = key_template(forge.AK, scheme, hash.name)
    values = real.registers(selection)
    with real.primary(EK) as (ek_handle, ek):
        assert match_ek_template(ek) == "L-2"
        with real.child(ek_handle, template, endorsed=True) as (ak, public):
            child = verified(real.quote(ak, selection), public, ek)
        with real.primary(template) as (ak, public):
            primary = verified(real.quote(ak, selection), public, ek)
    for quote in (child, primary):
        held = verify_pcrs(quote, values, hash=hash)
        assert {held.bank: dict(held.values)} == values


def test_keys_of_the_owners_hierarchy_are_genuine_and_not_believed(real: Tpm) -> None:
    """They could be of any parent; their counters are obfuscated."""
    template = key_template(forge.AK, "ecdsa")
    with real.primary(EK) as (_, ek):
        pass
    with real.primary(template, ESYS_TR.OWNER) as (ak, public):
        raw = real.quote(ak, "sha256:0")
        assert parse_quote(raw[0]).qualified_signer == qualified_name(bytes.fromhex("40000001"), public.name)
        with pytest.raises(EvidenceError) as refusal:
            verified(raw, public, ek)
    assert refusal.value.reason == "qualified_signer"


def test_a_child_of_another_endorsement_key_is_not_believed(real: Tpm) -> None:
    template = key_template(forge.AK, "ecdsa")
    with real.primary(EK) as (ek_handle, ek), real.child(ek_handle, template, endorsed=True) as (ak, public):
        raw = real.quote(ak, "sha256:0")
        verified(raw, public, ek)
        other = parse_public(forge.public_area(forge.private_key("p256", 5), attributes=forge.EK_LOW))
        with pytest.raises(EvidenceError) as refusal:
            verified(raw, public, replace(ek, raw=other.raw))
    assert refusal.value.reason == "qualified_signer"


@pytest.mark.parametrize(("scheme", "alg"), [("ecdsa", "ES256"), ("rsapss", "PS256")])
def test_a_key_born_in_the_tpm_is_certified_and_proves_itself(real: Tpm, scheme: str, alg: str) -> None:
    with (
        real.primary(key_template(forge.AK, "ecdsa")) as (ak, ak_public),
        real.primary(SRK, ESYS_TR.OWNER) as (parent, parent_public),
    ):
        storage = certified(real.certify(parent, ak), parent_public, ak_public, ek=ak_public)
        assert (storage.role, storage.alg) == ("parent", None)
        with real.child(parent, key_template(forge.CREDENTIAL, scheme), endorsed=False) as (handle, public):
            key = certified(real.certify(handle, ak), public, ak_public, ek=ak_public)
            proof = signed(real, handle, b"the request")
    assert (key.role, key.alg, key.public) == ("signing", alg, public)
    verify_key_proof(key, proof, message=b"the request")
    with pytest.raises(EvidenceError):
        verify_key_proof(key, proof, message=b"another request")


def signed(real: Tpm, handle: Any, message: bytes) -> bytes:
    """A JWS signature value out of the TPM's signature."""
    digest, ticket = real.esapi.hash(message, TPM2_ALG.SHA256, ESYS_TR.OWNER)
    signature = parse_signature(real.esapi.sign(handle, digest, OWN_SCHEME, ticket).marshal())
    if signature.scheme == "ecdsa":
        return signature.r.to_bytes(32, "big") + signature.s.to_bytes(32, "big")
    return signature.value


def baseline_of(quote: VerifiedQuote, boot_id: str) -> Baseline:
    clock = quote.quote.clock
    return Baseline(
        clock.reset_count,
        clock.restart_count,
        clock.clock,
        quote.quote.firmware_version,
        boot_id,
        clock.safe,
    )


def test_a_power_cycle_is_a_reset_and_older_evidence_is_seen(software_tpm: SoftwareTpm) -> None:
    def quoted() -> VerifiedQuote:
        with TCTILdr(*software_tpm.tcti.split(":", 1)) as tcti, ESAPI(tcti) as esapi:
            real = Tpm(esapi)
            with real.primary(key_template(forge.AK, "ecdsa")) as (ak, public):
                return verified(real.quote(ak, "sha256:0"), public, ek=public)

    first, later = quoted(), quoted()
    software_tpm.reset()
    after = quoted()
    baseline = baseline_of(later, "boot-a")
    judge: Callable[..., Any] = judge_continuity
    assert judge(baseline_of(first, "boot-a"), later, "boot-a").kind == "same_boot"
    assert judge(baseline, after, "boot-b").kind == "reset"
    assert not judge(baseline, after, "boot-a").explained
    assert judge(baseline_of(after, "boot-b"), later, "boot-a").kind == "rollback"
    assert first.quote.clock.clock < later.quote.clock.clock
    assert judge(baseline, first, "boot-a").kind == "stale"
