"""Does `attestd evidence ek` say of every certificate what it is, and trust only whom it is told to?"""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric import ec

from attestd.clock import rfc3339
from tests.tpm.verify.authorities import DAY, NOW, Authority, ek_form, rsa_key
from tests.tpm.verify.test_endorsement_vectors import (
    CASES,
    GENUINE,
    REFUSED,
    VECTORS,
    authorities,
    chain_of,
    expected,
)
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.device_id import device_identifier

Run = Callable[..., Result]
MEMBERS = ["valid", "reason", "manufacturer", "model", "version", "key", "device_id"]
COLLECTIONS = sorted(path for path in (VECTORS / "ek_roots").iterdir())
AT = rfc3339(int(NOW.timestamp() * 1000))
ROOT = Authority.root()
MAKER = ROOT.authority("Maker Manufacturing CA 1")
LEAF = MAKER.endorse()


def told(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    assert list(found) == MEMBERS
    assert result.exit_code == (0 if found["valid"] else 1), result.output
    assert (found["reason"] is None) is found["valid"]
    return found


def day_after(case: Path) -> str:
    begins = read_certificate((case / "cert.der").read_bytes()).not_before
    return rfc3339(int((begins + DAY).timestamp()) * 1000)


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """All collections in one directory, with the papers that lie beside them."""
    folder = tmp_path / "collected"
    folder.mkdir()
    for collection in COLLECTIONS:
        for path in collection.iterdir():
            (folder / f"{collection.name}-{path.name}").write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_collected_certificate_has_its_answer(attestd: Run, case: Path, collected: Path) -> None:
    found = told(
        attestd("evidence", "ek", case / "cert.der", "--roots", collected, "--at", day_after(case), "--json")
    )
    assert found["valid"] is (case.name in GENUINE)
    assert found["reason"] == REFUSED.get(case.name)
    read = read_certificate((case / "cert.der").read_bytes())
    assert found["device_id"] == device_identifier(read.key)
    stated = dict(read.alternative_names or ())
    assert found["model"] == stated.get("2.23.133.2.2")
    assert found["version"] == stated.get("2.23.133.2.3")
    assert (found["manufacturer"] is None) is ("2.23.133.2.1" not in stated)
    if case.name in GENUINE:
        assert (found["manufacturer"], found["model"], found["version"]) == GENUINE[case.name]


def test_the_collected_certificates_are_counted() -> None:
    chained = [case for case in CASES if expected(case)["expected"]["chain_to_collected_roots"]]
    lacking = {case.name for case in chained} - GENUINE.keys()
    print(f"{len(CASES)} certificates; {len(chained)} are said to lead to a root, {len(GENUINE)} do here")
    assert lacking == {
        # Attestation keys' certificates, which are none of an EK whoever issued them.
        "gce-cos85-ak", "gce-pca-rsa-sign", "gce-uca-rsa-sign-ak",
        # Their issuing authorities are in none of the collections.
        "gce-ek-salrashid", "infineon-rsa-ca007", "infineon-rsa-ca035",
    }  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.name in GENUINE], ids=lambda case: case.name)
def test_without_roots_nothing_is_valid(attestd: Run, case: Path) -> None:
    found = told(attestd("evidence", "ek", case / "cert.der", "--at", day_after(case), "--json"))
    assert (found["valid"], found["reason"]) == (False, "ek_chain_untrusted")
    assert found["key"] == "rsa2048"


@pytest.mark.parametrize("case", [case for case in CASES if case.name in GENUINE], ids=lambda case: case.name)
def test_the_chain_may_be_given_beside_the_root(attestd: Run, case: Path, tmp_path: Path) -> None:
    raw = (case / "cert.der").read_bytes()
    chain = chain_of(raw)
    top = read_certificate(chain[-1] if chain else raw).issuer
    roots = tmp_path / "root.der"
    roots.write_bytes(next(one.raw for one in authorities()[0] if one.subject == top))
    command = ["evidence", "ek", case / "cert.der", "--roots", roots, "--at", day_after(case), "--json"]
    for number, one in enumerate(chain):
        (tmp_path / f"{number}.der").write_bytes(one)
        command += ["--chain", tmp_path / f"{number}.der"]
    assert told(attestd(*command))["valid"]
    if chain:
        assert told(attestd(*command[:-2]))["reason"] == "ek_chain_untrusted"


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


FORMS = {
    "DER": LEAF,
    "PEM": pem(LEAF),
    "PEM with its chain": pem(LEAF) + pem(MAKER.der),
    "zeros behind": LEAF + bytes(200),
    "FF behind": LEAF + b"\xff" * 200,
    "a TPM2B": struct.pack(">H", len(LEAF)) + LEAF,
    "the TCG's header": b"\x10\x01\x00" + struct.pack(">H", len(LEAF) + 2) + b"\x10\x02" + LEAF,
    "its shorter form and padding": b"\x10\x01\x00" + struct.pack(">H", len(LEAF)) + LEAF + b"\xff" * 9,
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_a_certificate_is_read_in_every_form(attestd: Run, content: bytes, tmp_path: Path) -> None:
    files = {"cert": content, "maker.der": MAKER.der, "root.pem": pem(ROOT.der)}
    for name, written in files.items():
        (tmp_path / name).write_bytes(written)
    chain = ["--chain", tmp_path / "maker.der", "--roots", tmp_path / "root.pem", "--at", AT, "--json"]
    found = told(attestd("evidence", "ek", tmp_path / "cert", *chain))
    assert found == {
        "valid": True,
        "reason": None,
        "manufacturer": "IFX",
        "model": "SLB 9670 TPM2.0",
        "version": "id:073f",
        "key": "rsa2048",
        "device_id": device_identifier(read_certificate(LEAF).key),
    }


@pytest.mark.parametrize(
    "content", [b"", b"text", LEAF[:-1], LEAF + b"\x01", pem(LEAF)[:-40], pem(LEAF) + b"-----BEGIN X-----"]
)
def test_a_file_that_is_no_certificate_is_a_reason(attestd: Run, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cert").write_bytes(content)
    found = told(attestd("evidence", "ek", tmp_path / "cert", "--json"))
    assert found == dict.fromkeys(MEMBERS) | {"valid": False, "reason": "ek_certificate_unreadable"}


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (NOW - 101 * DAY, "ek_not_yet_valid"),
        (NOW, None),
        (NOW + 1001 * DAY, "ek_expired"),
    ],
)
def test_ct_4_it_is_valid_between_its_dates_only(
    attestd: Run, at: Any, reason: str | None, tmp_path: Path
) -> None:
    for name, written in {"cert": LEAF, "maker": MAKER.der, "root": ROOT.der}.items():
        (tmp_path / name).write_bytes(written)
    given = ["--chain", tmp_path / "maker", "--roots", tmp_path / "root", "--json"]
    moment = rfc3339(int(at.timestamp() * 1000))
    assert told(attestd("evidence", "ek", tmp_path / "cert", *given, "--at", moment))["reason"] == reason


def test_ct_1_an_authority_of_the_same_name_is_not_the_maker(attestd: Run, tmp_path: Path) -> None:
    clone = Authority.root()
    for name, written in {"cert": clone.endorse(), "root": ROOT.der, "clone": clone.der}.items():
        (tmp_path / name).write_bytes(written)
    given = ["evidence", "ek", tmp_path / "cert", "--at", AT, "--json", "--roots"]
    assert told(attestd(*given, tmp_path / "root"))["reason"] in ("ek_chain_untrusted", "ek_signature")
    assert told(attestd(*given, tmp_path / "clone"))["valid"]


def test_ct_8_a_weak_key_does_not_hold_and_is_named(attestd: Run, tmp_path: Path) -> None:
    for name, key in {
        "weak": rsa_key(exponent=3),
        "curve": ec.generate_private_key(ec.SECP384R1()).public_key(),
    }.items():
        (tmp_path / name).write_bytes(ROOT.endorse(ek_form(key)))
    (tmp_path / "root").write_bytes(ROOT.der)
    given = ["--roots", tmp_path / "root", "--at", AT, "--json"]
    assert told(attestd("evidence", "ek", tmp_path / "weak", *given))["reason"] == "weak_key"
    assert told(attestd("evidence", "ek", tmp_path / "curve", *given))["key"] == "p384"


def test_a_whole_collection_may_be_given_as_the_chain(attestd: Run, tmp_path: Path) -> None:
    case = VECTORS / "ek_certs" / "stm-rsa-ca06-paccor"
    roots = tmp_path / "roots"
    roots.mkdir()
    given: list[Any] = [
        "evidence",
        "ek",
        case / "cert.der",
        "--roots",
        roots,
        "--at",
        day_after(case),
        "--json",
    ]
    for path in sorted((VECTORS / "ek_roots" / "keylime-cert-store").glob("*.pem")):
        given += ["--chain", path]
    assert told(attestd(*given))["reason"] == "ek_chain_untrusted"
    root = VECTORS / "ek_roots" / "keylime-cert-store" / "GS_TPM_RT.pem"
    (roots / root.name).write_bytes(root.read_bytes())
    assert told(attestd(*given))["valid"]


def test_wrong_options_and_missing_files_end_with_status_2(attestd: Run, tmp_path: Path) -> None:
    (tmp_path / "cert").write_bytes(LEAF)
    for words in (
        [tmp_path / "none"],
        [tmp_path],
        [tmp_path / "cert", "--at", "yesterday"],
        [tmp_path / "cert", "--roots", tmp_path / "none"],
        [tmp_path / "cert", "--chain", tmp_path / "none"],
        [tmp_path / "cert", "--rots", tmp_path],
        [],
    ):
        result = attestd("evidence", "ek", *words, "--json")
        assert result.exit_code == 2, result.output
        assert result.stdout == ""


def test_people_read_sentences(attestd: Run, tmp_path: Path) -> None:
    (tmp_path / "cert").write_bytes(LEAF)
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "maker.der").write_bytes(MAKER.der)
    (tmp_path / "roots" / "notes.txt").write_text("from the maker's page")
    given = ["evidence", "ek", tmp_path / "cert", "--at", AT]
    held = attestd(*given, "--roots", tmp_path / "roots")
    assert held.stdout.startswith("The certificate holds.\n  manufacturer  IFX\n")
    assert "notes.txt is no certificate" in held.stderr
    lost = attestd(*given)
    assert lost.exit_code == 1
    assert lost.stdout.startswith("The certificate does not hold (ek_chain_untrusted): No path leads")
