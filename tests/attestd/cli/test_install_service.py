"""`install-service` puts units, user and directories in place for both sides, and again without harm."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from attestd.cli.agent_install_service import command as agent_command
from attestd.cli.failures import Failure, Unusable
from attestd.cli.install_options import this_attestd
from attestd.cli.install_service import command as server_command
from attestd.cli.service_files import (
    AGENT,
    SERVER,
    Part,
    Step,
    Wanted,
    carry_out,
    check,
    run_command,
    steps,
)

UNITS = Path("etc/systemd/system")
SIDES = [(server_command, SERVER), (agent_command, AGENT)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a system that has no users of ours."""
    (tmp_path / "system" / "etc").mkdir(parents=True)
    return tmp_path / "system"


def install(command: click.Command, root: Path, *words: str) -> Result:
    """Must succeed."""
    result = CliRunner().invoke(command, ["--root", str(root), *words])
    assert result.exception is None, result.exception
    return result


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its date and content."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def verify(root: Path, unit: str) -> str:
    """What systemd has to say about an installed unit."""
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{root / UNITS}:"}
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(("command", "part"), SIDES)
def test_it_writes_units_that_run_this_attestd_and_makes_the_user(
    command: click.Command, part: Part, root: Path
) -> None:
    result = install(command, root)
    unit = (root / UNITS / part.unit).read_text()
    assert f"ExecStart={this_attestd()} {part.command}\n" in unit
    assert this_attestd() == Path(sys.executable).with_name("attestd")
    assert f"{part.user}:x:" in (root / "etc/passwd").read_text()
    assert f"wrote {root / UNITS / part.unit}" in result.stdout
    assert f"next: systemctl enable --now {part.unit}" in result.stderr
    assert not (root / UNITS / "multi-user.target.wants").exists(), "nothing is enabled by itself"
    assert verify(root, part.unit) == ""


@pytest.mark.parametrize(("command", "part"), SIDES)
def test_again_it_changes_nothing_and_says_so(command: click.Command, part: Part, root: Path) -> None:
    install(command, root)
    before = tree(root)
    assert install(command, root).stdout == "everything is in place\n"
    assert tree(root) == before
    (root / UNITS / part.unit).write_text("[Service]\nExecStart=/bin/false\n")
    assert f"wrote {root / UNITS / part.unit}" in install(command, root).stdout
    assert (root / UNITS / part.unit).read_bytes() == before[str(root / UNITS / part.unit)][1]


@pytest.mark.parametrize(("command", "part"), SIDES)
def test_a_dry_run_shows_everything_and_writes_nothing(
    command: click.Command, part: Part, root: Path
) -> None:
    result = install(command, root, "--dry-run")
    assert f"# {root / UNITS / part.unit}\n" in result.stdout
    assert "ProtectSystem=strict" in result.stdout
    assert f"# systemd-sysusers --root={root} {part.user}.conf" in result.stdout
    assert tree(root) == {}


def test_the_agent_joins_the_group_that_may_use_the_tpm(root: Path) -> None:
    install(agent_command, root)
    groups = [line.split(":") for line in (root / "etc/group").read_text().splitlines()]
    assert [members for name, _, _, members in groups if name == "tss"] == ["attestd-agent"]


def test_now_enables_the_agent_and_its_socket(root: Path) -> None:
    result = install(agent_command, root, "--now")
    assert "next:" not in result.stderr.replace("next: attestd agent join", "")
    assert (root / UNITS / "multi-user.target.wants/attestd-agent.service").is_symlink()
    assert (root / UNITS / "sockets.target.wants/attestd-agent.socket").is_symlink()


def test_now_without_a_configuration_is_refused_with_the_next_step(root: Path) -> None:
    result = CliRunner().invoke(server_command, ["--root", str(root), "--now"])
    assert isinstance(result.exception, SystemExit)
    assert "runuser -u attestd -- attestd init /var/lib/attestd" in result.stderr
    assert tree(root) == {}
    (root / "etc/attestd").mkdir()
    (root / "etc/attestd/attestd.toml").write_text("")
    install(server_command, root, "--now")
    assert (root / UNITS / "multi-user.target.wants/attestd.service").is_symlink()


@pytest.mark.parametrize(("command", "part"), SIDES)
def test_another_user_stands_in_every_file_with_its_own_group(
    command: click.Command, part: Part, root: Path
) -> None:
    (root / "etc/passwd").write_text("edge:x:1500:1600:Edge:/srv/edge:/usr/sbin/nologin\n")
    (root / "etc/group").write_text("machines:x:1600:\n")
    install(command, root, "--user", "edge")
    unit = (root / UNITS / part.unit).read_text()
    assert "\nUser=edge\nGroup=machines\n" in unit
    assert f"={part.user}\n" not in unit.replace(f"Directory={part.user}\n", "")
    assert " edge machines -\n" in (root / f"etc/tmpfiles.d/{part.user}.conf").read_text()
    assert f"{part.user}:x:" not in (root / "etc/passwd").read_text()
    assert verify(root, part.unit) == ""


def test_a_configuration_elsewhere_is_named_and_its_database_can_be_written(root: Path) -> None:
    folder = root / "srv/attestd"
    folder.mkdir(parents=True)
    (folder / "attestd.toml").write_text('trust_domain = "example.org"\nlisten = "127.0.0.1:8440"\n')
    install(server_command, root, "--config", "/srv/attestd/attestd.toml")
    unit = (root / UNITS / "attestd.service").read_text()
    assert f"ExecStart={this_attestd()} serve --config /srv/attestd/attestd.toml\n" in unit
    assert "\nStateDirectory=attestd\nReadWritePaths=/srv/attestd\n" in unit
    assert verify(root, "attestd.service") == ""


def test_settings_of_the_agent_elsewhere_are_named_where_they_are(root: Path) -> None:
    (root / "srv").mkdir()
    (root / "srv/agent.toml").write_text("")
    install(agent_command, root, "--config", "/srv/agent.toml")
    assert " agent run --config /srv/agent.toml\n" in (root / UNITS / "attestd-agent.service").read_text()
    refused = CliRunner().invoke(agent_command, ["--root", str(root), "--config", "/srv/other.toml"])
    assert "/srv/other.toml is not there" in refused.stderr


@pytest.mark.parametrize("folder", ["lib/systemd/system", "usr/lib/systemd/system"])
def test_units_that_a_package_brought_are_not_written_again(folder: str, root: Path) -> None:
    install(server_command, root, "--attestd", "/usr/bin/attestd")
    (root / folder).mkdir(parents=True)
    for name, target in (("sysusers.d", "usr/lib/sysusers.d"), ("tmpfiles.d", "usr/lib/tmpfiles.d")):
        (root / target).mkdir(parents=True)
        (root / "etc" / name / "attestd.conf").rename(root / target / "attestd.conf")
    (root / UNITS / "attestd.service").rename(root / folder / "attestd.service")
    assert install(server_command, root, "--attestd", "/usr/bin/attestd").stdout == "everything is in place\n"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"user": "root;reboot"}, "no name of a system user"),
        ({"user": "-x"}, "no name of a system user"),
        ({"user": "a" * 32}, "no name of a system user"),
        ({"executable": Path("attestd")}, "absolute"),
        ({"executable": Path("/opt/my tools/attestd")}, "without spaces"),
        ({"config": Path("/etc/100%/attestd.toml")}, "without spaces"),
        ({"config": Path("/etc/a\nExecStartPre=+/bin/sh")}, "without spaces"),
        ({"root": Path("/"), "executable": Path("/home/me/.venv/bin/attestd")}, "hidden from the service"),
        ({"root": Path("/"), "config": Path("/tmp/srv/attestd.toml")}, "hidden from the service"),
    ],
)
def test_what_could_not_start_is_refused_before_anything_is_written(
    change: dict[str, object], complaint: str, root: Path
) -> None:
    asked: dict[str, object] = {"part": SERVER, "root": root, "user": "attestd"}
    asked["executable"] = Path("/usr/bin/attestd")
    check(Wanted(**asked))  # type: ignore[arg-type]
    with pytest.raises(Unusable, match=complaint):
        check(Wanted(**asked | change))  # type: ignore[arg-type]


def test_a_running_systemd_loads_the_units_and_starts_what_is_enabled(root: Path) -> None:
    """`root` stands for the machine's own, whose commands are only collected."""
    wanted = Wanted(part=AGENT, root=root, user="attestd-agent", executable=Path("/usr/bin/attestd"))
    ran = [step.command[0:2] for step in steps(wanted, running=True, now=True) if step.command]
    assert ran == [
        ("systemd-sysusers", f"--root={root}"),
        ("systemd-tmpfiles", "--create"),
        ("systemctl", "daemon-reload"),
        ("systemctl", f"--root={root}"),
    ]
    assert list(steps(wanted, running=True, now=True))[-1].command[-2:] == ("--now", "attestd-agent.service")


def test_a_command_that_fails_or_is_missing_is_told_in_one_line(tmp_path: Path) -> None:
    def fail(command: object) -> None:
        raise subprocess.CalledProcessError(1, ["systemctl"], stderr="Failed to reload: no bus\nmore\n")

    def lack(command: object) -> None:
        raise FileNotFoundError(2, "No such file", "systemctl")

    step = Step("loaded the units", command=("systemctl", "daemon-reload"))
    with pytest.raises(Failure, match="`systemctl daemon-reload` failed: Failed to reload: no bus"):
        carry_out(step, fail)
    with pytest.raises(Failure, match="systemctl is not there; is this a system with systemd"):
        carry_out(step, lack)


# --- another system's root ------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of this system."""
    made = tmp_path / "outside"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    "link", ["etc/systemd/system", "etc/systemd", "etc/sysusers.d", "usr/lib/tmpfiles.d"]
)
@pytest.mark.parametrize("way", ["absolute", "relative"])
@pytest.mark.parametrize(("command", "part"), SIDES)
def test_a_root_whose_links_lead_out_of_it_is_refused_before_anything_is_written(
    command: click.Command, part: Part, root: Path, outside: Path, link: str, way: str
) -> None:
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    target = outside if way == "absolute" else Path(os.path.relpath(outside, (root / link).parent))
    (root / link).symlink_to(target)
    for folder in ("attestd.conf", "attestd-agent.conf"):
        (outside / folder).write_text("ours\n")
    before = tree(outside)
    refused = CliRunner().invoke(command, ["--root", str(root)])
    assert refused.exit_code == 1
    assert f"leads out of {root}, to {outside}" in refused.stderr
    assert (tree(outside), tree(root)) == (before, {})


def test_a_root_whose_links_stay_in_it_is_written_where_they_lead(root: Path) -> None:
    (root / "usr/lib/systemd/system").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "srv/units").mkdir(parents=True)
    (root / "etc/systemd").mkdir()
    (root / UNITS).symlink_to("../../srv/units")
    install(agent_command, root)
    assert (root / "srv/units" / AGENT.unit).is_file()
    assert install(agent_command, root).stdout == "everything is in place\n"


def test_a_link_that_leads_out_since_it_was_looked_at_is_not_followed(root: Path, outside: Path) -> None:
    wanted = Wanted(part=SERVER, root=root, user="attestd", executable=Path("/usr/bin/attestd"))
    step = next(step for step in steps(wanted, running=False, now=False) if step.path is not None)
    assert step.path is not None
    step.path.parent.parent.mkdir(parents=True, exist_ok=True)
    step.path.parent.symlink_to(outside)
    with pytest.raises(Failure, match=f"leads out of {root}"):
        carry_out(step, run_command)
    assert tree(outside) == {}
    step.path.parent.unlink()
    carry_out(step, run_command)
    assert step.path.read_text() == step.text


@pytest.mark.parametrize("name", [".attestd.service.draft", "attestd.service"])
def test_a_link_in_a_files_place_is_replaced_and_not_followed(root: Path, outside: Path, name: str) -> None:
    (outside / "precious").write_text("old")
    step = Step("wrote it", root / UNITS / "attestd.service", "new", root=root)
    (root / UNITS).mkdir(parents=True)
    (root / UNITS / name).symlink_to(outside / "precious")
    before = os.umask(0o077)
    try:
        carry_out(step, run_command)
    finally:
        os.umask(before)
    assert ((outside / "precious").read_text(), (root / UNITS / "attestd.service").read_text()) == (
        "old",
        "new",
    )
    assert (root / UNITS / "attestd.service").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("target", ["/dev/null", "precious"])
def test_a_unit_whose_place_has_a_link_is_installed_for_real(root: Path, outside: Path, target: str) -> None:
    install(server_command, root)
    unit = root / UNITS / SERVER.unit
    (outside / "precious").write_bytes(unit.read_bytes())
    unit.unlink()
    unit.symlink_to(outside / target)
    assert f"wrote {unit}" in install(server_command, root).stdout
    assert (unit.is_symlink(), unit.read_bytes()) == (False, (outside / "precious").read_bytes())


def test_the_users_of_this_system_are_not_taken_for_those_of_another(root: Path, outside: Path) -> None:
    (outside / "passwd").write_text("attestd:x:1500:1600::/:/usr/sbin/nologin\n")
    (root / "etc/passwd").symlink_to(outside / "passwd")
    refused = CliRunner().invoke(server_command, ["--root", str(root), "--user", "edge"])
    assert f"etc/passwd leads out of {root}" in refused.stderr
