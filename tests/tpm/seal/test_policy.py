"""Does a TPM that is asked for the same policy come to the same digest?"""

import hashlib
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CC, TPM2_EO, TPM2_RH, TPM2_SE, TPM2_ST, TPMA_NV
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_NAME,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPML_DIGEST,
    TPML_PCR_SELECTION,
    TPMS_NV_PUBLIC,
    TPMT_SYM_DEF,
    TPMT_TK_VERIFIED,
)

from tests.tpm.seal.oracle import public_bytes, sized
from tpm.seal import policy
from tpm.structures.algorithms import SHA256, SHA384, SHA512, Hash
from tpm.structures.pcrs import PcrSelection, pcr_digest
from tpm.structures.public import parse_public
from tpm.swtpm import SoftwareTpm

_PCR7 = bytes.fromhex("eac9d272c4f07d5189e14d1626fbc3b16c8234538fe88127f29c2c36edb04f06")
_PCR11 = bytes.fromhex("457040d352c9be3893642229b99cb41ab79c24f00c00bfc2dbfbac0f8cf207fe")
_ENDORSEMENT = bytes.fromhex("4000000b")
_OBJECT, _PARENT = b"\x00\x0b" + b"o" * 32, b"\x00\x0b" + b"p" * 32

Assert = Callable[[ESAPI, ESYS_TR], None]


@pytest.fixture(scope="module")
def esapi(shared_tpm: SoftwareTpm) -> Iterator[ESAPI]:
    with ESAPI(shared_tpm.tcti) as context:
        yield context


@pytest.fixture(params=[SHA256, SHA384, SHA512], ids=lambda hash: hash.name)
def hash(request: pytest.FixtureRequest) -> Hash:
    assert isinstance(request.param, Hash)
    return request.param


def trial(esapi: ESAPI, hash: Hash, *assertions: Assert) -> bytes:
    """The digest to which the TPM comes in a trial session."""
    no_cipher = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
    session = esapi.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, no_cipher, hash.id)
    try:
        for assertion in assertions:
            assertion(esapi, session)
        return bytes(esapi.policy_get_digest(session))
    finally:
        esapi.flush_context(session)


def pcr(selection: PcrSelection, digest: bytes) -> Assert:
    listed = TPML_PCR_SELECTION.unmarshal(selection.raw)[0]
    return lambda esapi, session: esapi.policy_pcr(session, TPM2B_DIGEST(digest), listed)


def secret(reference: bytes = b"") -> Assert:
    return lambda esapi, session: esapi.policy_secret(
        ESYS_TR.ENDORSEMENT, session, b"", b"", reference, 0, session1=ESYS_TR.PASSWORD
    )


def command(code: int) -> Assert:
    return lambda esapi, session: esapi.policy_command_code(session, code)


def auth_value() -> Assert:
    return lambda esapi, session: esapi.policy_auth_value(session)


@pytest.mark.parametrize("pcrs", [(7,), (0, 1, 2, 3, 4, 5, 6, 7), tuple(range(24)), (11,), (0, 23)])
@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
def test_policy_pcr_is_the_trial_sessions(esapi: ESAPI, hash: Hash, bank: str, pcrs: tuple[int, ...]) -> None:
    selection = PcrSelection.of(bank, pcrs)
    values = {bank: {n: hashlib.new(bank, bytes([n])).digest() for n in pcrs}}
    digest = pcr_digest(selection, values, hash)
    ours = policy.policy_pcr(policy.start(hash), hash, selection, digest)
    assert ours == trial(esapi, hash, pcr(selection, digest))


@pytest.mark.parametrize("reference", [b"", b"\xaa\xbb\xcc"])
def test_policy_secret_is_the_trial_sessions(esapi: ESAPI, hash: Hash, reference: bytes) -> None:
    ours = policy.policy_secret(policy.start(hash), hash, _ENDORSEMENT, reference)
    assert ours == trial(esapi, hash, secret(reference))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_policy_or_is_the_trial_sessions(esapi: ESAPI, hash: Hash, count: int) -> None:
    branches = [hash.digest(bytes([n])) for n in range(count)]
    listed = TPML_DIGEST([TPM2B_DIGEST(branch) for branch in branches])
    asserted = trial(esapi, hash, secret(), lambda esapi, session: esapi.policy_or(session, listed))
    assert policy.policy_or(hash, branches) == asserted


@pytest.mark.parametrize("count", [0, 1, 9])
def test_policy_or_of_too_few_or_too_many_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="two to eight"):
        policy.policy_or(SHA256, [bytes(32)] * count)


@pytest.mark.parametrize("reference", [b"", b"update-channel"])
def test_policy_authorize_is_the_trial_sessions_whatever_came_before(
    esapi: ESAPI, hash: Hash, reference: bytes
) -> None:
    key = parse_public(public_bytes(ec.generate_private_key(ec.SECP256R1()), attributes=0x00060040))
    ticket = TPMT_TK_VERIFIED(tag=TPM2_ST.VERIFIED, hierarchy=TPM2_RH.OWNER, digest=b"")

    def authorize(esapi: ESAPI, session: ESYS_TR) -> None:
        approved = esapi.policy_get_digest(session)
        esapi.policy_authorize(session, approved, TPM2B_NAME(key.name), ticket, reference)

    ours = policy.policy_authorize(hash, key.name, reference)
    assert ours == trial(esapi, hash, auth_value(), authorize)
    assert ours == trial(esapi, hash, authorize)


def test_policy_nv_is_the_trial_sessions(esapi: ESAPI, hash: Hash) -> None:
    attributes = TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD | TPMA_NV.NO_DA
    public = TPMS_NV_PUBLIC(nvIndex=0x01800042, nameAlg=SHA256.id, attributes=attributes, dataSize=8)
    index = esapi.nv_define_space(b"", TPM2B_NV_PUBLIC(public), session1=ESYS_TR.PASSWORD)
    try:
        esapi.nv_write(index, b"12345678", 0, ESYS_TR.OWNER)
        _, name = esapi.nv_read_public(index)

        def compare(esapi: ESAPI, session: ESYS_TR) -> None:
            esapi.policy_nv(
                ESYS_TR.OWNER,
                index,
                session,
                b"567",
                offset=4,
                operation=TPM2_EO.EQ,
                session1=ESYS_TR.PASSWORD,
            )

        begin = policy.start(hash)
        ours = policy.policy_nv(begin, hash, bytes(name), b"567", offset=4, operation=TPM2_EO.EQ)
        assert ours == trial(esapi, hash, compare)
        assert ours != policy.policy_nv(begin, hash, bytes(name), b"567", offset=3, operation=TPM2_EO.EQ)
    finally:
        esapi.nv_undefine_space(index)


@pytest.mark.parametrize("code", [TPM2_CC.Duplicate, TPM2_CC.Unseal, TPM2_CC.Certify])
def test_policy_command_code_is_the_trial_sessions(esapi: ESAPI, hash: Hash, code: int) -> None:
    assert policy.policy_command_code(policy.start(hash), hash, code) == trial(esapi, hash, command(code))


@pytest.mark.parametrize("included", [True, False])
def test_policy_duplication_select_is_the_trial_sessions(esapi: ESAPI, hash: Hash, included: bool) -> None:
    def select(esapi: ESAPI, session: ESYS_TR) -> None:
        esapi.policy_duplication_select(session, TPM2B_NAME(_OBJECT), TPM2B_NAME(_PARENT), included)

    name = _OBJECT if included else None
    ours = policy.policy_duplication_select(policy.start(hash), hash, _PARENT, name)
    assert ours == trial(esapi, hash, select)


def test_policy_auth_value_is_the_trial_sessions_for_hmac_and_password(esapi: ESAPI, hash: Hash) -> None:
    ours = policy.policy_auth_value(policy.start(hash), hash)
    assert ours == trial(esapi, hash, auth_value())
    assert ours == trial(esapi, hash, lambda esapi, session: esapi.policy_password(session))


def test_assertions_one_after_another_are_the_trial_sessions(esapi: ESAPI, hash: Hash) -> None:
    selection = PcrSelection.of("sha256", (7, 11))
    digest = pcr_digest(selection, {"sha256": {7: _PCR7, 11: _PCR11}}, hash)
    ours = policy.policy_pcr(policy.start(hash), hash, selection, digest)
    ours = policy.policy_secret(ours, hash, _ENDORSEMENT)
    ours = policy.policy_auth_value(ours, hash)
    ours = policy.policy_command_code(ours, hash, TPM2_CC.Unseal)
    steps = pcr(selection, digest), secret(), auth_value(), command(TPM2_CC.Unseal)
    assert ours == trial(esapi, hash, *steps)


def test_digests_are_the_published_ones() -> None:
    selection = PcrSelection.of("sha256", (7, 11))
    assert selection.raw.hex() == "00000001000b03800800"
    digest = pcr_digest(selection, {"sha256": {7: _PCR7, 11: _PCR11}}, SHA256)
    assert digest.hex() == "0704061e292ebcb73d8882f8d970ca5620ca42b51f1b80163789453d5b1c7616"
    begin = policy.start(SHA256)
    registers = policy.policy_pcr(begin, SHA256, selection, digest)
    endorsement = policy.policy_secret(begin, SHA256, _ENDORSEMENT)
    published = {
        registers: "222ccc8f298408279c1b518f731039ace2f024f1c1a133903cb2492c8913681d",
        policy.policy_auth_value(registers, SHA256): (
            "270ecd4353bd1224dab58422ae99d1fc7e33cf7bc7804ee5e3d82b781b19bdc0"
        ),
        endorsement: "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
        policy.policy_secret(begin, SHA256, _ENDORSEMENT, bytes.fromhex("aabbcc")): (
            "5155b0427ae85150d24c12611acda211a4a48971635003f4cdf5b696b10e831d"
        ),
        policy.policy_or(SHA256, [registers, endorsement]): (
            "08aebb7eea41788da8aab6825023b01d16c15dc25f74a86b78ec5bc4143d15fd"
        ),
        policy.policy_auth_value(begin, SHA256): (
            "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e"
        ),
        policy.policy_command_code(endorsement, SHA256, TPM2_CC.ActivateCredential): (
            "cd9917cf18c3848c3a2e606986a066c68142f9bc2710a278287a650ca3bbf245"
        ),
        policy.policy_command_code(endorsement, SHA256, TPM2_CC.Certify): (
            "b2a69e6391e2684a0fe752d39e14acd2e5cb922e4bd035830eea31f2aabe9870"
        ),
    }
    assert {digest.hex() for digest in published} == set(published.values())
    assert len(published) == 8


def test_a_policy_over_other_registers_or_another_bank_is_another_policy() -> None:
    begin, digest = policy.start(SHA256), SHA256.digest(b"values")
    selections = [
        PcrSelection.of("sha256", (7,)),
        PcrSelection.of("sha256", (8,)),
        PcrSelection.of("sha384", (7,)),
    ]
    assert len({policy.policy_pcr(begin, SHA256, selection, digest) for selection in selections}) == 3


def test_the_name_that_a_policy_carries_is_the_one_that_tpm2_pytss_computes() -> None:
    raw = public_bytes(ec.generate_private_key(ec.SECP256R1()))
    assert bytes(TPM2B_PUBLIC.unmarshal(sized(raw))[0].get_name()) == parse_public(raw).name
