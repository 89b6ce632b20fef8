"""QT: is only the device's own TPM believed, and only for what it says in its one way of saying it?"""

import struct
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from flask.testing import FlaskClient

from attestd.app import VERBS
from attestd.clock import now_ms
from attestd.service import Service
from attestd.web.application import create_web
from tests.attester import (
    CURVES,
    ECDSA_SHA256,
    RSAPSS_SHA256,
    RSASSA_SHA256,
    Machine,
    b64,
    enrollment_body,
    jwk_of,
    new_key,
    parent_key,
    public_area,
    sign,
    signing_key,
    sized,
)
from tests.deployment import Deployment, credential

ENROLL, ATTEST = "/v1/enrollments", "/v1/attestations"
Body = dict[str, Any]


def quote_of(body: Body) -> tuple[bytes, bytes]:
    return b64decode(body["quote"]["attest"]), b64decode(body["quote"]["signature"])


def with_quote(body: Body, *, attest: bytes | None = None, signature: bytes | None = None) -> Body:
    """The same with other bytes in the quote."""
    old_attest, old_signature = quote_of(body)
    parts = (old_attest if attest is None else attest, old_signature if signature is None else signature)
    return {**body, "quote": {"attest": b64(parts[0]), "signature": b64(parts[1])}}


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def check_refused(plant: Deployment, body: Body) -> str:
    """400 or 403 with one record and nothing issued; the audit's cause."""
    before, length = plant.kept(), plant.audit_length()
    status, told = plant.post(ATTEST, body)
    assert (status, told["code"]) in {
        (400, "malformed"),
        (400, "noncanonical"),
        (403, "attestation_failed"),
    }, told
    assert (plant.kept(), plant.audit_length()) == (before, length + 1)
    (record,) = plant.audit(request_id=told["request_id"])
    return str(record["cause"])


# QT-1: every flip is tried where the library is tested; here one of each byte goes all the way.


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_qt_1_a_flipped_bit_anywhere_is_refused(plant: Deployment, kind: str) -> None:
    machine = plant.machine(ak=kind)
    body = plant.round(machine).body()
    attest, signature = quote_of(body)
    for place in range(len(attest)):
        check_refused(plant, with_quote(body, attest=flipped(attest, place * 8 + place % 8)))
    for place in range(len(signature)):
        check_refused(plant, with_quote(body, signature=flipped(signature, place * 8 + place % 8)))
    plant.expect(200, ATTEST, body)


# QT-2


def signed_anew(round_: Any, change: Callable[[bytes], bytes]) -> Body:
    """The quote changed and signed by the device's key: what a TPM would never do."""

    def lie(machine: Machine, digest: bytes, registers: Any) -> tuple[bytes, bytes]:
        attest = change(machine.quote(digest, registers)[0])
        return attest, sign(machine.ak, attest)

    body: Body = replace(round_, quoting=lie).body()
    return body


@pytest.mark.parametrize("magic", ["00000000", "47435444", "ff544346", "ff545447", "4754 4cff"])
def test_qt_2_what_does_not_begin_as_a_tpm_begins_is_not_the_tpms(
    plant: Deployment, gateway: Machine, magic: str
) -> None:
    round_ = plant.round(gateway)
    lie = signed_anew(round_, lambda attest: bytes.fromhex(magic) + attest[4:])
    plant.problem(lie, 403, "attestation_failed", cause="not_tpm_generated")
    plant.expect(200, ATTEST, round_.body())


@pytest.mark.parametrize(
    ("kind", "status", "cause"),
    [
        (0x8014, 403, "wrong_type"),
        (0x8017, 403, "wrong_type"),
        (0x8019, 403, "wrong_type"),
        (0x801A, 403, "wrong_type"),
        (0x0018, 400, "unknown_type"),
        (0xFFFF, 400, "unknown_type"),
    ],
)
def test_qt_2_another_statement_of_the_tpm_is_no_quote(
    plant: Deployment, gateway: Machine, kind: int, status: int, cause: str
) -> None:
    round_ = plant.round(gateway)
    lie = signed_anew(round_, lambda attest: attest[:4] + struct.pack(">H", kind) + attest[6:])
    code = {400: "malformed", 403: "attestation_failed"}[status]
    plant.problem(lie, status, code, cause=cause)
    plant.expect(200, ATTEST, round_.body())


def test_qt_2_a_certification_does_not_stand_for_a_quote(plant: Deployment, gateway: Machine) -> None:
    key = signing_key()
    round_ = plant.round(
        gateway, certified=[key], credentials=[credential("x509-svid", key={"name": key.name.hex()})]
    )
    body = round_.body()
    certified = {name: body["certified"][0][name] for name in ("attest", "signature")}
    plant.problem({**body, "quote": certified}, 403, "attestation_failed", cause="wrong_type")
    swapped = {**body, "certified": [{**body["certified"][0], **body["quote"]}]}
    told = plant.problem(swapped, 403, "evidence_incomplete", cause="key_not_proven")
    assert told["findings"][0]["found"] == "wrong_type"
    plant.attest(gateway.later())


# QT-7


@pytest.mark.parametrize(("mine", "others"), [("p256", "p256"), ("p256", "rsa"), ("rsa", "p256")])
def test_qt_7_another_devices_quote_is_not_mine(plant: Deployment, mine: str, others: str) -> None:
    machine, other = plant.machine(ak=mine), plant.machine(ak=others)
    round_ = plant.round(machine)
    relayed = replace(
        round_, quoting=lambda _, digest, registers: other.quote(digest, registers)
    )
    record = {"cause": "ak_not_of_device", "device_id": machine.device_id}
    plant.problem(relayed.body(), 403, "attestation_failed", **record)
    disguised = replace(
        round_,
        quoting=lambda own, digest, registers: other.quote(digest, registers, signer=own.qualified_signer),
    )
    assert check_refused(plant, disguised.body()) in {"bad_signature", "scheme_mismatch"}
    plant.expect(200, ATTEST, round_.body())
    plant.attest(other)


# QT-8


def good(key: rsa.RSAPrivateKey, attest: bytes, scheme: str, hash: hashes.HashAlgorithm) -> bytes:
    pad: Any = padding.PSS(padding.MGF1(hash), hash.digest_size) if scheme == "0016" else padding.PKCS1v15()
    number = {"sha1": "0004", "sha256": "000b", "sha512": "000d"}[hash.name]
    return bytes.fromhex(scheme + number) + sized(key.sign(attest, pad, hash))


RSA_GAMES: dict[str, Callable[[Any, bytes, bytes], bytes]] = {
    "called PSS": lambda key, attest, signature: RSAPSS_SHA256 + signature[4:],
    "PSS": lambda key, attest, signature: good(key, attest, "0016", hashes.SHA256()),
    "called SHA-1": lambda key, attest, signature: bytes.fromhex("00140004") + signature[4:],
    "SHA-1": lambda key, attest, signature: good(key, attest, "0014", hashes.SHA1()),
    "SHA-512": lambda key, attest, signature: good(key, attest, "0014", hashes.SHA512()),
    "PSS with SHA-1": lambda key, attest, signature: good(key, attest, "0016", hashes.SHA1()),
    "HMAC": lambda key, attest, signature: bytes.fromhex("0005000b") + bytes(32),
    "none": lambda key, attest, signature: bytes.fromhex("0010"),
    "ECDAA": lambda key, attest, signature: bytes.fromhex("001a") + ECDSA_SHA256[2:] + sized(bytes(32)) * 2,
    "SM2": lambda key, attest, signature: bytes.fromhex("001b") + ECDSA_SHA256[2:] + sized(bytes(32)) * 2,
    "Schnorr": lambda key, attest, signature: bytes.fromhex("001c") + ECDSA_SHA256[2:] + sized(bytes(32)) * 2,
    "ECDSA": lambda key, attest, signature: sign(new_key("p256"), attest),
    "1024 bits": lambda key, attest, signature: RSASSA_SHA256 + sized(signature[6:134]),
    "one byte short": lambda key, attest, signature: RSASSA_SHA256 + sized(signature[7:]),
    "one byte long": lambda key, attest, signature: RSASSA_SHA256 + sized(b"\0" + signature[6:]),
    "empty": lambda key, attest, signature: RSASSA_SHA256 + sized(b""),
    "zeros": lambda key, attest, signature: RSASSA_SHA256 + sized(bytes(256)),
    "ones": lambda key, attest, signature: RSASSA_SHA256 + sized(b"\xff" * 256),
    "too large": lambda key, attest, signature: RSASSA_SHA256 + sized(bytes(513)),
    "unknown hash": lambda key, attest, signature: bytes.fromhex("00140099") + signature[4:],
    "unknown scheme": lambda key, attest, signature: bytes.fromhex("9999000b") + signature[4:],
}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def pair(r: int, s: int, size: int = 32) -> bytes:
    return ECDSA_SHA256 + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))


def numbers(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[6:38], "big"), int.from_bytes(signature[40:], "big")


ECC_GAMES: dict[str, Callable[[Any, bytes, bytes], bytes]] = {
    "called SHA-1": lambda key, attest, signature: bytes.fromhex("00180004") + signature[4:],
    "called SHA-384": lambda key, attest, signature: bytes.fromhex("0018000c") + signature[4:],
    "called ECDAA": lambda key, attest, signature: bytes.fromhex("001a000b") + signature[4:],
    "called SM2": lambda key, attest, signature: bytes.fromhex("001b000b") + signature[4:],
    "RSASSA": lambda key, attest, signature: RSASSA_SHA256 + sized(bytes(256)),
    "RSASSA of r and s": lambda key, attest, signature: RSASSA_SHA256 + sized(signature[4:]),
    "HMAC": lambda key, attest, signature: bytes.fromhex("0005000b") + bytes(32),
    "P-384": lambda key, attest, signature: sign(new_key("p384"), attest),
    "r = 0": lambda key, attest, signature: pair(0, numbers(signature)[1]),
    "s = 0": lambda key, attest, signature: pair(numbers(signature)[0], 0),
    "both 0": lambda key, attest, signature: pair(0, 0),
    "both empty": lambda key, attest, signature: ECDSA_SHA256 + sized(b"") * 2,
    "both 1": lambda key, attest, signature: pair(1, 1),
    "r = n": lambda key, attest, signature: pair(ORDER, numbers(signature)[1]),
    "s = n": lambda key, attest, signature: pair(numbers(signature)[0], ORDER),
    "r = n + 1": lambda key, attest, signature: pair(ORDER + 1, numbers(signature)[1]),
    "s = n + 1": lambda key, attest, signature: pair(numbers(signature)[0], ORDER + 1),
    "r + n": lambda key, attest, signature: pair(numbers(signature)[0] + ORDER, numbers(signature)[1], 33),
    "s + n": lambda key, attest, signature: pair(numbers(signature)[0], numbers(signature)[1] + ORDER, 33),
    "swapped": lambda key, attest, signature: pair(*reversed(numbers(signature))),
    "of 67 bytes": lambda key, attest, signature: pair(*numbers(signature), 67),
    "r cut": lambda key, attest, signature: ECDSA_SHA256 + sized(signature[6:37]) + signature[38:],
    "s cut": lambda key, attest, signature: signature[:38] + sized(signature[40:71]),
}


@pytest.mark.parametrize(
    ("kind", "game"), [("rsa", name) for name in RSA_GAMES] + [("p256", name) for name in ECC_GAMES]
)
def test_qt_8_and_9_the_signature_is_the_keys_by_the_keys_own_scheme(
    plant: Deployment, kind: str, game: str
) -> None:
    machine = plant.machine(ak=kind)
    body = plant.round(machine).body()
    attest, signature = quote_of(body)
    played = (RSA_GAMES if kind == "rsa" else ECC_GAMES)[game](machine.ak, attest, signature)
    check_refused(plant, with_quote(body, signature=played))
    plant.expect(200, ATTEST, body)


WEAK_KEYS: dict[str, Callable[[], bytes]] = {
    "RSA-1024": lambda: area(rsa.generate_private_key(65537, 1024)),
    "e = 3": lambda: with_exponent(3),
    "e = 1": lambda: with_exponent(1),
    "SHA-1 scheme": lambda: area(new_key("rsa"), scheme=bytes.fromhex("00140004")),
    "no scheme": lambda: area(new_key("rsa"), scheme=bytes.fromhex("0010")),
    "OAEP": lambda: area(new_key("rsa"), scheme=bytes.fromhex("0017000b")),
    "SHA-512": lambda: area(new_key("p256"), scheme=bytes.fromhex("0018000d")),
    "ECDAA": lambda: area(new_key("p256"), scheme=bytes.fromhex("001a000b0000")),
    "SM2": lambda: area(new_key("p256"), scheme=bytes.fromhex("001b000b")),
    "SHA-1 Name": lambda: area(new_key("p256"), name_alg="sha1"),
    "SHA-512 Name": lambda: area(new_key("p256"), name_alg="sha512"),
    "P-192": lambda: on_curve(1),
    "P-224": lambda: on_curve(2),
    "BN P-256": lambda: on_curve(0x10),
    "SM2 P-256": lambda: on_curve(0x20),
    "secp256k1": lambda: on_curve(0x33),
    "no curve": lambda: on_curve(0),
}


def area(key: Any, **shape: Any) -> bytes:
    """TPMT_PUBLIC of an attestation key, but for `shape`."""
    default = RSASSA_SHA256 if isinstance(key, rsa.RSAPrivateKey) else ECDSA_SHA256
    return public_area(key, **({"attributes": 0x00050072, "scheme": default} | shape))


def with_exponent(exponent: int) -> bytes:
    raw = area(new_key("rsa"))
    return raw[:-262] + struct.pack(">I", exponent) + raw[-258:]


def on_curve(number: int) -> bytes:
    """A P-256 attestation key that claims to be on another curve."""
    good_one = area(new_key("p256"))
    place = good_one.index(CURVES["secp256r1"][0] + b"\x00\x10", 12)
    return good_one[:place] + struct.pack(">H", number) + good_one[place + 2 :]


@pytest.mark.parametrize("weak", WEAK_KEYS)
def test_qt_8_a_key_of_a_weak_or_foreign_kind_cannot_be_enrolled(plant: Deployment, weak: str) -> None:
    machine = Machine.create(plant.maker)
    before, length = plant.kept(), plant.audit_length()
    body = enrollment_body(machine, ak_public=b64(sized(WEAK_KEYS[weak]())))
    status, told = plant.post(ENROLL, body)
    assert (status, told["code"]) in {(400, "malformed"), (403, "enrollment_refused")}, told
    assert (plant.kept(), plant.audit_length()) == (before, length + 1)
    plant.enroll(machine)


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521"])
@pytest.mark.parametrize("name_alg", ["sha256", "sha384"])
def test_qt_8_keys_of_every_good_kind_attest(plant: Deployment, kind: str, name_alg: str) -> None:
    machine = Machine.create(plant.maker).with_new_ak(new_key(kind), name_alg=name_alg)
    plant.enroll(machine)
    assert plant.attest(machine)["verdict"] == "accepted"


# QT-9

P = 2**256 - 2**224 + 2**192 + 2**96 - 1


def at_point(x: bytes, y: bytes) -> bytes:
    return area(new_key("p256"))[:-68] + sized(x) + sized(y)


def point() -> tuple[int, int]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    return public.x, public.y


IMPOSSIBLE: dict[str, Callable[[int, int], bytes]] = {
    "off the curve": lambda x, y: at_point(x.to_bytes(32, "big"), (y ^ 1).to_bytes(32, "big")),
    "x = p": lambda x, y: at_point(P.to_bytes(32, "big"), y.to_bytes(32, "big")),
    "x > p": lambda x, y: at_point(b"\xff" * 32, y.to_bytes(32, "big")),
    "x + p": lambda x, y: at_point((x + P).to_bytes(33, "big"), y.to_bytes(32, "big")),
    "infinity": lambda x, y: at_point(bytes(32), bytes(32)),
    "empty": lambda x, y: at_point(b"", b""),
    "no y": lambda x, y: at_point(x.to_bytes(32, "big"), b""),
    "compressed": lambda x, y: at_point(b"\2" + x.to_bytes(32, "big"), b""),
    "x of 67 bytes": lambda x, y: at_point(x.to_bytes(67, "big"), y.to_bytes(32, "big")),
}


@pytest.mark.parametrize("impossible", IMPOSSIBLE)
@pytest.mark.parametrize("member", ["ak_public", "ek_public"])
def test_qt_9_a_point_that_is_none_is_no_key(plant: Deployment, impossible: str, member: str) -> None:
    machine = Machine.create(plant.maker)
    raw = IMPOSSIBLE[impossible](*point())
    if member == "ek_public":
        raw = machine.ek_public[:-68] + raw[raw.index(b"\x00\x03\x00\x10") + 4 :]
    told = plant.problem(enrollment_body(machine, **{member: b64(sized(raw))}), 400, "malformed", ENROLL)
    assert told["pointer"] == f"/{member}"
    plant.enroll(machine)


# QT-10


@pytest.mark.parametrize("part", ["attest", "signature"])
def test_qt_10_trailing_bytes_are_noncanonical(plant: Deployment, gateway: Machine, part: str) -> None:
    body = plant.round(gateway).body()
    for tail in (b"\0", b"\0" * 8, b"\xff"):
        longer = b64decode(body["quote"][part]) + tail
        told = plant.problem(with_quote(body, **{part: longer}), 400, "noncanonical", cause="trailing_bytes")
        assert told["pointer"] == f"/quote/{part}"
    signed = signed_anew(plant.round(gateway), lambda attest: attest + b"\0")
    plant.problem(signed, 400, "noncanonical", cause="trailing_bytes")
    plant.expect(200, ATTEST, body)


@pytest.mark.parametrize("part", ["attest", "signature"])
def test_qt_10_a_cut_at_any_length_is_malformed(plant: Deployment, gateway: Machine, part: str) -> None:
    body = plant.round(gateway).body()
    whole = b64decode(body["quote"][part])
    for length in range(len(whole)):
        told = plant.problem(with_quote(body, **{part: whole[:length]}), 400, "malformed")
        assert told["pointer"] == f"/quote/{part}", length
    plant.expect(200, ATTEST, body)


SIZES: dict[str, Callable[[bytes], bytes]] = {
    "one more": lambda raw: struct.pack(">H", len(raw) + 1) + raw,
    "one less": lambda raw: struct.pack(">H", len(raw) - 1) + raw,
    "little endian": lambda raw: struct.pack("<H", len(raw)) + raw,
    "none": lambda raw: raw,
    "zero": lambda raw: b"\0\0" + raw,
    "twice": lambda raw: sized(sized(raw)),
    "a byte behind": lambda raw: sized(raw) + b"\0",
    "a byte inside": lambda raw: sized(raw + b"\0"),
    "the largest": lambda raw: b"\xff\xff" + raw,
}


@pytest.mark.parametrize("lie", SIZES)
def test_qt_10_a_size_is_that_of_what_follows(plant: Deployment, gateway: Machine, lie: str) -> None:
    machine = Machine.create(plant.maker)
    for member, raw in (("ek_public", machine.ek_public), ("ak_public", machine.ak_public)):
        status, told = plant.post(ENROLL, enrollment_body(machine, **{member: b64(SIZES[lie](raw))}))
        assert (status, told["pointer"]) == (400, f"/{member}")
    plant.enroll(machine)
    key = parent_key()
    wanted = [{"name": "disk", "parent": {"name": key.name.hex()}}]
    body = plant.round(gateway, certified=[key], sealed_keys=wanted).body()
    bad = {**body, "certified": [{**body["certified"][0], "public": b64(SIZES[lie](key.public))}]}
    status, told = plant.post(ATTEST, bad)
    assert (status, told["pointer"]) == (400, "/certified/0/public")
    plant.expect(200, ATTEST, body)


def test_qt_10_numbers_are_written_the_tpms_way(plant: Deployment, gateway: Machine) -> None:
    round_ = plant.round(gateway)
    # Sizes of the signer's Name and of the qualifying data the other way round.
    swapped = signed_anew(round_, lambda attest: attest[:6] + attest[7:5:-1] + attest[8:])
    plant.problem(swapped, 400, "malformed")
    signature = quote_of(round_.body())[1]
    turned = signature[1::-1] + signature[3:1:-1] + signature[4:]
    plant.problem(with_quote(round_.body(), signature=turned), 400, "malformed")
    plant.expect(200, ATTEST, round_.body())


# QT-12


@pytest.mark.parametrize("below_ek", [False, True])
@pytest.mark.parametrize(
    "lie",
    [
        lambda name: b"",
        lambda name: b"\x00\x0b" + bytes(32),
        lambda name: name[:-1] + bytes([name[-1] ^ 1]),
        lambda name: b"\x00\x0c" + name[2:] + bytes(16),
        lambda name: name[:-1],
        lambda name: name + b"\0",
        lambda name: bytes.fromhex("4000000b"),
    ],
    ids=["empty", "another", "one bit", "another hash", "cut", "longer", "the hierarchy"],
)
def test_qt_12_the_key_signs_under_the_name_that_it_has_in_its_tpm(
    plant: Deployment, below_ek: bool, lie: Callable[[bytes], bytes]
) -> None:
    round_ = plant.round(replace(plant.machine(), ak_below_ek=below_ek))

    def quote(machine: Machine, digest: bytes, registers: Any) -> tuple[bytes, bytes]:
        return machine.quote(digest, registers, signer=lie(machine.qualified_signer))

    refused = replace(round_, quoting=quote).body()
    plant.problem(refused, 403, "attestation_failed", cause="qualified_signer")
    plant.expect(200, ATTEST, round_.body())


# QT-13

FAULTS = [RuntimeError(), MemoryError(), RecursionError(), KeyError(), AssertionError(), StopIteration()]
PARTS = ["trust", "nonces", "policies", "limits"]
# Admitting a device is the limits' way of returning nothing.
BREAKS = [(part, fault) for part in PARTS for fault in (*FAULTS, None) if (part, fault) != ("limits", None)]


class Broken:
    """A part of the service of which every call raises, or returns nothing."""

    def __init__(self, fault: BaseException | None) -> None:
        self._fault = fault

    def _call(self, *_: Any, **__: Any) -> None:
        if self._fault is not None:
            raise self._fault

    anchors = verify = issued_at = active = admit_device = _call

    def return_source(self, source: str) -> None:
        """Not what is to break."""

    def admit_source(self, source: str, *, now: int) -> None:
        """Not what is to break."""


def client_of(service: Service) -> FlaskClient:
    return create_web(service, VERBS).test_client()


@pytest.mark.parametrize(("part", "fault"), BREAKS, ids=lambda it: it if isinstance(it, str) else repr(it))
def test_qt_13_a_check_that_fails_to_run_refuses(
    plant: Deployment, gateway: Machine, part: str, fault: Exception | None
) -> None:
    body = plant.round(gateway, credentials=[credential("wit-svid", key=jwk_of(new_key("p256")))]).body()
    whole, plant.client = plant.client, client_of(replace(plant.service, **{part: Broken(fault)}))
    try:
        plant.problem(body, 503, "unavailable", cause="internal_verify_error")
    finally:
        plant.client = whole
    assert plant.row(gateway).posture is None
    plant.attest(gateway)


def test_qt_13_a_fault_behind_the_spent_nonce_issues_nothing_and_is_closed(
    deployment: Deployment, machine: Machine
) -> None:
    body = deployment.round(machine, credentials=[credential("wit-svid", key=jwk_of(new_key("p256")))]).body()
    whole = deployment.client
    deployment.client = client_of(replace(deployment.service, verifier=None))  # type: ignore[arg-type]
    deployment.problem(body, 503, "unavailable", cause="internal_verify_error")
    deployment.client = whole
    assert deployment.row(machine).posture is None
    deployment.problem(body, 409, "nonce_spent")
    deployment.attest(machine.later())
    deployment.service.maintain(now_ms() + 61_000)
    ended = deployment.rows("SELECT outcome FROM attestations ORDER BY outcome")
    assert [row["outcome"] for row in ended] == ["abandoned", "issued"]
