"""Do we read what the TPM software stack reads, and give its Names?

tpm2-pytss is the oracle for healthy structures only: it also takes bad magic numbers and trailing bytes.
"""

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tpm2_pytss.types import TPM2B_PUBLIC, TPML_PCR_SELECTION, TPMS_ATTEST, TPMT_PUBLIC, TPMT_SIGNATURE

from tests.tpm import forge
from tpm.structures.attest import parse_certification, parse_quote
from tpm.structures.pcrs import PcrSelection
from tpm.structures.public import parse_public, parse_sized_public
from tpm.structures.reader import Reader
from tpm.structures.signature import parse_signature

BANK_NAMES = {number: name for name, number in forge.ALG.items()}
KINDS = ["rsa2048", "rsa3072", "p256", "p384", "p521"]

hashes = st.sampled_from(["sha1", "sha256", "sha384", "sha512"])
banks = st.lists(st.tuples(hashes, st.sets(st.integers(0, 23))), max_size=4)
names = st.one_of(st.just(b""), st.binary(min_size=34, max_size=34), st.binary(min_size=66, max_size=66))
counters = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 1)
)


def registers(selection: TPML_PCR_SELECTION) -> tuple[tuple[str, tuple[int, ...]], ...]:
    def bits(bitmap: bytes) -> Iterator[int]:
        return (pcr for pcr in range(24) if bitmap[pcr // 8] >> pcr % 8 & 1)

    entries = [selection.pcrSelections[index] for index in range(selection.count)]
    return tuple((BANK_NAMES[int(entry.hash)], tuple(bits(bytes(entry.pcrSelect)))) for entry in entries)


def head(attest: TPMS_ATTEST) -> tuple[object, ...]:
    info = attest.clockInfo
    clock = (int(info.clock), int(info.resetCount), int(info.restartCount), bool(info.safe))
    return bytes(attest.qualifiedSigner), bytes(attest.extraData), clock, int(attest.firmwareVersion)


def ours(attest: object) -> tuple[object, ...]:
    clock = attest.clock  # type: ignore[attr-defined]
    counted = (clock.clock, clock.reset_count, clock.restart_count, clock.safe)
    return attest.qualified_signer, attest.extra_data, counted, attest.firmware_version  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(
    selected=banks, signer=names, extra=st.binary(max_size=64), clock=counters, digest=st.binary(max_size=64)
)
def test_quotes_read_alike(
    selected: object, signer: bytes, extra: bytes, clock: object, digest: bytes
) -> None:
    raw = forge.quote(forge.selection(*selected), digest, signer=signer, extra=extra, clock=clock)  # type: ignore[misc]
    theirs, consumed = TPMS_ATTEST.unmarshal(raw)
    quote = parse_quote(raw)
    assert consumed == len(raw)
    assert theirs.marshal() == quote.raw
    assert head(theirs) == ours(quote)
    assert registers(theirs.attested.quote.pcrSelect) == quote.selection.banks
    assert bytes(theirs.attested.quote.pcrDigest) == quote.pcr_digest


@settings(max_examples=75, deadline=None)
@given(name=names, qualified=names, signer=names, extra=st.binary(max_size=64), clock=counters)
def test_certifications_read_alike(
    name: bytes, qualified: bytes, signer: bytes, extra: bytes, clock: object
) -> None:
    raw = forge.certification(name, qualified, signer=signer, extra=extra, clock=clock)
    theirs, _ = TPMS_ATTEST.unmarshal(raw)
    certification = parse_certification(raw)
    assert theirs.marshal() == certification.raw
    assert head(theirs) == ours(certification)
    assert bytes(theirs.attested.certify.name) == certification.name
    assert bytes(theirs.attested.certify.qualifiedName) == certification.qualified_name


@settings(max_examples=75, deadline=None)
@given(selected=banks)
def test_selections_read_alike(selected: object) -> None:
    raw = forge.selection(*selected)  # type: ignore[misc]
    theirs, _ = TPML_PCR_SELECTION.unmarshal(raw)
    assert theirs.marshal() == raw
    assert registers(theirs) == PcrSelection.read(Reader(raw)).banks


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
def test_selections_are_written_alike(bank: str) -> None:
    for pcrs in ([0], [0, 7], [23], list(range(24))):
        text = f"{bank}:{','.join(map(str, pcrs))}"
        assert PcrSelection.of(bank, pcrs).raw == TPML_PCR_SELECTION.parse(text).marshal()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name_alg", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("purpose", ["ak", "credential", "storage", "ek"])
def test_public_areas_and_names_read_alike(kind: str, name_alg: str, purpose: str) -> None:
    scheme = forge.signing_scheme("rsapss" if kind.startswith("rsa") else "ecdsa")
    shape = {
        "ak": {"attributes": forge.AK, "scheme": scheme},
        "credential": {"attributes": forge.CREDENTIAL, "scheme": scheme},
        "storage": {"attributes": forge.STORAGE, "symmetric": forge.AES128CFB},
        "ek": {"attributes": forge.EK_HIGH, "symmetric": forge.AES256CFB},
    }[purpose]
    raw = forge.public_area(forge.private_key(kind), name_alg=name_alg, **shape)  # type: ignore[arg-type]
    theirs, _ = TPMT_PUBLIC.unmarshal(raw)
    sized, _ = TPM2B_PUBLIC.unmarshal(forge.sized(raw))
    public = parse_public(raw)
    assert theirs.marshal() == public.raw
    assert bytes(sized.get_name()) == bytes(theirs.get_name()) == public.name
    assert sized.marshal() == public.sized
    assert parse_sized_public(public.sized) == public
    assert int(theirs.objectAttributes) == public.attributes
    assert theirs.to_pem() == pem(public.public_key())


@pytest.mark.parametrize(
    "raw", ["0008000b00000000000000100020" + "11" * 32, "0025000b00020072000000060080004300020a0b"]
)
def test_objects_that_are_no_keys_read_alike(raw: str) -> None:
    content = bytes.fromhex(raw)
    theirs, _ = TPMT_PUBLIC.unmarshal(content)
    assert theirs.marshal() == parse_public(content).raw
    assert bytes(theirs.get_name()) == parse_public(content).name


@settings(max_examples=75, deadline=None)
@given(hash=hashes, r=st.binary(max_size=66), s=st.binary(max_size=66), value=st.binary(max_size=512))
def test_signatures_read_alike(hash: str, r: bytes, s: bytes, value: bytes) -> None:
    ecdsa = forge.signing_scheme("ecdsa", hash) + forge.sized(r) + forge.sized(s)
    theirs, _ = TPMT_SIGNATURE.unmarshal(ecdsa)
    read = parse_signature(ecdsa)
    assert theirs.marshal() == read.raw
    assert int.from_bytes(bytes(theirs.signature.ecdsa.signatureR), "big") == read.r
    assert int.from_bytes(bytes(theirs.signature.ecdsa.signatureS), "big") == read.s
    for scheme in ("rsassa", "rsapss"):
        raw = forge.signing_scheme(scheme, hash) + forge.sized(value)
        theirs, _ = TPMT_SIGNATURE.unmarshal(raw)
        assert theirs.marshal() == parse_signature(raw).raw
        assert bytes(theirs.signature.rsassa.sig) == parse_signature(raw).value


def pem(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded
