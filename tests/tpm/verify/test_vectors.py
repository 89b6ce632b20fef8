"""Do quotes of real TPMs verify, and are their published forgeries refused for the right reason?

Every vector under tests/vectors/quotes, attestations (their quotes; the logs belong elsewhere) and
adversarial/*quote*, each against what its expected.json says.
"""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.tpm.vectors import Vector, vectors
from tpm.errors import AttestationError, EvidenceError
from tpm.structures.algorithms import SHA256, hash_by_name
from tpm.structures.attest import Quote, parse_quote
from tpm.structures.public import parse_public, parse_sized_public
from tpm.structures.signature import parse_signature
from tpm.verify.keys import AttestationKey, accept_attestation_key, bare_attestation_key, expected_signers
from tpm.verify.pcrs import verify_pcrs
from tpm.verify.quote import VerifiedQuote, verify_quote

PUBLISHED = vectors("quotes/*") + vectors("attestations/*")
GENUINE = [vector for vector in PUBLISHED if vector.about["expected"]["quote_valid"]]
UNSIGNED = [vector for vector in PUBLISHED if vector.about["expected"]["quote_valid"] is None]
# A Windows key that signs with SHA-1 under a policy of its own: genuine, and refused as an attestation key.
WEAK = [vector for vector in GENUINE if vector.about["expected"].get("policy", "").startswith("sha1-only")]
STRONG = [vector for vector in GENUINE if vector not in WEAK]
ANY_SIGNER = None

# The word of ours for the sentence in each forgery's expected.json.
FORGED = {
    "adversarial/mut-quote-empty-nonce": "nonce_mismatch",
    "adversarial/mut-quote-flip-pcrdigest": "bad_signature",
    "adversarial/mut-quote-magic": "not_tpm_generated",
    "adversarial/mut-quote-missing-pcr-value": "pcr_mismatch",
    "adversarial/mut-quote-pcr-value-changed": "pcr_mismatch",
    "adversarial/mut-quote-sig-hash-sha1-id": "scheme_mismatch",
    "adversarial/mut-quote-trailing-byte": "trailing_bytes",
    "adversarial/mut-quote-type-certify": "wrong_type",
    "adversarial/mut-quote-wrong-ak": "bad_signature",
    "adversarial/quote-bad-signature-cmc": "bad_signature",
    "adversarial/quote-tampered-eventlog-cmc": "pcr_mismatch",
    "adversarial/quote-wrong-nonce-cmc": "nonce_mismatch",
    "attestations/linux-tpm12": "not_tpm_generated",
}
FORGERIES = [vector for vector in vectors("adversarial/*quote*") + PUBLISHED if str(vector) in FORGED]


def attestation_key(vector: Vector, checked: dict[str, Any]) -> AttestationKey:
    if vector.has("ak.tpmt"):
        return accept_attestation_key(parse_public(vector.read("ak.tpmt")))
    key = load_pem_public_key(vector.read("ak.pem"))
    scheme, hash = checked.get("sig_alg", "ecdsa"), checked.get("sig_hash", "sha256")
    return bare_attestation_key(key, scheme, hash_by_name(hash))  # type: ignore[arg-type]


def quotes_of(vector: Vector) -> list[tuple[str, dict[str, Any]]]:
    """File name without suffix, and what was checked of it; one machine published three."""
    checked = vector.about["checked"]
    if "quotes" in checked:
        return [(f"quote_{bank}", facts) for bank, facts in checked["quotes"].items()]
    return [("quote", checked)]


def pcr_values(vector: Vector, quote: Quote) -> dict[str, dict[int, bytes]] | None:
    """The published values of the registers that the quote covers; many sources publish more."""
    if vector.has("pcrs.tpm2tools"):
        # A dump of TPML_PCR_SELECTION and TPML_DIGEST as they lie in memory: little-endian, at fixed places.
        content = vector.read("pcrs.tpm2tools")[132 + 4 + 4 :]
        (bank, pcrs), *_ = quote.selection.banks
        fields = [content[66 * place : 66 * place + 66] for place in range(len(pcrs))]
        values = [field[2 : 2 + int.from_bytes(field[:2], "little")] for field in fields]
        return {bank: dict(zip(pcrs, values, strict=True))}
    if not vector.has("pcrs.json"):
        return None
    published = json.loads(vector.read("pcrs.json"))
    return {
        bank: {pcr: bytes.fromhex(published[bank][str(pcr)]) for pcr in pcrs if str(pcr) in published[bank]}
        for bank, pcrs in quote.selection.banks
    }


def verify(vector: Vector, name: str, checked: dict[str, Any]) -> VerifiedQuote:
    quote, signature = parse_quote(vector.read(f"{name}.msg")), parse_signature(vector.read(f"{name}.sig"))
    ak = attestation_key(vector, checked)
    return verify_quote(
        quote, signature, ak=ak, expected_extra_data=vector.nonce, expected_signers=ANY_SIGNER
    )


def test_every_published_vector_is_judged() -> None:
    print(
        f"{len(PUBLISHED)} published quotes and attestations: {len(STRONG)} genuine, {len(WEAK)} too weak, "
    )
    print(f"{len(UNSIGNED)} without a key; {len(FORGERIES)} forgeries")
    assert (len(vectors("quotes/*")), len(vectors("attestations/*"))) == (7, 15)
    assert len(FORGERIES) == len(FORGED) == 13
    assert {str(vector) for vector in vectors("adversarial/*quote*")} <= FORGED.keys()
    assert len(STRONG) + len(WEAK) + len(UNSIGNED) + 1 == len(PUBLISHED)


@pytest.mark.parametrize("vector", [v for v in PUBLISHED if str(v) not in FORGED], ids=str)
def test_published_quotes_read_as_others_read_them(vector: Vector) -> None:
    for name, checked in quotes_of(vector):
        quote, facts = parse_quote(vector.read(f"{name}.msg")), checked["attest"]
        assert quote.qualified_signer.hex() == facts["signer"]
        assert quote.extra_data.hex() == facts["extra"]
        assert quote.clock.clock == facts["clock"]
        assert (quote.clock.reset_count, quote.clock.restart_count) == (
            facts["resetCount"],
            facts["restartCount"],
        )
        assert quote.clock.safe is bool(facts["safe"])
        assert quote.firmware_version == int(facts["fw"], 16)
        selected = [[bank, list(pcrs)] for bank, pcrs in quote.selection.banks]
        by_number = [[hash_by_name(bank).id, pcrs] for bank, pcrs in selected]
        assert selected == checked.get("pcr_selection") or by_number == facts["select"]
        assert quote.pcr_digest.hex() == checked.get("pcr_digest", facts.get("pcrDigest"))


@pytest.mark.parametrize("vector", STRONG, ids=str)
def test_genuine_quotes_hold_for_their_nonce_and_no_other(vector: Vector) -> None:
    for name, checked in quotes_of(vector):
        verified = verify(vector, name, checked)
        quote, ak = verified.quote, attestation_key(vector, checked)
        signature = parse_signature(vector.read(f"{name}.sig"))
        assert (signature.scheme, signature.hash.name) == (checked["sig_alg"], checked["sig_hash"])
        for other in (vector.nonce + b"\0", vector.nonce[:-1] or b"\1", bytes(32)):
            with pytest.raises(EvidenceError) as refusal:
                verify_quote(quote, signature, ak=ak, expected_extra_data=other, expected_signers=ANY_SIGNER)
            assert refusal.value.reason == ("nonce_mismatch" if vector.nonce else "nonce_missing")


@pytest.mark.parametrize("vector", STRONG, ids=str)
def test_genuine_quotes_cover_their_published_registers(vector: Vector) -> None:
    for name, checked in quotes_of(vector):
        verified = verify(vector, name, checked)
        values, hash = pcr_values(vector, verified.quote), hash_by_name(checked["sig_hash"])
        if values is None:
            assert "pcr_digest_matches_values" not in checked
            continue
        (bank, pcrs), *_ = verified.quote.selection.banks
        if bank == "sha1":
            with pytest.raises(EvidenceError) as refusal:
                verify_pcrs(verified, values, hash=hash)
            assert refusal.value.reason == "bank_not_allowed"
            continue
        held = verify_pcrs(verified, values, hash=hash)
        assert (held.bank, tuple(held.values)) == (bank, pcrs)
        values[bank][pcrs[0]] = bytes([values[bank][pcrs[0]][0] ^ 1]) + values[bank][pcrs[0]][1:]
        with pytest.raises(EvidenceError) as refusal:
            verify_pcrs(verified, values, hash=hash)
        assert refusal.value.reason == "pcr_mismatch"


@pytest.mark.parametrize("vector", FORGERIES, ids=str)
def test_published_forgeries_are_refused_for_the_right_reason(vector: Vector) -> None:
    assert vector.about["expected"]["quote_valid"] is False
    assert vector.about["expected"]["reason"]
    with pytest.raises(AttestationError) as refusal:
        judge_forgery(vector)
    assert refusal.value.reason == FORGED[str(vector)]


def judge_forgery(vector: Vector) -> None:
    """As every vector, except that the one with the empty nonce is to be held against an empty one."""
    if vector.folder.name == "mut-quote-empty-nonce":
        quote, signature = parse_quote(vector.read("quote.msg")), parse_signature(vector.read("quote.sig"))
        ak = attestation_key(vector, {})
        verify_quote(quote, signature, ak=ak, expected_extra_data=b"", expected_signers=ANY_SIGNER)
        return
    verified = verify(vector, "quote", vector.about["checked"])
    verify_pcrs(verified, pcr_values(vector, verified.quote) or {}, hash=SHA256)


@pytest.mark.parametrize("vector", WEAK, ids=str)
def test_a_genuine_key_of_sha_1_is_refused(vector: Vector) -> None:
    with pytest.raises(EvidenceError) as area:
        attestation_key(vector, vector.about["checked"])
    assert area.value.reason == "ak_attributes"
    key = load_pem_public_key(vector.read("ak.pem"))
    with pytest.raises(EvidenceError) as bare:
        bare_attestation_key(key, "rsassa", hash_by_name("sha1"))  # type: ignore[arg-type]
    assert bare.value.reason == "ak_scheme"
    assert bare_attestation_key(key, "rsassa", SHA256).scheme == "rsassa"  # type: ignore[arg-type]


@pytest.mark.parametrize("vector", [v for v in STRONG if v.folder.name.startswith("gce-")], ids=str)
def test_a_primary_key_of_the_endorsement_hierarchy_signs_under_the_name_we_compute(vector: Vector) -> None:
    ak = attestation_key(vector, {})
    signers = expected_signers(ak, ek=ak.public)
    for name, _ in quotes_of(vector):
        quote, signature = (
            parse_quote(vector.read(f"{name}.msg")),
            parse_signature(vector.read(f"{name}.sig")),
        )
        assert quote.qualified_signer in signers
        verify_quote(quote, signature, ak=ak, expected_extra_data=vector.nonce, expected_signers=signers)


def test_a_published_key_has_the_name_that_its_tpm_gave_it() -> None:
    (vector,) = vectors("quotes/keylime-msim-tpm2tools3")
    public = parse_sized_public(vector.read("ak.tpm2b"))
    assert public == parse_public(vector.read("ak.tpmt"))
    assert public.name == vector.read("ak.name")
    assert public.name.hex() == vector.about["expected"]["ak_name"]


def test_an_rsa_key_with_an_ecc_signature_is_refused_and_never_a_crash() -> None:
    """go-attestation panicked on it; the statement is a creation's, which we refuse by name before."""
    (vector,) = vectors("adversarial/ak-rsa-pub-ecc-sig")
    public = parse_public(vector.read("ak.tpmt"))
    signature = parse_signature(vector.read("create_sig.bin"))
    assert public.name.hex() == vector.about["expected"]["ak_name"]
    assert (public.type, signature.scheme) == ("rsa", "ecdsa")
    with pytest.raises(EvidenceError) as key:
        accept_attestation_key(public)
    with pytest.raises(EvidenceError, match="creation") as statement:
        parse_quote(vector.read("create_attest.bin"))
    assert (key.value.reason, statement.value.reason) == ("ak_attributes", "wrong_type")
