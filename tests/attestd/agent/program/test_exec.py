"""A program that reads files and nothing else has fresh credentials while it runs, and leaves none."""

import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from attestd.agent.holdings import NOTHING, Holdings
from attestd.agent.program.exec import private_directory
from attestd.clock import now_ms
from tests.attestd.agent.delivery.delivered import STRANGER
from tests.attestd.agent.program.executing import TELL, Running, alive, until
from tests.attestd.agent.workload.domain import Domain, workload
from tests.attestd.agent.workload.serving import Serving, me, serving

AUDIENCE = "https://a.example.org"
TELEMETRY = workload("telemetry", user=[me()])
REFUSED = frozenset({"telemetry"})
LOOP = ("/bin/sh", "-c")


@pytest.fixture
def served() -> Iterator[Serving]:
    with serving(TELEMETRY) as running:
        yield running


@pytest.fixture
def memory() -> Iterator[Path]:
    """A runtime directory of this user, in memory."""
    made = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="attestd-test."))
    yield made
    shutil.rmtree(made)


def run(served: Serving, memory: Path, *arguments: str) -> Running:
    return Running.start(served.path, *arguments, environ={"XDG_RUNTIME_DIR": str(memory)})


def belongs(certificate: str | bytes, key: str | bytes) -> bool:
    leaf, private = (each.encode() if isinstance(each, str) else each for each in (certificate, key))
    return load_pem_x509_certificate(leaf).public_key() == load_pem_private_key(private, None).public_key()


def again(serving: Serving, *, seconds: float = 3600) -> Holdings:
    """Another round's credentials."""
    return serving.shelf.domain.holdings(TELEMETRY, until=now_ms() + int(seconds * 1000))


# --- what it is given -----------------------------------------------------------------------------


def test_ag_3_the_program_finds_its_credentials_in_files_of_its_own(served: Serving, memory: Path) -> None:
    running = run(served, memory, "--audience", AUDIENCE, "--", *TELL)
    told = running.told()
    running.end(0)
    files, environ = told["files"], told["environ"]
    assert environ["ATTESTD_SPIFFE_ID"] == "spiffe://example.org/agent/telemetry/box"
    assert environ["SPIFFE_ENDPOINT_SOCKET"] == f"unix://{served.path}"
    assert belongs(files["ATTESTD_SVID_FILE"], files["ATTESTD_KEY_FILE"])
    load_pem_x509_certificate(files["ATTESTD_BUNDLE_FILE"].encode())
    assert files.keys() == {
        "ATTESTD_SVID_FILE",
        "ATTESTD_KEY_FILE",
        "ATTESTD_BUNDLE_FILE",
        "ATTESTD_WIT_FILE",
        "ATTESTD_WIT_KEY_FILE",
        "ATTESTD_JWT_FILE",
    }
    assert (set(told["modes"].values()), told["folder"]) == ({"0o600"}, "0o700")
    assert told["owners"] == [os.geteuid()]
    assert all(value.startswith(f"{memory}/") for name, value in environ.items() if name.endswith("_FILE"))


def test_what_is_not_granted_is_not_named(memory: Path) -> None:
    with serving(workload("telemetry", user=[me()], formats=("x509-svid",))) as served:
        running = run(served, memory, "--", *TELL)
        told = running.told()
        running.end(0)
    assert told["files"].keys() == {"ATTESTD_SVID_FILE", "ATTESTD_KEY_FILE", "ATTESTD_BUNDLE_FILE"}


def test_ag_3_nothing_secret_is_in_arguments_or_environment(served: Serving, memory: Path) -> None:
    running = run(
        served, memory, "--audience", AUDIENCE, "--", *LOOP, "echo $$; cat $ATTESTD_JWT_FILE; exec sleep 60"
    )
    pid, token = int(running.line()), running.line()
    seen = b"".join(
        Path(f"/proc/{each}/{what}").read_bytes()
        for each in (pid, running.process.pid)
        for what in ("cmdline", "environ")
    )
    assert token.count(".") == 2
    assert (token.encode() in seen, b"PRIVATE" in seen) == (False, False)
    running.process.terminate()
    running.end(128 + signal.SIGTERM)


def test_of_several_identities_the_named_one_is_meant(memory: Path) -> None:
    several = (TELEMETRY, workload("builder", user=[me()], hint="makes"))
    with serving(*several) as served:
        for named, agent in (
            ((), "telemetry"),
            (("--agent", "builder"), "builder"),
            (("--agent", "makes"), "builder"),
        ):
            running = run(served, memory, *named, "--audience", AUDIENCE, "--", *TELL)
            assert f"/agent/{agent}/" in running.told()["environ"]["ATTESTD_SPIFFE_ID"]
            running.end(0)
        out, err = run(served, memory, "--agent", "nobody", "--wait", "1", "--", *TELL).end(1)
    assert (
        "no identity is the agent nobody's; this program has spiffe://example.org/agent/telemetry/box" in err
    )
    assert out == ""


def test_all_credentials_are_of_one_identity(memory: Path) -> None:
    first = workload("builder", user=[me()], formats=("jwt-svid", "wit-svid"))
    second = workload("telemetry", user=[me()], formats=("x509-svid", "jwt-svid"))
    with serving(first, second) as served:
        running = run(served, memory, "--audience", AUDIENCE, "--", *TELL)
        told = running.told()
        running.end(0)
        assert "/agent/telemetry/" in told["environ"]["ATTESTD_SPIFFE_ID"]
        subject = jwt.decode(told["files"]["ATTESTD_JWT_FILE"].strip(), options={"verify_signature": False})[
            "sub"
        ]
        assert subject == told["environ"]["ATTESTD_SPIFFE_ID"]
        assert "ATTESTD_WIT_FILE" not in told["files"]
        running = run(served, memory, "--agent", "builder", "--", *TELL)
        assert running.told()["files"].keys() == {"ATTESTD_WIT_FILE", "ATTESTD_WIT_KEY_FILE"}
        running.end(0)


def test_the_program_has_our_streams_and_the_descriptors_meant_for_it(served: Serving) -> None:
    reading, writing = os.pipe()
    running = Running.start(
        served.path,
        "--",
        *("/usr/bin/env", "python3", "-I", "-c"),
        f"import os, sys; print(sys.stdin.read(), end=''); os.write({writing}, b'through')",
        stdin=subprocess.PIPE,
        pass_fds=(writing,),
    )
    os.close(writing)
    out, _ = running.process.communicate("asked\n", timeout=30)
    with open(reading) as file:
        assert (out, file.read(), running.process.returncode) == ("asked\n", "through", 0)


# --- its end is ours ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_programs_end_is_passed_on_and_nothing_is_left(
    served: Serving, memory: Path, script: str, status: int
) -> None:
    run(served, memory, "--", *LOOP, script).end(status)
    assert list(memory.iterdir()) == []


def test_a_program_that_cannot_be_run_ends_as_in_a_shell(served: Serving, memory: Path) -> None:
    _, err = run(served, memory, "--", "/no/such/program").end(127)
    assert err == "attestd: /no/such/program: there is no such program\n"
    run(served, memory, "--", "/etc/passwd").end(126)
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "USR1"])
def test_signals_go_to_the_program_which_ends_as_it_likes(served: Serving, memory: Path, name: str) -> None:
    running = run(
        served, memory, "--", *LOOP, f"trap 'echo got; exit 5' {name}; echo up; while :; do sleep 0.05; done"
    )
    assert running.line() == "up"
    running.process.send_signal(signal.Signals[f"SIG{name}"])
    assert running.end(5)[0] == "got\n"
    assert list(memory.iterdir()) == []


def test_a_terminals_interrupt_comes_once(served: Serving) -> None:
    ours, theirs = pty.openpty()
    program = (
        "import os, signal; come, go = os.pipe(); os.set_blocking(go, False); signal.set_wakeup_fd(go)\n"
        "for each in (signal.SIGHUP, signal.SIGINT): signal.signal(each, lambda *_: None)\n"
        "os.write(1, b'up;')\n"
        "while (number := os.read(come, 1)[0]) != signal.SIGHUP: os.write(1, b'got;')\n"
        "raise SystemExit(3)"
    )
    python = ("/usr/bin/env", "python3", "-I", "-c", program)

    running = Running.start(served.path, "--", *python, own_terminal=theirs)
    os.close(theirs)
    seen = b""

    def read_until(word: bytes) -> None:
        nonlocal seen
        while word not in seen:
            seen += os.read(ours, 1000)

    read_until(b"up")
    # While we stand still the program gets the first; one that we sent after it would not be taken for that.
    running.process.send_signal(signal.SIGSTOP)
    os.write(ours, b"\x03")
    read_until(b"got")
    running.process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    running.process.send_signal(signal.SIGHUP)
    assert running.process.wait(30) == 3
    try:
        while more := os.read(ours, 1000):
            seen += more
    except OSError:  # How a terminal without anybody behind it ends.
        os.close(ours)
    assert seen.count(b"got") == 1


def test_a_signal_while_it_waits_ends_the_waiting(memory: Path) -> None:
    with serving(TELEMETRY, holdings=NOTHING) as served:
        running = run(served, memory, "--", *TELL)
        until(lambda: any(memory.iterdir()))
        time.sleep(0.2)
        running.process.terminate()
        out, _ = running.end(128 + signal.SIGTERM)
    assert (out, list(memory.iterdir())) == ("", [])


def test_ag_3_what_a_killed_run_left_the_next_one_removes_and_no_other(served: Serving, memory: Path) -> None:
    endless = ("--", *LOOP, "echo $$; exec sleep 600")
    killed, other = run(served, memory, *endless), run(served, memory, *endless)
    program, running = int(killed.line()), int(other.line())
    killed.process.kill()
    killed.process.wait()
    until(lambda: not alive(program))
    assert (len(list(memory.iterdir())), alive(running)) == (2, True)
    (memory / "attestd-exec.notes").mkdir()
    (memory / "attestd-exec.0123456789abcdef").symlink_to("/etc")
    run(served, memory, "--", "/bin/true").end(0)
    left = {path.name for path in memory.iterdir()} - {"attestd-exec.notes", "attestd-exec.0123456789abcdef"}
    assert (len(left), alive(running)) == (1, True)
    other.process.terminate()
    other.end(143)
    assert {path.name for path in memory.iterdir()} == {"attestd-exec.notes", "attestd-exec.0123456789abcdef"}


def test_ag_2_what_another_user_left_is_not_touched(memory: Path) -> None:
    theirs, ours = memory / f"attestd-exec.{'0' * 16}", memory / f"attestd-exec.{'1' * 16}"
    for path in (theirs, ours):
        path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(theirs, STRANGER, STRANGER)
    else:
        theirs.rmdir()
        theirs.symlink_to(
            "/"
        )  # Who is not the superuser cannot give a directory away; this is not ours either.
    with private_directory({"XDG_RUNTIME_DIR": str(memory)}):
        assert ours not in memory.iterdir()
    assert list(memory.iterdir()) == [theirs]


# --- where they lie -------------------------------------------------------------------------------


def test_ag_3_a_disk_is_not_written_to_and_memory_is_taken_instead(memory: Path, tmp_path: Path) -> None:
    for runtime in (str(tmp_path), "/no/such/directory", "relative", ""):
        with private_directory({"XDG_RUNTIME_DIR": runtime}) as (folder, _):
            assert folder.parent == Path("/dev/shm")
    assert list(tmp_path.iterdir()) == []
    with private_directory({"XDG_RUNTIME_DIR": str(memory)}) as (folder, _):
        assert folder.parent == memory
    assert not folder.exists()


# --- while it runs --------------------------------------------------------------------------------

_SHOW = "openssl pkey -in $ATTESTD_KEY_FILE -pubout -outform DER | sha256sum"
RENEWED = (*LOOP, f"trap '{_SHOW}' USR1; {_SHOW}; while :; do sleep 0.05; done")
"""Prints which key it has, again at each signal."""


def another(running: Running, seen: list[str]) -> str:
    """The next key; a token may come by its own stream before it."""
    lines = (running.line() for _ in range(4))
    return next(line for line in lines if line not in seen)


def test_new_files_come_and_the_program_is_told_by_the_signal_it_wants(served: Serving, memory: Path) -> None:
    running = run(served, memory, "--on-renewal", "USR1", "--", *RENEWED)
    keys = [running.line()]
    for _ in range(3):
        served.put(again(served))
        keys.append(another(running, keys))
    assert len(set(keys)) == 4
    running.process.terminate()
    running.end(143)


def test_ag_3_certificate_and_key_of_a_resolved_link_belong_to_each_other(
    served: Serving, memory: Path
) -> None:
    running = run(served, memory, "--", *LOOP, "echo $ATTESTD_CREDENTIALS; exec sleep 600")
    link, pairs = Path(running.line()), set()

    def read_while_it_changes() -> bool:
        served.put(again(served))
        for _ in range(5):
            try:
                folder = link.resolve(strict=True)
                pair = ((folder / "svid.pem").read_bytes(), (folder / "key.pem").read_bytes())
            except FileNotFoundError:  # Two rounds went by meanwhile.
                continue
            assert belongs(*pair)
            pairs.add(pair)
        return len(pairs) > 5

    until(read_while_it_changes)
    running.process.terminate()
    running.end(143)


def test_ag_3_without_the_agent_files_stay_to_their_end_and_then_go(memory: Path) -> None:
    domain = Domain.new()
    end = now_ms() + 6000
    soon = domain.holdings(TELEMETRY, until=end)
    with serving(TELEMETRY, domain=domain, holdings=soon) as served:
        running = run(served, memory, "--", *LOOP, "echo $ATTESTD_KEY_FILE; exec sleep 600")
        key = Path(running.line())
        assert key.exists()
    time.sleep(0.5)
    assert key.exists()
    until(lambda: not key.exists())
    assert now_ms() >= end // 1000 * 1000
    assert [path for path in key.parent.rglob("*") if path.is_file()] == []
    assert running.process.poll() is None
    running.process.terminate()
    running.end(143)


def test_when_the_agent_is_back_there_are_new_files(served: Serving, memory: Path, tmp_path: Path) -> None:
    moving = tmp_path / "agent.sock"
    moving.symlink_to(served.path)
    running = Running.start(
        moving, "--on-renewal", "USR1", "--", *RENEWED, environ={"XDG_RUNTIME_DIR": str(memory)}
    )
    first = running.line()
    with serving(TELEMETRY) as successor:
        moving.unlink()
        moving.symlink_to(successor.path)
        served.do(served.endpoint.listener.disconnect)
        assert another(running, [first])
    running.process.terminate()
    running.end(143)


def test_ag_3_what_the_agent_takes_back_is_gone_at_once(served: Serving, memory: Path) -> None:
    running = run(served, memory, "--", *LOOP, "echo $ATTESTD_KEY_FILE; exec sleep 600")
    key = Path(running.line())
    assert key.exists()
    served.put(Holdings({}, {"telemetry": "posture_rejected"}, served.shelf.domain.bundle, REFUSED))
    until(lambda: not key.exists())
    served.put(again(served))
    until(key.exists)
    running.process.terminate()
    running.end(143)


# --- before it runs -------------------------------------------------------------------------------


def test_it_waits_for_an_identity_and_says_what_for(memory: Path) -> None:
    with serving(TELEMETRY, holdings=NOTHING) as served:
        running = run(served, memory, "--", *TELL)
        assert running.process.stderr is not None
        assert (
            "waiting for an identity: the agent has nothing to give now" in running.process.stderr.readline()
        )
        served.put(again(served))
        assert running.told()["files"].keys() > {"ATTESTD_KEY_FILE"}
        running.end(0)


def test_it_waits_no_longer_than_it_is_told(memory: Path, tmp_path: Path) -> None:
    with serving(TELEMETRY, holdings=NOTHING) as served:
        began = time.monotonic()
        out, err = run(served, memory, "--wait", "0.5", "--", *TELL).end(3)
        assert (out, time.monotonic() - began < 10) == ("", True)
        assert "no identity within 0.5 seconds: the agent has nothing to give now" in err.splitlines()[-1]
    environ = {"XDG_RUNTIME_DIR": str(memory)}
    absent = Running.start(tmp_path / "no.sock", "--wait", "0.2", "--", *TELL, environ=environ)
    assert "is the agent running, and is this its socket?" in absent.end(3)[1]
    assert list(memory.iterdir()) == []


def test_what_the_service_refuses_ends_with_its_word(memory: Path) -> None:
    refused = Holdings({}, {"telemetry": "posture_rejected: pcr7"}, Domain.new().bundle, REFUSED)
    with serving(TELEMETRY, holdings=refused) as served:
        out, err = run(served, memory, "--wait", "0.5", "--", *TELL).end(1)
    assert (out, "posture_rejected: pcr7" in err.splitlines()[-1]) == ("", True)


def test_ag_2_another_user_is_refused_at_once_and_its_own_is_served(memory: Path) -> None:
    caller = os.geteuid() or STRANGER
    for user, status in (str(caller), 0), ("0", 1):
        with serving(workload("telemetry", user=[user])) as served:
            running = Running.start(served.path, "--", *TELL, uid=caller)
            out, err = running.end(status)
        if status:
            assert out == ""
            assert err.startswith("attestd: refused (permission_denied): no workload of this machine is for")
            assert len(err.splitlines()) == 1
        else:
            assert '"ATTESTD_KEY_FILE"' in out


def test_an_audience_that_is_not_granted_is_refused(served: Serving, memory: Path) -> None:
    out, err = run(served, memory, "--audience", "https://evil.example.org", "--", *TELL).end(1)
    assert (out, "has the audience https://evil.example.org" in err) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--on-renewal", "NOSUCH", "--", "true"), "'NOSUCH' is no signal"),
        (("--agent", "Telemetry", "--", "true"), "is no name"),
        ((), "Missing argument"),
        (("--wait", "-1", "--", "true"), "x>=0"),
    ],
)
def test_wrong_usage_ends_with_two(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    out, err = Running.start(tmp_path / "no.sock", *arguments).end(2)
    assert (out, words in err, len(err.splitlines())) == ("", True, 1)


def test_an_endpoint_that_is_no_socket_of_this_machine_is_refused() -> None:
    for told in ("tcp://192.0.2.1:80", "unix://host/run/x", "nonsense"):
        running = Running.start("", "--", "true", environ={"SPIFFE_ENDPOINT_SOCKET": told})
        assert "unix:///run/attestd-agent/workload.sock" in running.end(2)[1]


def test_the_endpoint_of_the_environment_is_asked(served: Serving, memory: Path) -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": f"unix://{served.path}", "XDG_RUNTIME_DIR": str(memory)}
    Running.start("", "--", "/bin/true", environ=environ).end(0)
