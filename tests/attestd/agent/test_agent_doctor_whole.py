"""`attestd agent doctor` at a real TPM and a real service, and that it leaves everything as it was."""

import fcntl
import grp
import hashlib
import json
import os
import pwd
import ssl
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from attestd.agent.delivery.directory import Owner, foreseen, secret_directory
from attestd.agent.doctor.check import Check, Unread
from attestd.agent.doctor.checks import ALL, JOINING, TPM, checks
from attestd.agent.doctor.machine_readings import read_runner
from attestd.agent.doctor.tpm_readings import read_nodes, read_tpm
from attestd.agent.errors import Misconfigured
from attestd.agent.lock import tpm_turn
from attestd.agent.logs import LogFiles
from attestd.agent.settings import Settings, load_settings
from attestd.clock import now_ms
from tests.attestd.agent.far_side import FarSide, answer
from tests.attestd.agent.running.started import Running
from tests.attestd.web.certificates import Authority
from tests.recorded import EVENT_LOG, IMA_LIST, play, userspace_log
from tests.serving import Agent, Serving
from tests.tpm.device.leftovers import leftovers
from tpm.device import templates
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import make_test_ca

_PLATFORM, _OWNER = 0x4000000C, 0x40000001
DISCOVERY = "/.well-known/openid-configuration"


def settings_of(agent: Agent, **changed: object) -> Settings:
    socket = agent.state.parent / "socket" / "workload.sock"
    made = Settings(server=agent.url, tpm=agent.tpm.tcti, state=agent.state, socket=socket)
    return replace(made, **changed)  # type: ignore[arg-type]


def found(settings: Settings, *, groups: frozenset[str] = ALL, ahead: int = 0) -> dict[str, Check]:
    """By name, without this machine's own logs: a software TPM did not boot it."""
    made = checks(settings, now=lambda: now_ms() + ahead, groups=groups, files=LogFiles())
    return {check.name: check for check in made}


def of(verdict: str, told: Mapping[str, Check]) -> set[str]:
    return {name for name, check in told.items() if check.verdict == verdict}


def as_it_is(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder, with what would show that it was touched."""
    kept: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        told = path.lstat()
        content = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
        kept[str(path)] = (
            told.st_mode,
            told.st_uid,
            told.st_mtime_ns,
            told.st_ctime_ns,
            told.st_ino,
            content,
        )
    return kept


# --- the whole ------------------------------------------------------------------------------------


def test_an_enrolled_machine_is_well_but_for_what_its_tpm_is(agent: Agent) -> None:
    told = found(settings_of(agent))
    assert of("fail", told) == set()
    assert of("warn", told) == {"tpm maker"}
    assert agent.device_id in told["ek certificate"].found
    assert told["enrolment"].found == f"active at {agent.url} as {agent.device_id}"
    assert {"tpm", "pcr banks", "clock", "server", "service", "attestation key", "socket"} <= of("ok", told)


def test_nothing_is_made_or_changed_on_a_machine_that_has_not_joined(newcomer: Agent, tmp_path: Path) -> None:
    before = as_it_is(tmp_path)
    told = found(settings_of(newcomer))
    assert of("fail", told) == set()
    assert of("warn", told) == {"tpm maker", "enrolment"}
    assert as_it_is(tmp_path) == before
    assert not newcomer.state.exists()
    assert leftovers(newcomer.tpm) == {}


def test_nothing_is_changed_on_a_machine_whose_agent_died_at_the_tpm(agent: Agent, tmp_path: Path) -> None:
    (agent.state / "tpm.lock").write_text("pid 999999")
    load_and_leave(agent.tpm)
    before, left = as_it_is(tmp_path), leftovers(agent.tpm)
    told = found(settings_of(agent))
    assert of("warn", told) == {"tpm maker", "tpm slots"}
    assert "0x80000000" in told["tpm slots"].found
    assert as_it_is(tmp_path) == before
    assert leftovers(agent.tpm) == left != {}
    # And the next one at the TPM finds out.
    with tpm_turn(agent.state) as turn:
        assert turn.orphaned


def load_and_leave(tpm: SoftwareTpm) -> None:
    """A primary key that nobody flushes."""
    template = templates.storage_key("p256")
    sensitive, nothing = struct.pack(">HHH", 4, 0, 0), struct.pack(">HI", 0, 0)
    tpm.execute(0x131, (_OWNER,), sensitive + struct.pack(">H", len(template)) + template + nothing)


def test_without_a_tpm_all_else_is_told(serving: Serving, tmp_path: Path) -> None:
    settings = Settings(
        server=serving.url, tpm=f"swtpm:path={tmp_path}/none", state=tmp_path / "state",
        socket=tmp_path / "s" / "sock",
    )  # fmt: skip
    made = checks(settings, now=now_ms, files=_recorded(tmp_path))
    told = {check.name: check for check in made}
    assert of("fail", told) == {"tpm"}
    assert "46 events, not compared with the TPM" in told["event log"].found
    assert {"clock", "server", "service", "userspace log", "ima list"} <= of("ok", told)


def test_a_turn_at_the_tpm_that_does_not_end_is_no_fault(agent: Agent) -> None:
    # As another process: a lock is its open file's.
    with (agent.state / "tpm.lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("pid 7")
        file.flush()
        reading = read_tpm(agent.tpm.tcti, agent.state, patience=0.1)
    assert isinstance(reading, Unread)
    assert (reading.code, "pid 7" in reading.why) == ("tpm_in_use", True)
    assert not isinstance(read_tpm(agent.tpm.tcti, agent.state, patience=0.1), Unread)


def test_who_joins_asks_for_what_joining_needs(newcomer: Agent) -> None:
    told = found(settings_of(newcomer), groups=TPM)
    assert set(told) == {
        "tpm", "tpm version", "tpm maker", "lockout", "tpm slots", "pcr banks", "ek certificate", "ek chain"
    }  # fmt: skip
    more = found(settings_of(newcomer), groups=JOINING)
    assert set(more) - set(told) == {"clock", "server", "service"}


AS_NOBODY = """
import os, sys
from attestd.cli.agent_doctor import command
from tests.attestd.agent.workload.as_user import become
if os.geteuid() == 0:
    become(65534, 65534, [])
command(sys.argv[1:])
"""
"""All is loaded before the rights are given away."""


def test_a_user_who_may_read_little_is_told_what_and_the_rest(secure: Serving) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "state").mkdir(mode=0o700 if os.geteuid() == 0 else 0)
        (folder / "agent.toml").write_text(f'server = "{secure.url}"\nstate = "state"\n')
        command = [sys.executable, "-c", AS_NOBODY, "--json", "--config", str(folder / "agent.toml")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        (folder / "state").chmod(0o700)
    told = {check.name: check for check in (Check(**json.loads(line)) for line in ended.stdout.splitlines())}
    assert ended.returncode == 1
    assert of("fail", told) == {"tpm", "server", "enrolment", "attestation key"}, ended
    assert "may not be read, where it is kept whom to trust" in told["server"].found
    assert "as root" in told["enrolment"].fix
    assert {"clock", "state", "settings"} <= of("ok", told)


# --- the TPM --------------------------------------------------------------------------------------


def test_a_tpm_that_only_has_sha1_in_use_fails(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    selections = b"".join(
        struct.pack(">HB", number, 3) + (b"\xff" * 3 if number == 4 else bytes(3))
        for number in (4, 11, 12, 13)
    )
    software_tpm.execute(0x12B, (_PLATFORM,), struct.pack(">I", 4) + selections)
    software_tpm.reset()
    told = found(Settings(tpm=software_tpm.tcti, state=tmp_path / "state"), groups=TPM)
    assert of("fail", told) == {"pcr banks"}
    assert told["pcr banks"].found == "sha1 in use, and none that may be quoted"


def test_a_tpm_without_a_certificate_is_told_who_supplies_it(tmp_path: Path) -> None:
    with SoftwareTpm(certificate=False) as tpm:
        told = found(Settings(tpm=tpm.tcti, state=tmp_path / "state"), groups=TPM)
    assert told["ek certificate"].verdict == "warn"
    assert "attestd device certificate" in told["ek certificate"].fix
    assert "ek chain" not in told


def test_authorities_in_the_tpm_are_counted(tmp_path: Path) -> None:
    with SoftwareTpm(ca=make_test_ca("maker", intermediate=True)) as tpm:
        told = found(Settings(tpm=tpm.tcti, state=tmp_path / "state"), groups=TPM)
    assert told["ek chain"].found.startswith(
        "1 of its authorities in the TPM; the service must know CN=maker"
    )


def test_a_state_that_is_another_tpms_fails(agent: Agent, shared_tpm: SoftwareTpm) -> None:
    told = found(settings_of(agent, tpm=shared_tpm.tcti), groups=frozenset({"enrolment"}))
    assert of("fail", told) == {"enrolment", "attestation key"}
    assert "this TPM is the device" in told["enrolment"].found


def test_device_files_are_found_and_tried(tmp_path: Path) -> None:
    for name in ("tpm0", "tpmrm0"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o660)
    (tmp_path / "tpm").mkdir()
    (tmp_path / "tpm" / "tpm_version_major").write_text("2\n")
    nodes = read_nodes(f"device:{tmp_path}/tpmrm0", devices=tmp_path, kernel=tmp_path / "tpm")
    assert (nodes.named, nodes.kernels) == (tmp_path / "tpmrm0", "2")
    assert [(each.path.name, each.refused, each.group_may) for each in nodes.there] == [
        ("tpmrm0", None, True),
        ("tpm0", None, True),
    ]
    assert nodes.there[0].group == grp.getgrgid(os.getegid()).gr_name
    assert nodes.user == pwd.getpwuid(os.geteuid()).pw_name
    none = read_nodes("device", devices=tmp_path / "none", kernel=tmp_path / "none")
    assert (none.named, none.there, none.kernels) == (tmp_path / "none" / "tpmrm0", (), None)
    assert read_nodes("swtpm:path=x", devices=tmp_path, kernel=tmp_path / "none").named is None


# --- the logs -------------------------------------------------------------------------------------


def _recorded(folder: Path) -> LogFiles:
    for name, content in (("event", EVENT_LOG), ("userspace", userspace_log()), ("ima", IMA_LIST)):
        (folder / name).write_bytes(content)
    return LogFiles(folder / "event", folder / "userspace", folder / "ima")


def logs(tpm: SoftwareTpm, files: LogFiles, state: Path) -> dict[str, Check]:
    settings = Settings(tpm=tpm.tcti, state=state)
    made = checks(settings, now=now_ms, groups=frozenset({"logs"}), files=files)
    return {check.name: check for check in made}


def test_a_recorded_boot_replays_to_the_registers_of_the_tpm_that_it_was_played_to(
    software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    files, state = _recorded(tmp_path), tmp_path / "state"
    play(software_tpm)
    told = logs(software_tpm, files, state)
    assert of("ok", told) == {"event log", "userspace log", "ima list"}
    assert "replay to the registers 0, 1, 2," in told["event log"].found
    software_tpm.extend(7, {"sha256": b"\5" * 32})
    told = logs(software_tpm, files, state)
    assert of("fail", told) == {"event log"}
    assert "do not replay to the registers 7 (" in told["event log"].found


def test_logs_that_are_not_there_are_told_each(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    told = logs(software_tpm, files, tmp_path / "state")
    assert (of("warn", told), of("ok", told)) == ({"event log", "ima list"}, {"userspace log"})


# --- the service and the clock --------------------------------------------------------------------

SERVICE = frozenset({"service"})


def shown(secure: Serving) -> str:
    """Of the certificate that the server shows."""
    pem = ssl.get_server_certificate(("127.0.0.1", secure.port))
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def test_ag_5_a_service_is_trusted_as_the_agent_would_and_nothing_is_kept(
    secure: Serving, authority: Authority, tmp_path: Path
) -> None:
    settings = Settings(server=secure.url, state=tmp_path / "state")
    trusted = found(replace(settings, ca=authority.pem), groups=SERVICE)
    assert of("ok", trusted) == {"clock", "server", "service"}
    assert "over TLS that is trusted" in trusted["server"].found
    pinned = found(replace(settings, root_sha256=shown(secure)), groups=SERVICE)
    assert of("ok", pinned) == {"clock", "server", "service"}
    assert not (tmp_path / "state").exists()
    joined = tmp_path / "joined"
    joined.mkdir()
    (joined / "ca.pem").write_bytes(authority.pem.read_bytes())
    assert of("ok", found(replace(settings, state=joined), groups=SERVICE)) == {"clock", "server", "service"}


def test_ag_5_a_service_that_is_not_trusted_fails_and_the_clock_is_not_compared_with_it(
    secure: Serving, authority: Authority, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    wrong = {
        "not trusted": Settings(server=secure.url, state=tmp_path / "state"),
        "is not trusted": Settings(server=secure.url, state=tmp_path, ca=Authority(other).pem),
        "for another name": Settings(
            server=secure.url.replace("127.0.0.1", "localhost"), state=tmp_path, ca=authority.pem
        ),
        "no certificate with the SHA-256": Settings(
            server=secure.url, state=tmp_path / "state", root_sha256="0" * 64
        ),
        "has no certificate": Settings(server=secure.url, state=tmp_path, ca=tmp_path / "none.pem"),
        "https, or http": Settings(server="ftp://x", state=tmp_path),
    }
    for said, settings in wrong.items():
        told = found(settings, groups=SERVICE)
        assert of("fail", told) == {"server"}, told
        assert "no server to compare it with" in told["clock"].found
        if said != "https, or http":
            assert said in told["server"].found, told


def test_a_service_that_does_not_answer_fails(tmp_path: Path) -> None:
    told = found(Settings(server="http://127.0.0.1:9", state=tmp_path), groups=SERVICE)
    assert of("fail", told) == {"server"}
    assert "does not answer" in told["server"].found


@pytest.mark.parametrize("ahead", [60_000, -60_000])
def test_a_clock_that_is_a_minute_off_fails(serving: Serving, tmp_path: Path, ahead: int) -> None:
    told = found(Settings(server=serving.url, state=tmp_path), groups=SERVICE, ahead=ahead)
    assert of("fail", told) == {"clock"}
    assert ("s ahead of" if ahead > 0 else "s behind") in told["clock"].found


def test_ag_1_what_is_not_attestd_fails_whatever_it_says(tmp_path: Path) -> None:
    for said in (b"x" * (2 << 20), b"[" * 100_000, b'{"issuer": ["a"]}', b"\xff", b""):
        with FarSide({DISCOVERY: answer(said, headers="Date: yesterday\r\n")}) as far:
            told = found(Settings(server=far.url, state=tmp_path), groups=SERVICE)
        assert of("fail", told) == {"service"}, told
    liar = {"issuer": "https://evil\x1b[31m.example", "challenge_endpoint": "x"}
    with FarSide({DISCOVERY: answer(liar)}) as far:
        told = found(Settings(server=far.url, state=tmp_path), groups=SERVICE)
    assert told["service"].found.isprintable()


# --- the settings ---------------------------------------------------------------------------------

SETTINGS = frozenset({"settings"})


def configured(folder: Path, text: str) -> dict[str, Check]:
    path = folder / "agent.toml"
    path.write_text(f'state = "state"\nsocket = "run/sock"\n{text}')
    (folder / "run").mkdir(mode=0o755, exist_ok=True)
    made = checks(load_settings(path), now=now_ms, groups=SETTINGS, source=path, files=LogFiles())
    return {check.name: check for check in made}


def workloads(*, user: str = "root", more: str = "") -> str:
    return f'[[workload]]\nagent = "builder"\nuser = ["{user}"]\n{more}'


def test_settings_that_can_be_kept_are_well_and_their_files_are_not_made(tmp_path: Path) -> None:
    files = Path("/dev/shm") / tmp_path.name / "builder"
    told = configured(tmp_path, workloads(more=f'files = "{files}"\n'))
    assert of("ok", told) == {"settings", "callers", "user", "socket", "files"}
    assert told["files"].found == "builder: made when there is something"
    assert not files.parent.exists()


def test_names_of_nobody_and_files_on_a_disk_are_told(tmp_path: Path) -> None:
    told = configured(tmp_path, workloads(user="nobody-of-that-name", more=f'files = "{tmp_path}/files"\n'))
    assert of("fail", told) == {"callers", "files"}
    assert "there is no user nobody-of-that-name" in told["callers"].found
    assert "where a secret would outlive the power" in told["files"].found
    assert not (tmp_path / "files").exists()


def test_what_would_be_refused_when_the_files_are_made_is_foreseen(tmp_path: Path) -> None:
    """As `secret_directory` decides, for each way that a directory can be."""
    us = os.geteuid()
    ways: dict[str, Path] = {name: tmp_path / name for name in ("private", "open", "deep")}
    ways["private"].mkdir(mode=0o700)
    ways["open"].mkdir()
    ways["open"].chmod(0o777)
    ways["deep"] = ways["open"] / "below"
    ways["link"] = tmp_path / "link"
    ways["link"].symlink_to(ways["private"])
    ways["new"] = ways["private"] / "new"
    ways["file"] = tmp_path / "file"
    ways["file"].touch()
    said = {}
    for name, path in ways.items():
        try:
            said[name] = str(foreseen(path, us=us, in_memory=False))
        except Misconfigured as error:
            said[name] = str(error)
            with pytest.raises(Misconfigured) as refused, secret_directory(path, in_memory=False):
                pass
            assert str(refused.value) == said[name]
    assert (said["private"], said["new"]) == ("True", "False")
    assert not ways["new"].exists()
    for name, words in (
        ("open", "others may write"),
        ("deep", "others may write"),
        ("link", "symbolic link"),
    ):
        assert words in said[name]
    with pytest.raises(Misconfigured, match="user 7 may not make it"):
        foreseen(Path("/dev/none"), us=7, in_memory=False)
    # What is ours alone becomes the owner's to pass; what is a group's already stays as it is.
    assert foreseen(ways["private"], us=us, owner=Owner(7, 7), in_memory=False)
    ways["private"].chmod(0o750)
    with pytest.raises(Misconfigured, match="lets user 7 not pass"):
        foreseen(ways["private"], us=us, owner=Owner(7, 7), in_memory=False)


def test_the_rights_are_those_of_the_agent_that_runs(newcomer: Agent, tmp_path: Path) -> None:
    socket = tmp_path / "none" / "workload.sock"
    assert read_runner(newcomer.state, socket).runs is False
    with Running(newcomer, tmp_path / "agent", server=newcomer.url) as running:
        running.identity()
        runner = read_runner(newcomer.state, socket)
        assert (runner.runs, runner.uid) == (True, os.geteuid())
        assert of("fail", found(settings_of(newcomer))) == set()
    owned = tmp_path / "owned"
    owned.mkdir()
    if os.geteuid() == 0:
        os.chown(owned, 7, 7)
        assert read_runner(owned, socket).uid == 7


def test_before_a_machine_joins_the_packages_folder_for_the_socket_is_well(newcomer: Agent) -> None:
    settings = settings_of(newcomer)
    settings.socket.parent.mkdir()
    if os.geteuid() == 0:
        # As systemd-tmpfiles makes it while the package is installed.
        os.chown(settings.socket.parent, 7, 7)
    assert found(settings)["socket"].verdict == "ok"
    settings.socket.parent.chmod(0o777)
    assert found(settings)["socket"].verdict == "fail"


# --- the command ----------------------------------------------------------------------------------


def test_the_command_tells_one_line_a_check_and_ends_with_1_if_one_fails(
    agent: Agent, tmp_path: Path
) -> None:
    told = agent("doctor", "--json")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert all(set(line) == {"name", "verdict", "found", "fix"} for line in lines)
    assert all(bool(line["fix"]) == (line["verdict"] != "ok") for line in lines)
    assert {line["verdict"] for line in lines} == {"ok", "warn"}
    text = agent("doctor").stdout.splitlines()
    assert [line[:21].split()[0] for line in text] == [line["verdict"] for line in lines]
    (tmp_path / "agent.toml").write_text("servr = 1\n")
    failed = agent("doctor", "--config", tmp_path / "agent.toml", status=1)
    assert "servr" in failed.stdout
    assert [line.split()[1] for line in failed.stdout.splitlines() if line.startswith("FAIL")] == ["settings"]
    assert failed.stderr == "attestd: 1 of these checks FAILs\n"


def test_what_the_command_is_told_comes_before_the_settings(
    agent: Agent, secure: Serving, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "agent.toml").write_text(f'server = "http://127.0.0.1:9"\nsocket = "{tmp_path}/s/sock"\n')
    given: list[str | Path] = ["--config", tmp_path / "agent.toml"]
    assert "127.0.0.1:9 is named" in agent("doctor", *given, status=1).stdout
    assert "127.0.0.1:9" not in agent("doctor", *given, "--server", agent.url).stdout
    seen = shown(secure)
    told = agent("doctor", *given, "--server", secure.url, "--root-sha256", seen.upper(), status=1).stdout
    assert "answers, over TLS that is trusted" in told
    assert not (agent.state / "ca.pem").exists()
    assert "no SHA-256" in agent("doctor", "--root-sha256", "12", status=2).stderr
    both = agent("doctor", "--root-sha256", seen, "--ca", authority.pem, status=2)
    assert "keep one" in both.stderr
