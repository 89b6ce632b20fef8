"""Does `attestd evidence quote` hold for every published quote, in every form, and for no other?"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.tpm.vectors import Vector, vectors
from tests.tpm.verify.test_vectors import FORGED, PUBLISHED, WEAK, pcr_values, quotes_of
from tpm.errors import AttestationError
from tpm.structures.attest import parse_quote
from tpm.structures.public import parse_public
from tpm.structures.signature import parse_signature

Run = Callable[..., Result]
MEMBERS = ["valid", "reason", "selection", "pcr_digest", "clock", "firmware_version"]
GENUINE = [one for one in PUBLISHED if one.about["expected"]["quote_valid"] and one not in WEAK]
FORGERIES = [one for one in vectors("adversarial/*quote*") + PUBLISHED if str(one) in FORGED]
# What the command says first where another check came first in the library's own table.
OFFLINE = FORGED | {"adversarial/mut-quote-sig-hash-sha1-id": "hash_not_allowed"}
GOOD = next(one for one in GENUINE if one.folder.name == "cmc-tpm-valid")


def key_files(vector: Vector, folder: Path) -> Iterator[Path]:
    """Every form in which the key is published, and the one that follows from the others."""
    for name in ("ak.pem", "ak.tpmt", "ak.tpm2b", "ak_cert.pem", "ak.bin"):
        if vector.has(name):
            yield vector.folder / name
    if vector.has("ak.tpmt"):
        made = folder / "made.tpm2b"
        made.write_bytes(parse_public(vector.read("ak.tpmt")).sized)
        yield made


def signature_files(vector: Vector, name: str, folder: Path) -> Iterator[Path]:
    """TPMT_SIGNATURE, and plain where it is of the kind that may be plain."""
    yield vector.folder / f"{name}.sig"
    if vector.has(f"{name}.sig.raw"):
        yield vector.folder / f"{name}.sig.raw"
    signature = parse_signature(vector.read(f"{name}.sig"))
    if signature.hash.name == "sha256" and signature.scheme != "rsapss":
        made = folder / "plain.sig"
        plain = signature.value or encode_dss_signature(signature.r, signature.s)
        made.write_bytes(plain)
        yield made


def register_file(vector: Vector, name: str, folder: Path) -> Path | None:
    """The published values of exactly the signed selection."""
    values = pcr_values(vector, parse_quote(vector.read(f"{name}.msg")))
    if values is None:
        return None
    made = folder / "pcrs.json"
    made.write_text(
        json.dumps(
            {bank: {str(pcr): value.hex() for pcr, value in held.items()} for bank, held in values.items()}
        )
    )
    return made


def words(
    vector: Vector, name: str, *, ak: Path, signature: Path, nonce: str, pcrs: Path | None
) -> list[str]:
    given = ["evidence", "quote", "--json", "--ak", str(ak), "--attest", str(vector.folder / f"{name}.msg")]
    given += ["--signature", str(signature), "--nonce", nonce]
    return given if pcrs is None else [*given, "--pcrs", str(pcrs)]


def told(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    assert list(found) == MEMBERS
    assert result.exit_code == (0 if found["valid"] else 1), result.output
    assert (found["reason"] is None) is found["valid"]
    return found


@pytest.mark.parametrize("vector", GENUINE, ids=str)
def test_a_published_quote_holds_in_every_form_of_its_files(
    attestd: Run, vector: Vector, tmp_path: Path
) -> None:
    count = 0
    for name, checked in quotes_of(vector):
        pcrs = register_file(vector, name, tmp_path)
        for ak in key_files(vector, tmp_path):
            for signature in signature_files(vector, name, tmp_path):
                nonce = vector.nonce.hex()
                found = told(
                    attestd(*words(vector, name, ak=ak, signature=signature, nonce=nonce, pcrs=pcrs))
                )
                assert found["valid"], (ak.name, signature.name, found["reason"])
                facts = checked["attest"]
                assert found["clock"]["reset_count"] == facts["resetCount"]
                assert int(found["firmware_version"], 16) == int(facts["fw"], 16)
                assert len(found["firmware_version"]) == 16
                assert found["pcr_digest"] == checked.get("pcr_digest", facts.get("pcrDigest"))
                count += 1
                wrong = words(vector, name, ak=ak, signature=signature, nonce="00" + nonce, pcrs=pcrs)
                assert told(attestd(*wrong))["reason"] in ("nonce_mismatch", "nonce_missing")
    print(f"{count} quotes held")
    assert count


@pytest.mark.parametrize("vector", FORGERIES, ids=str)
def test_a_published_forgery_does_not_hold_and_says_why(attestd: Run, vector: Vector, tmp_path: Path) -> None:
    empty = vector.folder.name == "mut-quote-empty-nonce"
    nonce = "" if empty or not vector.has("nonce.hex") else vector.nonce.hex()
    pcrs = None
    with suppress(AttestationError):
        pcrs = register_file(vector, "quote", tmp_path)
    (ak, *_) = key_files(vector, tmp_path)
    signature = vector.folder / "quote.sig"
    found = told(attestd(*words(vector, "quote", ak=ak, signature=signature, nonce=nonce, pcrs=pcrs)))
    assert (found["valid"], found["reason"]) == (False, OFFLINE[str(vector)])


@pytest.mark.parametrize("vector", WEAK, ids=str)
def test_a_quote_over_sha_1_does_not_hold(attestd: Run, vector: Vector, tmp_path: Path) -> None:
    for ak in key_files(vector, tmp_path):
        given = words(
            vector, "quote", ak=ak, signature=vector.folder / "quote.sig", nonce=vector.nonce.hex(), pcrs=None
        )
        assert told(attestd(*given))["reason"] == "hash_not_allowed"


def test_the_vectors_are_all_here() -> None:
    print(f"{len(GENUINE)} genuine, {len(FORGERIES)} forged, {len(WEAK)} of SHA-1")
    assert (len(GENUINE), len(FORGERIES), len(WEAK)) == (18, 13, 1)


def good(folder: Path, **changes: Any) -> list[str]:
    """The command for a quote that holds, with some of its files replaced."""
    parts: dict[str, Any] = {
        "ak": GOOD.folder / "ak.pem",
        "signature": GOOD.folder / "quote.sig",
        "nonce": GOOD.nonce.hex(),
        "pcrs": register_file(GOOD, "quote", folder),
    }
    return words(GOOD, "quote", **(parts | changes))


def registers(change: Callable[[dict[str, dict[str, str]]], object]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return edit


@pytest.mark.parametrize(
    "change",
    [
        registers(lambda values: values["sha256"].popitem()),
        registers(lambda values: values["sha256"].update({"23": "00" * 32})),
        registers(lambda values: values.update(sha1={"0": "00" * 20})),
        registers(lambda values: values.update(sha1=values.pop("sha256"))),
        registers(lambda values: values.clear()),
        registers(lambda values: values["sha256"].update({min(values["sha256"]): "00" * 32})),
        registers(lambda values: values["sha256"].update({min(values["sha256"]): "00" * 31})),
    ],
    ids=["one less", "one more", "a bank more", "another bank", "none", "another value", "too short"],
)
def test_the_pcr_file_is_exactly_the_signed_selection(
    attestd: Run, change: Callable[[Path], None], tmp_path: Path
) -> None:
    assert told(attestd(*good(tmp_path)))["valid"]
    command = good(tmp_path)
    change(tmp_path / "pcrs.json")
    found = told(attestd(*command))
    assert (found["valid"], found["reason"]) == (False, "pcr_mismatch")
    assert found["pcr_digest"] == GOOD.about["checked"]["pcr_digest"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"\x00", "truncated"),
        (b"\x30\x03\x02\x01\x00", "unknown_signature"),
        (bytes(256), "bad_signature"),
        (b"\x00\x05\x00\x0b\x00\x01\x00", "unknown_signature"),
    ],
)
def test_a_file_that_is_no_signature_is_a_reason(
    attestd: Run, content: bytes, reason: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    found = told(attestd(*good(tmp_path, signature=bad)))
    assert (found["valid"], found["reason"]) == (False, reason)
    assert found["clock"] is not None


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", bytes(300)],
)
def test_a_file_that_is_no_key_is_a_reason(attestd: Run, content: bytes, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    found = told(attestd(*good(tmp_path, ak=bad)))
    assert (found["valid"], found["reason"]) == (False, "ak_unreadable")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"sha256": []}', '{"sha256": {"x": "00"}}', '{"sha256": {"24": ""}}']
)
def test_what_is_no_pcr_file_ends_with_status_2(attestd: Run, content: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    assert attestd(*good(tmp_path, pcrs=bad)).exit_code == 2


def test_wrong_options_and_missing_files_end_with_status_2(attestd: Run, tmp_path: Path) -> None:
    for changes in ({"nonce": "0"}, {"nonce": "zz"}, {"ak": tmp_path / "none"}, {"signature": tmp_path}):
        result = attestd(*good(tmp_path, **changes))
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
    assert attestd(*good(tmp_path)[:-4]).exit_code == 2


def test_people_read_sentences(attestd: Run, tmp_path: Path) -> None:
    held = attestd(*[word for word in good(tmp_path) if word != "--json"])
    assert held.stdout.startswith("The quote holds.\n  registers   sha256 ")
    lost = attestd(*[word for word in good(tmp_path, nonce="00") if word != "--json"])
    assert lost.exit_code == 1
    assert lost.stdout.startswith("The quote does not hold (nonce_mismatch): The TPM signed")


def test_a_key_that_is_not_restricted_does_not_hold(attestd: Run, tmp_path: Path) -> None:
    """What it signs need not come from its TPM: anyone can write the magic number before such a signature."""
    vector = next(one for one in GENUINE if one.folder.name == "gce-cos85-nonce9009")
    public = bytearray(vector.read("ak.tpmt"))
    nonce = vector.nonce.hex()
    area = tmp_path / "ak.tpmt"

    def judged() -> dict[str, Any]:
        area.write_bytes(public)
        signature = vector.folder / "quote_sha256.sig"
        return told(
            attestd(*words(vector, "quote_sha256", ak=area, signature=signature, nonce=nonce, pcrs=None))
        )

    assert judged()["valid"]
    public[5] &= ~0x01
    assert judged()["reason"] == "ak_attributes"
