"""Does the software TPM start, persist, power cycle and end as its callers rely on?"""

import io
import os
import select
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPML_PCR_SELECTION

from tpm.errors import DeviceError
from tpm.structures.public import parse_sized_public
from tpm.swtpm import SoftwareTpm, run_until_closed
from tpm.swtpm_ca import make_test_ca

_INDEX = {"p256": 0x01C0000A, "rsa": 0x01C00002}
_HANDLE = {"p256": 0x81010002, "rsa": 0x81010001}


def read_nv(esapi: ESAPI, index: int) -> bytes:
    handle = esapi.tr_from_tpmpublic(index)
    size = esapi.nv_read_public(handle)[0].nvPublic.dataSize
    pieces = [
        bytes(esapi.nv_read(handle, min(512, size - offset), offset, auth_handle=ESYS_TR.OWNER))
        for offset in range(0, size, 512)
    ]
    return b"".join(pieces)


def certificate(esapi: ESAPI, kind: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(read_nv(esapi, _INDEX[kind]))


def pcr(esapi: ESAPI, bank: TPM2_ALG, number: int) -> bytes:
    selection = TPML_PCR_SELECTION.parse(
        f"{bank:#x}:{number}" if bank != TPM2_ALG.SHA256 else f"sha256:{number}"
    )
    return bytes(esapi.pcr_read(selection)[2][0])


def counters(esapi: ESAPI) -> tuple[int, int]:
    clock = esapi.read_clock().clockInfo
    return clock.resetCount, clock.restartCount


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_its_certificate_is_for_its_key_under_its_root(shared_tpm: SoftwareTpm, kind: str) -> None:
    with ESAPI(shared_tpm.tcti) as esapi:
        found = certificate(esapi, kind)
        handle = esapi.tr_from_tpmpublic(_HANDLE[kind])
        public = parse_sized_public(esapi.read_public(handle)[0].marshal())
    found.verify_directly_issued_by(shared_tpm.ek_root)
    key = found.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey if kind == "p256" else rsa.RSAPublicKey)
    assert key == public.public_key()


@pytest.mark.parametrize(("kind", "usage"), [("p256", "key_agreement"), ("rsa", "key_encipherment")])
def test_its_certificate_follows_the_profile(shared_tpm: SoftwareTpm, kind: str, usage: str) -> None:
    with ESAPI(shared_tpm.tcti) as esapi:
        extensions = certificate(esapi, kind).extensions
    name = extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert name.critical
    maker = {attribute.oid.dotted_string: attribute.value for attribute in name.value[0].value}  # type: ignore[index]
    assert maker == {
        "2.23.133.2.1": "id:00001014",
        "2.23.133.2.2": "swtpm",
        "2.23.133.2.3": "id:20191023",
    }
    usages = extensions.get_extension_for_class(x509.KeyUsage)
    assert usages.critical
    assert getattr(usages.value, usage)
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [purpose.dotted_string for purpose in purposes] == ["2.23.133.8.1"]
    assert (
        extensions.get_extension_for_oid(x509.ObjectIdentifier("2.5.29.9"))
        .value.value.hex()
        .startswith("3019")
    )
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca


def test_without_a_certificate_there_is_a_key_and_no_certificate() -> None:
    with SoftwareTpm(certificate=False) as tpm, ESAPI(tpm.tcti) as esapi:
        assert esapi.tr_from_tpmpublic(_HANDLE["p256"])
        with pytest.raises(Exception, match="handle"):
            esapi.tr_from_tpmpublic(_INDEX["p256"])


def test_a_chain_has_its_intermediate_in_nv() -> None:
    ca = make_test_ca(intermediate=True)
    with SoftwareTpm(ca=ca) as tpm, ESAPI(tpm.tcti) as esapi:
        intermediate = x509.load_der_x509_certificate(read_nv(esapi, 0x01C00100))
        certificate(esapi, "p256").verify_directly_issued_by(intermediate)
        intermediate.verify_directly_issued_by(tpm.ek_root)


def test_an_unknown_kind_of_key_is_refused_by_name() -> None:
    with pytest.raises(DeviceError, match="p256"):
        SoftwareTpm(ek=("dsa",))


def test_extend_changes_the_named_banks_only_and_works_beside_an_open_context(
    software_tpm: SoftwareTpm,
) -> None:
    with ESAPI(software_tpm.tcti) as esapi:
        before = {bank: pcr(esapi, bank, 7) for bank in (TPM2_ALG.SHA256, TPM2_ALG.SHA384)}
        software_tpm.extend(7, {"sha256": b"\x01" * 32})
        assert pcr(esapi, TPM2_ALG.SHA256, 7) != before[TPM2_ALG.SHA256]
        assert pcr(esapi, TPM2_ALG.SHA384, 7) == before[TPM2_ALG.SHA384]
        with pytest.raises(ValueError, match="32 bytes"):
            software_tpm.extend(7, {"sha256": b"\x01" * 20})


@pytest.mark.parametrize("orderly", [True, False])
def test_a_power_cycle_clears_registers_and_counts(software_tpm: SoftwareTpm, orderly: bool) -> None:
    with ESAPI(software_tpm.tcti) as esapi:
        key = certificate(esapi, "p256")
        software_tpm.extend(7, {"sha256": b"\x01" * 32})
        resets, _ = counters(esapi)
        software_tpm.reset(orderly=orderly)
        assert counters(esapi) == (resets + 1, 0)
        assert pcr(esapi, TPM2_ALG.SHA256, 7) == bytes(32)
        assert certificate(esapi, "p256") == key


def test_a_restart_counts_as_a_restart(software_tpm: SoftwareTpm) -> None:
    with ESAPI(software_tpm.tcti) as esapi:
        resets, restarts = counters(esapi)
        software_tpm.restart()
        assert counters(esapi) == (resets, restarts + 1)


@pytest.mark.parametrize("ek", [("p256",), ("p256", "rsa")])
def test_a_kept_state_is_the_same_machine_under_the_same_root(tmp_path: Path, ek: tuple[str, ...]) -> None:
    found = []
    for _ in range(2):
        with SoftwareTpm(state=tmp_path / "tpm", ek=ek) as tpm, ESAPI(tpm.tcti) as esapi:
            assert esapi.read_clock().clockInfo.safe
            found.append((tpm.ek_root, *(certificate(esapi, kind) for kind in ek), counters(esapi)[0]))
    assert found[0][:-1] == found[1][:-1]
    assert found[1][-1] > found[0][-1]
    assert (tmp_path / "tpm/ek-root.key").stat().st_mode & 0o777 == 0o600


def test_two_new_machines_have_nothing_in_common_but_the_root() -> None:
    with SoftwareTpm() as one, SoftwareTpm() as other, ESAPI(one.tcti) as first, ESAPI(other.tcti) as second:
        assert one.ek_root == other.ek_root
        assert certificate(first, "p256").public_key() != certificate(second, "p256").public_key()


def test_many_start_in_parallel() -> None:
    def key(_: int) -> bytes:
        with SoftwareTpm() as tpm, ESAPI(tpm.tcti) as esapi:
            return certificate(esapi, "p256").public_bytes(serialization.Encoding.DER)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(key, range(16)))) == 16


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with SoftwareTpm() as tpm:
        pid = tpm.pid
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(DeviceError, match="not started or has ended"):
        tpm.extend(0, {"sha256": bytes(32)})


def test_a_state_that_cannot_be_used_says_what_swtpm_said(tmp_path: Path) -> None:
    state = tmp_path / "tpm"
    state.mkdir()
    (state / "tpm2-00.permall").write_bytes(b"this is no state")
    with pytest.raises(DeviceError) as caught, SoftwareTpm(state=state):
        pass
    assert caught.value.reason in ("swtpm_failed", "tpm_refused")


def test_a_machine_without_swtpm_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="apt-get install swtpm"), SoftwareTpm():
        pass


def test_run_until_closed_prints_the_tcti_and_ends_with_its_input() -> None:
    printed = io.StringIO()
    tpm = SoftwareTpm()
    run_until_closed(tpm, io.StringIO("anything\n"), printed)
    lines = printed.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("swtpm:path=/")
    assert not Path(lines[0].removeprefix("swtpm:path=")).exists()


@pytest.mark.parametrize("end", ["stdin", "SIGTERM"])
def test_the_command_line_runs_until_stdin_closes_or_it_is_told_to_end(tmp_path: Path, end: str) -> None:
    root = tmp_path / "root.pem"
    arguments = ["--state", str(tmp_path / "tpm"), "--ek-root", str(root), "--ek", "both"]
    program = "from attestd.cli.main import main; main()"
    command = [sys.executable, "-c", program, "swtpm", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        ready, _, _ = select.select([process.stdout], [], [], 60)
        assert ready
        tcti = os.read(process.stdout.fileno(), 4096).decode()
        with ESAPI(tcti.strip()) as esapi:
            trusted = x509.load_pem_x509_certificate(root.read_bytes())
            for kind in ("p256", "rsa"):
                certificate(esapi, kind).verify_directly_issued_by(trusted)
        if end == "stdin":
            process.stdin.close()
        else:
            process.terminate()
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
    assert tcti.count("\n") == 1
    assert not Path(tcti.strip().removeprefix("swtpm:path=")).exists()
