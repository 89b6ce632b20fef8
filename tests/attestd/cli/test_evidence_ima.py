"""`attestd evidence ima`: one JSON object, whole whatever the file is, and a status that says if it holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.attestd.cli.conftest import Run
from tests.tpm.ima.kernel import FORMS, Kernel, digest_field, record
from tests.tpm.vectors import Vector, vectors

MEMBERS = ["valid", "reason", "entries", "template", "banks", "violations", "covered", "boot_aggregate"]
LISTS = [vector for vector in vectors("ima/*") if vector.about["expected"]["parse"] == "ok"]


def told(attestd: Run, raw: bytes, folder: Path, pcrs: Any = None) -> dict[str, Any]:
    """What the command prints of these bytes; its exit status agrees."""
    (folder / "list").write_bytes(raw)
    arguments: list[str | Path] = ["evidence", "ima", folder / "list", "--json"]
    if pcrs is not None:
        (folder / "pcrs.json").write_text(json.dumps(pcrs))
        arguments += ["--pcrs", folder / "pcrs.json"]
    result = attestd(*arguments)
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["valid"] else 1), result.output
    assert [name for name in found if name in MEMBERS] == MEMBERS
    assert (found["reason"] is None) == found["valid"]
    return found


def registers(kernel: Kernel) -> dict[str, dict[str, str]]:
    return {"sha256": {str(register): value.hex() for register, value in kernel.quoted.values.items()}}


@pytest.mark.parametrize("vector", LISTS, ids=str)
def test_a_published_list_holds_with_its_own_registers(vector: Vector, attestd: Run, tmp_path: Path) -> None:
    expected = vector.about["expected"]
    raw = vector.read("ima.bin" if vector.has("ima.bin") else "ima.txt")
    replayed = expected["replayed"]["10"]
    banks = {"sha1": {"10": replayed["sha1"]}, "sha256": {"10": replayed["sha256_native"]}}
    found = told(attestd, raw, tmp_path, banks)
    assert found["banks"] == banks
    assert found["covered"] == found["entries"] == expected["entries"]
    assert found["violations"] == expected["violations"]
    templates = list(expected["templates"])
    assert found["template"] == (templates[0] if len(templates) == 1 else "mixed")
    assert told(attestd, raw, tmp_path)["covered"] == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_told_whole(form: str, attestd: Run, tmp_path: Path) -> None:
    kernel = Kernel.booted().run(b"/init").violate(b"/log").run(b"/bin/sh")
    quoted = registers(kernel)
    kernel.run(b"/later")
    found = told(attestd, kernel.raw(form), tmp_path, quoted)
    assert (found["entries"], found["covered"], found["violations"], found["template"]) == (5, 4, 1, "ima-ng")
    assert found["boot_aggregate"].startswith("sha256:")
    assert found["banks"]["sha256"] == {"10": kernel.value.hex()}


def test_a_bank_that_is_quoted_is_replayed(attestd: Run, tmp_path: Path) -> None:
    kernel = Kernel.booted()
    found = told(attestd, kernel.raw(), tmp_path, {"sha512": {"10": "00" * 64}})
    assert (found["valid"], found["reason"]) == (False, "ima_not_covered")
    good = {"sha512": {"10": found["banks"]["sha512"]["10"]}}
    assert told(attestd, kernel.raw(), tmp_path, good)["covered"] == 1


def test_im_4_a_line_break_in_a_path_is_one_entry(attestd: Run, tmp_path: Path) -> None:
    fake = FORMS["ascii"](record("ima-ng", digest_field(b"x"), b"/bin/good\0"))
    kernel = Kernel.booted().run(b"/tmp/evil\n" + fake)
    for form in FORMS:
        found = told(attestd, kernel.raw(form), tmp_path, registers(kernel))
        assert (found["valid"], found["entries"], found["covered"]) == (True, 2, 2)


REFUSED = {
    "empty": (lambda raw: b"", "log_empty", 0),
    "no list": (lambda raw: b"this is text", "not_a_list", None),
    "cut": (lambda raw: raw[:-1], "truncated", 2),
    "altered": (lambda raw: raw.replace(b"/bin/sh", b"/bin/zz"), "ima_template_digest", 3),
    "shortened": (lambda raw: raw[: raw.rindex(b"\x0a\0\0\0")], "ima_not_covered", 2),
}


@pytest.mark.parametrize(("change", "reason", "entries"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_hold_is_told_with_a_reason(  # type: ignore[no-untyped-def]
    change, reason: str, entries: int | None, attestd: Run, tmp_path: Path
) -> None:
    kernel = Kernel.booted().run(b"/init").run(b"/bin/sh")
    assert told(attestd, kernel.raw(), tmp_path, registers(kernel))["valid"]
    found = told(attestd, change(kernel.raw()), tmp_path, registers(kernel))
    assert (found["reason"], found["entries"]) == (reason, entries)


def test_im_5_a_boot_aggregate_of_other_registers_does_not_hold(attestd: Run, tmp_path: Path) -> None:
    kernel = Kernel.booted().run(b"/init")
    quoted = registers(kernel)
    assert told(attestd, kernel.raw(), tmp_path, quoted)["valid"]
    quoted["sha256"]["4"] = "44" * 32
    assert told(attestd, kernel.raw(), tmp_path, quoted)["reason"] == "boot_aggregate"


def test_a_file_that_cannot_be_opened_is_status_2(attestd: Run, tmp_path: Path) -> None:
    result = attestd("evidence", "ima", tmp_path / "absent", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    (tmp_path / "list").write_bytes(Kernel.booted().raw())
    assert attestd("evidence", "ima", tmp_path / "list", "--json").exit_code == 0
    assert attestd("evidence", "ima", tmp_path / "list", "--pcrs", tmp_path / "absent").exit_code == 2
    assert attestd("evidence", "ima", tmp_path / "list", "--nonsense").exit_code == 2


def test_people_read_lines(attestd: Run, tmp_path: Path) -> None:
    kernel = Kernel.booted().run(b"/init")
    (tmp_path / "list").write_bytes(kernel.raw())
    result = attestd("evidence", "ima", tmp_path / "list")
    assert result.exit_code == 0
    assert result.stdout.startswith("holds\nentries         2, 0 of them violations\n")
    assert "name the registers with --pcrs" in result.stdout
    assert kernel.value.hex() in result.stdout
    (tmp_path / "list").write_bytes(b"rubbish")
    refused = attestd("evidence", "ima", tmp_path / "list")
    assert (refused.exit_code, refused.stdout.splitlines()[0][:33]) == (
        1,
        "does not hold (not_a_list): These",
    )
