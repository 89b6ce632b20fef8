"""How do I get a TPM where there is none?

`SoftwareTpm` runs Debian's `swtpm` as a child process with its own endorsement key and certificate, for
tests, demos and users' CI. It is an emulation: it proves nothing about the machine, and its certificate is
worth what its test root is worth.
"""

import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tpm.errors import DeviceError
from tpm.swtpm_ca import TestCa, issue_endorsement_certificate, kept_test_ca, shared_test_ca

_EndorsementKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_HASHES = {"sha1": (0x0004, 20), "sha256": (0x000B, 32), "sha384": (0x000C, 48), "sha512": (0x000D, 64)}
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_PLATFORM, _ENDORSEMENT, _OWNER = 0x4000000C, 0x4000000B, 0x40000001
_EMPTY_PASSWORD = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
_START_SECONDS = 20.0

# PolicySecret(TPM_RH_ENDORSEMENT), the policy of the low-range endorsement keys (EK Credential Profile 2.6).
_POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_AES_128_CFB_NO_SCHEME = struct.pack(">HHHH", 0x0006, 128, 0x0043, 0x0010)
_EK_HEAD = struct.pack(">HIH", 0x000B, 0x000300B2, 32) + _POLICY_A + _AES_128_CFB_NO_SCHEME
_ZERO_32 = struct.pack(">H", 32) + bytes(32)
# kind: (TPMT_PUBLIC template L-2 or L-1, NV index of its certificate, persistent handle reserved for it)
_EKS = {
    "p256": (
        struct.pack(">H", 0x0023) + _EK_HEAD + struct.pack(">HH", 3, 0x0010) + _ZERO_32 * 2,
        0x01C0000A,
        0x81010002,
    ),
    "rsa": (
        struct.pack(">H", 0x0001) + _EK_HEAD + struct.pack(">HIH", 2048, 0, 256) + bytes(256),
        0x01C00002,
        0x81010001,
    ),
}
_INTERMEDIATE_INDEX = 0x01C00100
# As swtpm_setup: PLATFORMCREATE, NO_DA, AUTHREAD, OWNERREAD, PPREAD, WRITEDEFINE, PPWRITE.
_NV_ATTRIBUTES = 0x42072001


class SoftwareTpm:
    """A running software TPM; leaving the context ends its process and removes its private directory.

    `ek` names the endorsement keys to provision ("p256" is fast, "rsa" can take longer; none is allowed).
    With `certificate`, each gets one in NV under `ca` (by default one test root for this process). With
    `state`, what the TPM keeps stays in that directory, and the next `SoftwareTpm` on it is the same machine,
    under the root that it had.
    """

    def __init__(
        self,
        *,
        ek: Sequence[str] = ("p256",),
        certificate: bool = True,
        ca: TestCa | None = None,
        state: Path | None = None,
    ) -> None:
        unknown = set(ek) - set(_EKS)
        if unknown:
            raise DeviceError("unknown_ek", f"expected keys among {sorted(_EKS)}, found {sorted(unknown)}")
        self._ek = tuple(ek)
        self._certificate = certificate
        self._ca = ca
        self._state = state
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="swtpm-"))
        try:
            self._start()
            self._provision()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if self._state is not None:
                # As a machine that is switched off: unwarned, its clock would not be safe at the next start.
                with suppress(DeviceError, OSError):
                    self.execute(0x145, (), struct.pack(">H", 0), authorized=False)
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    @property
    def tcti(self) -> str:
        """Where the TPM listens, as TCTILdr and the agent's `--tpm` take it."""
        return f"swtpm:path={self._socket}"

    @property
    def ek_root(self) -> x509.Certificate:
        """The root under which the endorsement certificates were made; to be imported like a TPM maker's."""
        return self._authority.root

    @property
    def pid(self) -> int:
        """The process id of the emulator."""
        if self._process is None:
            raise DeviceError("tpm_not_running", "this software TPM was not started or has ended")
        return self._process.pid

    def extend(self, pcr: int, digests: Mapping[str, bytes]) -> None:
        """Extend one register, in each bank that `digests` names; other banks keep their value."""
        values = struct.pack(">I", len(digests))
        for bank, digest in digests.items():
            algorithm, size = _HASHES[bank]
            if len(digest) != size:
                raise ValueError(f"a {bank} digest has {size} bytes, found {len(digest)}")
            values += struct.pack(">H", algorithm) + digest
        self.execute(0x182, (pcr,), values)

    def reset(self, *, orderly: bool = True) -> None:
        """Power cycle: registers start anew, resetCount rises. Not orderly: the power was lost unwarned."""
        if orderly:
            self.execute(0x145, (), struct.pack(">H", 0), authorized=False)
        self._power_cycle()

    def restart(self) -> None:
        """Hibernate and wake (TPM Restart): registers start anew and restartCount rises, resetCount stays."""
        self.execute(0x145, (), struct.pack(">H", 1), authorized=False)
        self._power_cycle()

    def execute(
        self, code: int, handles: Sequence[int] = (), parameters: bytes = b"", *, authorized: bool = True
    ) -> bytes:
        """Send one command, its first handle authorized by the empty password; return the answer's body.

        The answer to an authorized command begins with its handle, if any, and its parameter size.
        Raises DeviceError.
        """
        authorization = _EMPTY_PASSWORD if authorized else b""
        body = struct.pack(f">{len(handles)}I", *handles) + authorization + parameters
        tag = _SESSIONS if authorized else _NO_SESSIONS
        answer = self._exchange(self._socket, struct.pack(">HII", tag, 10 + len(body), code) + body)
        result = struct.unpack_from(">I", answer, 6)[0]
        if result:
            raise DeviceError("tpm_refused", f"the software TPM answered command {code:#x} with {result:#x}")
        return answer[10:]

    @property
    def _socket(self) -> Path:
        if self._directory is None:
            raise DeviceError("tpm_not_running", "this software TPM was not started or has ended")
        return self._directory / "tpm"

    @property
    def _authority(self) -> TestCa:
        if self._ca is None:
            self._ca = kept_test_ca(self._state) if self._state else shared_test_ca()
        return self._ca

    def _start(self) -> None:
        assert self._directory is not None
        program = shutil.which("swtpm")
        if program is None:
            raise DeviceError("swtpm_missing", "swtpm is not installed: apt-get install swtpm")
        state = self._state or self._directory / "state"
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [program, "socket", "--tpm2", "--flags", "not-need-init,startup-clear"]
        command += ["--tpmstate", f"dir={state}", "--server", f"type=unixio,path={self._socket}"]
        command += ["--ctrl", f"type=unixio,path={self._socket}.ctrl"]
        log = self._directory / "log"
        with log.open("wb") as output:
            # A session of its own: Ctrl-C at a terminal is for the program that uses the TPM and ends it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._await(log)

    def _await(self, log: Path) -> None:
        assert self._process is not None
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.execute(0x17B, (), struct.pack(">H", 1), authorized=False)
                return
            except (FileNotFoundError, ConnectionError):
                time.sleep(0.002)
        said = log.read_text(errors="replace").strip()[-500:]
        raise DeviceError("swtpm_failed", f"swtpm did not start: {said}")

    def _power_cycle(self) -> None:
        answer = self._exchange(Path(f"{self._socket}.ctrl"), struct.pack(">II", 2, 0), header=4)
        if answer != bytes(4):
            raise DeviceError("swtpm_failed", f"swtpm answered CMD_INIT with {answer.hex()}")
        self.execute(0x144, (), struct.pack(">H", 0), authorized=False)

    @staticmethod
    def _exchange(path: Path, message: bytes, *, header: int = 10) -> bytes:
        # swtpm serves one connection at a time: each exchange has its own and never holds up another program.
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(path))
            connection.sendall(message)
            answer, size = b"", header
            while len(answer) < size:
                piece = connection.recv(8192)
                if not piece:
                    raise ConnectionError("swtpm closed the connection")
                answer += piece
                if header == 10 and len(answer) >= 6:
                    size = struct.unpack_from(">I", answer, 2)[0]
            return answer

    def _provision(self) -> None:
        certified = bool(self._ek) and self._certificate
        intermediate = self._authority.intermediate if certified else None
        if intermediate is not None and not self._has(0x169, _INTERMEDIATE_INDEX):
            self._store(_INTERMEDIATE_INDEX, intermediate.certificate.public_bytes(Encoding.DER))
        for kind in self._ek:
            template, index, handle = _EKS[kind]
            if self._has(0x173, handle):
                continue  # A kept state was provisioned when it was new.
            key = self._create_endorsement_key(kind, template, handle)
            if self._certificate:
                self._store(index, issue_endorsement_certificate(self._authority, key))

    def _has(self, read_public: int, handle: int) -> bool:
        try:
            self.execute(read_public, (handle,), authorized=False)
        except DeviceError:
            return False
        return True

    def _create_endorsement_key(self, kind: str, template: bytes, persistent: int) -> _EndorsementKey:
        """TPM2_CreatePrimary, then TPM2_EvictControl to its reserved handle."""
        sensitive, nothing = struct.pack(">HHH", 4, 0, 0), struct.pack(">HI", 0, 0)
        creation = sensitive + struct.pack(">H", len(template)) + template + nothing
        answer = self.execute(0x131, (_ENDORSEMENT,), creation)
        handle, _, size = struct.unpack_from(">IIH", answer)
        self.execute(0x120, (_OWNER, handle), struct.pack(">I", persistent))
        self.execute(0x165, (), struct.pack(">I", handle), authorized=False)
        # `unique` is what the template ends with, so the key begins where the template's zeros begin.
        unique = answer[10 : 10 + size][len(template) - (68 if kind == "p256" else 258) :]
        if kind == "p256":
            x, y = int.from_bytes(unique[2:34]), int.from_bytes(unique[36:68])
            return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        return rsa.RSAPublicNumbers(65537, int.from_bytes(unique[2:258])).public_key()

    def _store(self, index: int, data: bytes) -> None:
        """TPM2_NV_DefineSpace and TPM2_NV_Write with platform authorization, as a maker does."""
        public = struct.pack(">IHIHH", index, 0x000B, _NV_ATTRIBUTES, 0, len(data))
        self.execute(0x12A, (_PLATFORM,), struct.pack(">HH", 0, len(public)) + public)
        for offset in range(0, len(data), 512):
            piece = data[offset : offset + 512]
            parameters = struct.pack(">H", len(piece)) + piece + struct.pack(">H", offset)
            self.execute(0x137, (_PLATFORM, index), parameters)


def run_until_closed(tpm: SoftwareTpm, stdin: TextIO, stdout: TextIO) -> None:
    """Start `tpm`, print one line, its TCTI, and keep it running until `stdin` ends."""
    with tpm:
        stdout.write(f"{tpm.tcti}\n")
        stdout.flush()
        while stdin.read(4096):
            pass
