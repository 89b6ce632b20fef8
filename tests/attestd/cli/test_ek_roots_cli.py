"""Does an operator trust exactly the makers that were meant, and is every change told and recorded?"""

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.cli.ek_roots_review import Provenance, Review, look_at, read_note
from attestd.cli.failures import Failure
from attestd.cli.options import operator as operator_name
from attestd.clock import now_ms, rfc3339
from attestd.trust import TrustStore
from tests.attestd.cli.operator import DEVICE, OTHER, Operator
from tests.tpm.verify.authorities import DAY, NOW, Authority, constraints, purposes
from tpm.verify.certificate_pem import read_certificate_file

MAKER, SECOND = Authority.root("Maker Root"), Authority.root("Second Root")


def digest(authority: Authority) -> str:
    return hashlib.sha256(authority.der).hexdigest()


def pem(*authorities: Authority) -> bytes:
    return b"".join(one.certificate.public_bytes(Encoding.PEM) for one in authorities)


@pytest.fixture
def operator(served: Path) -> Operator:
    return Operator(served.parent)


def roots(operator: Operator) -> Path:
    return operator.directory / "ek-roots"


def put(operator: Operator, content: bytes, name: str = "given.pem") -> str:
    path = operator.directory / name
    path.write_bytes(content)
    return str(path)


def listed(operator: Operator) -> list[dict[str, str]]:
    done = operator.run("ek-roots", "list", "--json")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(done: Result, status: int = 1) -> str:
    assert done.exit_code == status, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("attestd: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("content", [MAKER.der, pem(MAKER)], ids=["DER", "PEM"])
def test_an_imported_root_is_trusted_shown_and_recorded(operator: Operator, content: bytes) -> None:
    assert listed(operator) == []
    done = operator.run("ek-roots", "import", put(operator, content))
    assert done.exit_code == 0, done.stderr
    for words in (
        digest(MAKER),
        "CN=Maker Root",
        "p256",
        "valid from 2026-08-17T12:00:00Z to 2029-08-21T12:00:00Z",
    ):
        assert words in done.stdout
    (told,) = listed(operator)
    assert rfc3339(now_ms() - 60_000) <= told.pop("imported_at") <= rfc3339(now_ms())
    assert told == {
        "fingerprint": digest(MAKER),
        "subject": "CN=Maker Root",
        "maker": "Maker Root",
        "key": "p256",
        "not_before": "2026-08-17T12:00:00Z",
        "expires_at": "2029-08-21T12:00:00Z",
        "file": f"{digest(MAKER)[:16]}.pem",
        "imported_from": "given.pem",
        "imported_by": operator_name(),
        "reviewed": "no",
    }
    store = TrustStore(roots(operator))
    assert store.verify(MAKER.endorse(), [], ek=None, now_ms=int(NOW.timestamp() * 1000))
    record = operator.last_record()["details"]
    assert (record["verb"], record["root_sha256"]) == ("ek-roots import", digest(MAKER))
    assert (record["source"], record["reviewed"]) == ("given.pem", "no")


def test_a_list_for_people_names_fingerprint_maker_expiry_and_file(operator: Operator) -> None:
    empty = operator.run("ek-roots", "list")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "nobody is trusted" in empty.stderr
    operator.run("ek-roots", "import", put(operator, pem(MAKER)))
    line = operator.run("ek-roots", "list").stdout
    for told in (digest(MAKER)[:16], "Maker Root", "2029-08-21", f"{digest(MAKER)[:16]}.pem"):
        assert told in line


def test_importing_twice_changes_nothing(operator: Operator) -> None:
    given = put(operator, pem(MAKER))
    operator.run("ek-roots", "import", given)
    before, records = listed(operator), len(operator.admin_records())
    again = operator.run("ek-roots", "import", given, given)
    assert again.exit_code == 0
    assert "trusted already: CN=Maker Root" in again.stdout
    assert (listed(operator), len(operator.admin_records())) == (before, records)


def test_a_bundle_becomes_one_file_a_root_readable_by_all(operator: Operator) -> None:
    assert operator.run("ek-roots", "import", put(operator, pem(MAKER, SECOND))).exit_code == 0
    files = sorted(roots(operator).iterdir())
    assert [path.name for path in files] == sorted(f"{digest(one)[:16]}.pem" for one in (MAKER, SECOND))
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


SHORT = rsa.generate_private_key(65537, 1024)
UNFIT = {
    "a device's": (MAKER.endorse(), "is no certification authority"),
    "not a CA": (
        SECOND.changed(lambda form: form.having(*constraints(False)), "x").der,
        "is no certification authority",
    ),
    "expired": (
        Authority.root("Old", not_before=NOW - 900 * DAY, not_after=NOW - 400 * DAY).der,
        "is valid from",
    ),
    "weak": (Authority.root("Short", SHORT).der, "1024 bits"),
    "for AKs": (
        SECOND.changed(lambda form: form.having(*purposes("2.23.133.8.3")), "x").der,
        "other purposes",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_could_be_no_root_is_not_imported_nor_what_comes_with_it(operator: Operator, case: str) -> None:
    content, why = UNFIT[case]
    good, bad = put(operator, pem(MAKER)), put(operator, content, "bad.der")
    before = len(operator.admin_records())
    told = refused(operator.run("ek-roots", "import", good, bad))
    assert why in told
    assert bad in told
    assert listed(operator) == []
    assert len(operator.admin_records()) == before
    assert operator.run("ek-roots", "import", good).exit_code == 0


@pytest.mark.parametrize("content", [b"", b"text", pem(MAKER)[:-10]])
def test_a_file_without_certificates_is_unusable(operator: Operator, content: bytes) -> None:
    assert "given.pem" in refused(operator.run("ek-roots", "import", put(operator, content)), 2)
    refused(operator.run("ek-roots", "import", str(operator.directory / "none.pem")), 2)
    refused(operator.run("ek-roots", "import", str(operator.directory)), 2)
    refused(operator.run("ek-roots", "import"), 2)


def test_st_8_a_link_in_the_way_is_not_followed(operator: Operator) -> None:
    victim = operator.directory / "victim"
    (roots(operator) / f"{digest(MAKER)[:16]}.pem").symlink_to(victim)
    given = put(operator, pem(MAKER))
    refused(operator.run("ek-roots", "import", given))
    assert not victim.exists()
    assert operator.run("ek-roots", "remove", f"{digest(MAKER)[:16]}.pem").exit_code == 0
    assert operator.run("ek-roots", "import", given).exit_code == 0
    assert not victim.exists()


def test_another_file_of_that_name_is_not_overwritten(operator: Operator) -> None:
    path = roots(operator) / f"{digest(MAKER)[:16]}.pem"
    path.write_bytes(pem(SECOND))
    assert "in the way" in refused(operator.run("ek-roots", "import", put(operator, pem(MAKER))))
    assert path.read_bytes() == pem(SECOND)
    path.unlink()
    assert operator.run("ek-roots", "import", put(operator, pem(MAKER))).exit_code == 0


@pytest.mark.parametrize(
    "spell",
    [lambda d: d, lambda d: d[:8], lambda d: d[:20].upper(), lambda d: f"{d[:2]}:{d[2:4]}:{d[4:6]}:{d[6:8]}"],
)
def test_a_root_is_removed_by_its_fingerprint(operator: Operator, spell: Callable[[str], str]) -> None:
    operator.run("ek-roots", "import", put(operator, pem(MAKER, SECOND)))
    done = operator.run("ek-roots", "remove", spell(digest(MAKER)))
    assert done.exit_code == 0, done.stderr
    assert "CN=Maker Root" in done.stdout
    assert [one["fingerprint"] for one in listed(operator)] == [digest(SECOND)]
    record = operator.last_record()["details"]
    assert (record["verb"], record["root_sha256"]) == ("ek-roots remove", digest(MAKER))


def test_one_root_of_a_bundle_is_removed_and_the_rest_stays(operator: Operator) -> None:
    (roots(operator) / "bundle.pem").write_bytes(pem(MAKER, SECOND))
    (roots(operator) / "again.der").write_bytes(MAKER.der)
    assert operator.run("ek-roots", "remove", digest(MAKER)).exit_code == 0
    assert [(one["fingerprint"], one["file"]) for one in listed(operator)] == [(digest(SECOND), "bundle.pem")]


def test_a_file_is_removed_by_its_name_or_path(operator: Operator) -> None:
    for name in ("one.pem", str(roots(operator) / "one.pem")):
        (roots(operator) / "one.pem").write_bytes(pem(MAKER, SECOND))
        assert operator.run("ek-roots", "remove", name).exit_code == 0
        assert listed(operator) == []


def test_a_file_that_stops_the_service_can_be_removed(operator: Operator) -> None:
    (roots(operator) / "bad.pem").write_bytes(b"half")
    told = refused(operator.run("ek-roots", "list"))
    assert "bad.pem" in told
    assert operator.run("ek-roots", "remove", "bad.pem").exit_code == 0
    assert operator.last_record()["details"]["file"] == "bad.pem"
    assert listed(operator) == []


@pytest.mark.parametrize(
    "which", ["abcdef0", "00000000", "none.pem", "../attestd.toml", "..", "/etc/passwd", "", "zz" * 8]
)
def test_nothing_else_is_removed(operator: Operator, which: str) -> None:
    operator.run("ek-roots", "import", put(operator, pem(MAKER)))
    told = refused(operator.run("ek-roots", "remove", which))
    assert "ek-roots list" in told
    assert [one["fingerprint"] for one in listed(operator)] == [digest(MAKER)]
    assert (operator.directory / "attestd.toml").exists()


def test_a_directory_in_the_store_is_left_alone(operator: Operator) -> None:
    (roots(operator) / "more").mkdir()
    assert "directory" in refused(operator.run("ek-roots", "remove", "more"))
    assert (roots(operator) / "more").is_dir()


def test_removing_says_how_many_devices_it_let_in(operator: Operator) -> None:
    operator.run("ek-roots", "import", put(operator, pem(MAKER, SECOND)))
    operator.add(DEVICE, root_sha256=digest(MAKER))
    operator.add(OTHER, root_sha256=digest(SECOND), name="gw-2")
    told = operator.run("ek-roots", "remove", digest(MAKER)).stdout
    assert "devices enrolled on its word: 1, credentials ended: 0\n" in told


def test_an_odd_subject_cannot_break_a_line(operator: Operator) -> None:
    odd = Authority.root("A\nB\x1b[31m\u2028C")
    operator.run("ek-roots", "import", put(operator, odd.der))
    shown = operator.run("ek-roots", "list").stdout
    assert shown.count("\n") == 1
    assert shown.rstrip("\n").isprintable()
    assert listed(operator)[0]["fingerprint"] == digest(odd)


# --- review and provenance -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelled", [str, str.upper, lambda digits: ":".join(digits[i : i + 2] for i in range(0, 64, 2))]
)
def test_a_fingerprint_that_was_named_is_the_one_that_is_trusted(
    operator: Operator, spelled: Callable[[str], str]
) -> None:
    done = operator.run("ek-roots", "import", put(operator, pem(MAKER)), "--sha256", spelled(digest(MAKER)))
    assert done.exit_code == 0, done.stderr
    assert listed(operator)[0]["reviewed"] == "fingerprint"
    assert operator.last_record()["details"]["reviewed"] == "fingerprint"


def test_another_root_than_the_named_one_is_not_trusted_nor_what_comes_with_it(operator: Operator) -> None:
    given, before = put(operator, pem(MAKER, SECOND)), operator.admin_records()
    told = refused(operator.run("ek-roots", "import", given, "--sha256", digest(MAKER)))
    assert digest(SECOND) in told
    assert listed(operator) == []
    assert operator.admin_records() == before
    both = ["--sha256", digest(MAKER), "--sha256", digest(SECOND)]
    assert operator.run("ek-roots", "import", given, *both).exit_code == 0
    assert len(listed(operator)) == 2


@pytest.mark.parametrize("digits", ["", "00", "zz" * 32, "ab" * 33])
def test_what_is_no_fingerprint_is_wrong_usage(operator: Operator, digits: str) -> None:
    refused(operator.run("ek-roots", "import", put(operator, pem(MAKER)), "--sha256", digits), status=2)
    assert listed(operator) == []


def test_yes_trusts_what_is_shown(operator: Operator) -> None:
    assert operator.run("ek-roots", "import", put(operator, pem(MAKER)), "--yes").exit_code == 0
    assert listed(operator)[0]["reviewed"] == "yes"


def test_a_person_is_shown_the_fingerprint_and_decides(capsys: pytest.CaptureFixture[str]) -> None:
    certificates = read_certificate_file(MAKER.der)
    nothing = Review(False, frozenset())
    asked: list[str] = []

    def answer(yes: bool) -> Callable[[str], bool]:
        return lambda question: not asked.append(question) and yes  # type: ignore[func-returns-value]

    assert look_at(certificates, nothing, source="maker.pem", ask=answer(True)) == "asked"
    shown = capsys.readouterr().err
    for told in (digest(MAKER), "CN=Maker Root", "p256", "maker.pem"):
        assert told in shown
    with pytest.raises(Failure, match="declined"):
        look_at(certificates, nothing, source="maker.pem", ask=answer(False))
    assert len(asked) == 2
    assert look_at(certificates, nothing, source="maker.pem", ask=None) == "no"


def test_a_note_cannot_pretend_to_be_a_certificate_or_another_line() -> None:
    source = "x\n# reviewed: fingerprint\n-----BEGIN CERTIFICATE-----.pem"
    note = Provenance(source, "eve", 1_790_000_000_000, "no").note
    assert note.count("\n") == 4
    assert "-----BEGIN" not in note
    assert read_note(note + pem(MAKER).decode())["reviewed"] == "no"
    assert len(read_certificate_file(note.encode() + pem(MAKER))) == 1


def test_a_root_that_was_put_there_has_no_provenance(operator: Operator) -> None:
    (roots(operator) / "by-hand.pem").write_bytes(pem(MAKER))
    (told,) = listed(operator)
    assert (told["imported_from"], told["imported_by"], told["reviewed"]) == (None, None, None)
