"""From a machine with a TPM to a program that knows of files alone: service, agent and program, each a
process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jwt
import pytest

from tests.attestd.agent.delivery.delivered import STRANGER, as_user, lying
from tests.attestd.agent.program.executing import ATTESTD, REPOSITORY, RUN_AS_USER, Running, until
from tests.serving import FRESH, Serving
from tpm.swtpm import SoftwareTpm

ROOT = os.geteuid() == 0
USER = STRANGER if ROOT else os.geteuid()
"""Who may ask: nobody in particular."""
AUDIENCE = "https://a.example.org"
POLICY = (
    FRESH.replace('ttl = "5m"', 'ttl = "20s"')
    + f"""
[[grant]]
agent = "planner"
formats = ["client-attestation"]
ttl = "10m"
audiences = ["{AUDIENCE}"]
scopes = ["ledger.read"]
"""
)
SETTINGS = """
server = "{service}"
tpm = "{tpm}"
state = "{folder}/state"
socket = "{folder}/workload.sock"
[[workload]]
agent = "builder"
formats = ["x509-svid", "wit-svid", "jwt-svid"]
audiences = ["https://a.example.org"]
user = ["{user}"]
files = "{memory}/builder"
on_renewal = ["/bin/sh", "-c", "echo $ATTESTD_AGENT >> {folder}/renewed"]
[[workload]]
agent = "planner"
formats = ["client-attestation"]
audiences = ["https://a.example.org"]
user = ["{user}"]
"""
_HANDSHAKE = """
import os, ssl
environ = os.environ

def context(purpose):
    made = ssl.create_default_context(purpose, cafile=environ["ATTESTD_BUNDLE_FILE"])
    made.load_cert_chain(environ["ATTESTD_SVID_FILE"], environ["ATTESTD_KEY_FILE"])
    made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
    return made

there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
client = context(ssl.Purpose.SERVER_AUTH).wrap_bio(back, there)
server = context(ssl.Purpose.CLIENT_AUTH).wrap_bio(there, back, server_side=True)
for _ in range(4):
    for side in (client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
print(os.getuid(), environ["ATTESTD_SPIFFE_ID"], client.version())
print(server.getpeercert()["subjectAltName"])
print(open(environ["ATTESTD_JWT_FILE"]).read(), end="", flush=True)
"""

WAITING = "trap 'echo renewed' USR1; echo began; while :; do sleep 0.05; done"


@dataclass
class Machine:
    """A running agent with its service."""

    service: Serving
    settings: Path
    folder: Path
    memory: Path
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.folder / "workload.sock"

    def start(self) -> None:
        """`attestd agent run`."""
        command = [str(ATTESTD), "agent", "run", "--config", str(self.settings)]
        with (self.folder / "log").open("ab") as log:
            self.running.append(subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL))

    def stop(self, number: int = signal.SIGTERM) -> None:
        process = self.running.pop()
        process.send_signal(number)
        process.wait(20)

    def run(self, *arguments: str, uid: int = USER) -> Running:
        """`agent exec` of a user."""
        return Running.start(self.socket, *arguments, uid=uid)

    def token(self, *arguments: str, uid: int = USER) -> "subprocess.CompletedProcess[str]":
        """`agent token` of a user."""
        asked = ["token", "--socket", str(self.socket), *arguments]
        command = [sys.executable, "-c", RUN_AS_USER, str(uid), *asked]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)


@contextmanager
def folder(where: str) -> Iterator[Path]:
    """One that other users may pass."""
    made = Path(tempfile.mkdtemp(dir=where, prefix="attestd-test."))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    service = Serving(tmp_path_factory.mktemp("service") / "srv", policies=(POLICY,))
    with service, SoftwareTpm() as tpm, folder("/tmp") as here, folder("/dev/shm") as memory:
        settings = here / "agent.toml"
        settings.write_text(
            SETTINGS.format(service=service.url, tpm=tpm.tcti, folder=here, memory=memory, user=USER)
        )
        made = Machine(service, settings, here, memory)
        made.start()
        try:
            yield made
        finally:
            made.stop()
            print((here / "log").read_text())


def test_an_unprivileged_program_has_its_identity_and_speaks_tls_with_it(machine: Machine) -> None:
    running = machine.run("--audience", AUDIENCE, "--", "/usr/bin/env", "python3", "-I", "-c", _HANDSHAKE)
    out, _ = running.end(0)
    first, peer, token = out.splitlines()
    uid, identity, version = first.split()
    assert (uid, version) == (str(USER), "TLSv1.3")
    assert identity.startswith("spiffe://example.org/agent/builder/")
    assert identity in peer
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["aud"]) == (identity, [AUDIENCE])


def test_ag_2_another_user_is_refused_in_one_clear_line(machine: Machine) -> None:
    other = USER + 1 if ROOT else USER
    running = machine.run("--", "/bin/echo", "ran", uid=other)
    if not ROOT:
        assert running.end(0)[0] == "ran\n"
        return
    out, err = running.end(1)
    assert out == ""
    assert err.startswith("attestd: refused (permission_denied): no workload of this machine is for process")
    assert f"of user {other}" in err
    assert len(err.splitlines()) == 1


def test_a_token_of_the_tpm_comes_through_the_socket_with_its_proof(machine: Machine) -> None:
    url = f"{AUDIENCE}/ledger"
    ended = machine.token("--agent", "planner", "--audience", AUDIENCE, "--proof", "GET", url)
    assert ended.returncode == 0, ended.stderr
    token, authorization, proof = ended.stdout.splitlines()
    told = json.loads(token)
    claims = jwt.decode(told["access_token"], options={"verify_signature": False})
    assert (told["token_type"], told["scope"], claims["aud"]) == ("DPoP", "ledger.read", AUDIENCE)
    assert authorization == f"Authorization: DPoP {told['access_token']}"
    proof = proof.removeprefix("DPoP: ")
    key = jwt.PyJWK(jwt.get_unverified_header(proof)["jwk"], algorithm="ES256")
    assert jwt.decode(proof, key, algorithms=["ES256"])["htu"] == url


def test_ag_3_files_are_delivered_to_their_user_and_renewed(machine: Machine) -> None:
    files = machine.memory / "builder"
    until(lambda: (files / "builder.current").is_symlink(), seconds=30)
    first = lying(files)
    names = {f"builder.{suffix}" for suffix in ("svid.pem", "key.pem", "wit.jwt", "jwt")}
    assert first.keys() == {"bundle.pem", "result.jwt", *names}
    assert {path.stat().st_uid for path in files.iterdir() if path.is_file()} == {USER}
    if ROOT:
        assert as_user(USER, (files / "builder.key.pem").read_bytes) == "done"
        assert as_user(USER + 1, (files / "builder.key.pem").read_bytes) == "PermissionError"
    until(lambda: lying(files)["builder.key.pem"] != first["builder.key.pem"], seconds=60)
    until(lambda: (machine.folder / "renewed").read_text().count("builder\n") >= 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_programs_have_their_files_while_the_agent_is_away_and_newer_ones_after(
    machine: Machine, number: int
) -> None:
    files = machine.memory / "builder"
    running = machine.run("--on-renewal", "USR1", "--", "/bin/sh", "-c", WAITING)
    assert running.line() == "began"
    until(lambda: "builder.key.pem" in lying(files))
    machine.stop(number)
    before = lying(files)
    assert "builder.key.pem" in before
    machine.start()
    until(lambda: lying(files).get("builder.key.pem") not in (None, before["builder.key.pem"]), seconds=30)
    assert running.line() == "renewed"
    running.process.terminate()
    running.end(128 + signal.SIGTERM)
    assert len([path for path in files.iterdir() if path.is_dir() and not path.is_symlink()]) <= 2


def test_ag_3_an_agent_that_would_write_secrets_to_a_disk_does_not_start(
    machine: Machine, tmp_path: Path
) -> None:
    text = machine.settings.read_text().replace(f"{machine.memory}/builder", str(tmp_path / "files"))
    (tmp_path / "agent.toml").write_text(text.replace(str(machine.folder), str(tmp_path)))
    command = [str(ATTESTD), "agent", "run", "--config", str(tmp_path / "agent.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "where a secret would outlive the power; name a directory below /run" in ended.stderr
    assert not (tmp_path / "files").exists()
