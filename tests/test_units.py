"""The units start what there is and hold it behind walls: this machine's systemd itself says so."""

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from attestd.agent.settings import DEFAULT_FILE, DEFAULT_SOCKET, DEFAULT_STATE
from attestd.cli.main import main
from attestd.cli.service_files import AGENT, PACKAGED, SERVER

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "scripts/systemd"
SERVICES = ("attestd", "attestd-agent", "attestd-agent-ready")

EXPOSURE = 2.0
"""What `systemd-analyze security` must stay below, of 10."""


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def exposure(unit: Path) -> float:
    """The level that systemd finds, from 0 (safe) to 10."""
    told = analyze("security", "--offline=true", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    return float(found[1])


def settings(name: str) -> dict[str, list[str]]:
    """A unit's settings with their values in order; a line that goes on is one."""
    text = (UNITS / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def verify(folder: Path, *units: str) -> str:
    """What systemd has to say against units with the others in the same folder beside them."""
    words = ["verify", "--man=no", "--recursive-errors=no", *(folder / unit for unit in units)]
    return analyze(*words).stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """All units with a command that is there, since systemd looks for it."""
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8").replace(PACKAGED, "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_exposed_less_than_the_limit(service: str) -> None:
    assert exposure(UNITS / f"{service}.service") < EXPOSURE


@pytest.mark.parametrize("service", ["attestd", "attestd-agent"])
@pytest.mark.parametrize(
    "wall", ["NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "RestrictNamespaces=yes"]
)
def test_a_wall_that_is_taken_down_is_noticed(service: str, wall: str, tmp_path: Path) -> None:
    unit = tmp_path / f"{service}.service"
    text = (UNITS / unit.name).read_text(encoding="utf-8")
    unit.write_text(text)
    before = exposure(unit)
    assert f"\n{wall}\n" in text
    unit.write_text(text.replace(f"\n{wall}\n", "\n"))
    assert exposure(unit) > before


def test_systemd_understands_every_unit(installed: Path) -> None:
    units = [path.name for path in installed.iterdir() if path.suffix in (".service", ".socket", ".target")]
    units = [name.replace("@.", "@disk.") for name in units]
    (installed / "attestd-unseal@.service").rename(installed / "attestd-unseal@disk.service")
    assert len(units) == 6
    assert verify(installed, *units) == ""


def test_a_setting_that_systemd_does_not_know_is_noticed(installed: Path) -> None:
    unit = installed / "attestd-agent.service"
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHomes="))
    assert "Unknown key 'ProtectHomes'" in verify(installed, unit.name)


def test_every_command_of_a_unit_is_one_that_attestd_has() -> None:
    """Each `attestd WORD… --option` in an Exec line names verbs and options of the command line."""
    called = []
    for path in UNITS.glob("*.service"):
        lines = [line for key, values in settings(path.name).items() if "Exec" in key for line in values]
        called += [words for line in lines for words in re.findall(rf"{PACKAGED}((?: [\w/.%-]+)+)", line)]
    assert len(called) == 4
    for words in called:
        command: click.Command = main
        context = click.Context(main)
        given = shlex.split(words)
        while isinstance(command, click.Group):
            found = command.get_command(context, given.pop(0))
            assert found is not None, words
            command = found
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in given if word.startswith("--")} <= options, words


def test_the_units_and_the_commands_mean_the_same_places() -> None:
    agent, socket = settings("attestd-agent.service"), settings("attestd-agent.socket")
    assert [Path("/var/lib") / name for name in agent["StateDirectory"]] == [DEFAULT_STATE]
    assert [Path(name) for name in socket["ListenStream"]] == [DEFAULT_SOCKET]
    assert Path("/run", *agent["RuntimeDirectory"]) == DEFAULT_SOCKET.parent
    text = (UNITS / "attestd-agent.service").read_text(encoding="utf-8")
    assert str(DEFAULT_FILE) in text


def test_everybody_may_ask_and_the_socket_outlives_the_agent() -> None:
    """Callers are known by what the kernel says of them; users must not be hidden from the agent."""
    assert settings("attestd-agent.socket")["SocketMode"] == ["0666"]
    agent = settings("attestd-agent.service")
    assert agent["RuntimeDirectoryPreserve"] == ["yes"]
    assert agent["RuntimeDirectoryMode"] == ["0755"]
    assert not {"PrivateUsers", "ProcSubset", "ProtectProc", "PrivateDevices"} & agent.keys()


def test_the_agent_has_one_capability_and_one_device_and_the_service_none() -> None:
    agent, server = settings("attestd-agent.service"), settings("attestd.service")
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert agent[key] == ["CAP_DAC_READ_SEARCH"], "the kernel's logs are 0440 root:root"
        assert server[key] == [""]
    assert agent["DeviceAllow"] == ["/dev/tpmrm0 rw"]
    assert server["PrivateDevices"] == server["PrivateUsers"] == ["yes"]


@pytest.mark.parametrize("service", ["attestd", "attestd-agent"])
def test_a_service_tells_of_itself_and_is_started_again_for_ever(service: str) -> None:
    unit = settings(f"{service}.service")
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]
    assert unit["WatchdogSec"]
    assert (unit["Restart"], unit["StartLimitIntervalSec"]) == (["always"], ["0"])
    assert "ExecStartPre" not in unit, "nothing runs outside of the walls"


def test_the_target_means_an_identity_and_boot_does_not_wait_for_it() -> None:
    target, ready = settings("attestd-agent.target"), settings("attestd-agent-ready.service")
    assert target["Requires"] == target["After"] == ["attestd-agent-ready.service"]
    assert ready["ExecStart"] == [f"{PACKAGED} agent status --wait"]
    assert ready["TimeoutStartSec"] == ["infinity"]
    assert ready["After"] == ["attestd-agent.service"]
    assert not {"WantedBy", "RequiredBy"} & (target.keys() | ready.keys()), "only who needs it pulls it in"
    assert "network-online.target" not in settings("attestd-agent.service")["After"][0].split()


def test_a_volume_without_its_sealed_key_is_asked_for_by_passphrase() -> None:
    """The unsealing goes before the volume and is not required by it; what fails leaves no key file."""
    unit = settings("attestd-unseal@.service")
    assert "systemd-cryptsetup@%i.service" in unit["Before"]
    assert unit["WantedBy"] == ["systemd-cryptsetup@%i.service"]
    assert "RequiredBy" not in unit
    assert 0 < int(unit["TimeoutStartSec"][0].removesuffix("s")) <= 60
    text = (UNITS / "attestd-unseal@.service").read_text(encoding="utf-8")
    assert "# RECOVERY." in text


@pytest.mark.parametrize(("unseals", "left"), [("echo secret", ["disk.key"]), ("echo part; false", [])])
def test_a_key_file_is_there_whole_or_not_at_all(unseals: str, left: list[str], tmp_path: Path) -> None:
    """The unit's own script, with another folder and another command in the place of the unsealing."""
    line = settings("attestd-unseal@.service")["ExecStart"][0].replace("%I", "disk").replace("$$", "$")
    line = line.replace("/run/cryptsetup-keys.d", str(tmp_path / "keys"))
    unseal = f'{PACKAGED} agent unseal "/etc/attestd/sealed/disk.json"'
    assert unseal in line
    command = shlex.split(line.replace(unseal, f"({unseals})"))
    ended = subprocess.run(command, check=False, umask=0o077)
    assert (ended.returncode == 0) == bool(left)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == left
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "keys", *(tmp_path / "keys").iterdir())]
    assert modes == [0o700, *[0o600] * len(left)]


def test_install_service_knows_every_file() -> None:
    assert {path.name for path in UNITS.iterdir()} == {*SERVER.files, *AGENT.files}
