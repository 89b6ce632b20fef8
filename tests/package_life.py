"""The Debian package, from its first installation to its purge, on a clean Debian with systemd running.

Not part of the whole run, which needs no mirror and builds no package: `make test-package`. One machine lives
through the steps of package_life.sh once, and each test looks at what it told.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from scripts.debian.container import Outcome, boot, clean_root
from tests.serving import FRESH
from tpm.swtpm import SoftwareTpm

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache/deb"
NEXT = "0.1.0+next"

Told = dict[str, Outcome]

SETTINGS = """\
tpm = "swtpm:path=/shared/tpm.sock"
[[workload]]
agent = "builder"
formats = ["x509-svid"]
user = ["nobody"]
files = "/run/attestd-agent/builder"
"""

CONSUMER = """\
[Unit]
Wants=attestd-agent.target
After=attestd-agent.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/touch /run/consumer-started
"""


def steps() -> dict[str, str]:
    """The scripts of package_life.sh by name, each with the variables that stand before the first."""
    head, *parts = re.split(r"^## ", (Path(__file__).with_suffix(".sh")).read_text(), flags=re.MULTILINE)
    return {part.split("\n", 1)[0]: head + part.split("\n", 1)[1] for part in parts}


def build(*words: str) -> Path:
    command = [ROOT / "scripts/debian/build", *words]
    return ROOT / subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]


def control(package: Path) -> dict[str, str]:
    listed = subprocess.run(["dpkg-deb", "-f", package], check=True, capture_output=True, text=True).stdout
    return dict(re.findall(r"^(\S+): (.*)$", listed, re.MULTILINE))


@pytest.fixture(scope="module")
def package() -> Path:
    return build()


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Not below pytest's own directory: others must be able to pass through it inside of the machine."""
    made = Path(tempfile.mkdtemp(prefix="package-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def told(package: Path, scratch: Path) -> Told:
    """What the machine said at every step. Its software TPM runs here and is shared as a socket."""
    depends = [one.split("|")[0].split("(")[0].strip() for one in control(package)["Depends"].split(",")]
    print("making a clean Debian, a minute at the first time", file=sys.stderr)
    base = clean_root(CACHE, sorted(set(depends)))
    shared = scratch / "shared"
    shared.mkdir()
    shutil.copy(package, shared / "first.deb")
    shutil.copy(build("--version", NEXT), shared / "next.deb")
    (shared / "agent.toml").write_text(SETTINGS)
    (shared / "fresh.toml").write_text(FRESH)
    (shared / "consumer.service").write_text(CONSUMER)
    with SoftwareTpm() as tpm:
        (shared / "ek-root.pem").write_bytes(tpm.ek_root.public_bytes(Encoding.PEM))
        (shared / "ek-root.sha256").write_text(tpm.ek_root.fingerprint(hashes.SHA256()).hex())
        for suffix in ("", ".ctrl"):
            socket = Path(tpm.tcti.removeprefix("swtpm:path=") + suffix)
            socket.chmod(0o666)
            (shared / f"tpm.sock{suffix}").hardlink_to(socket)
        print("booting it", file=sys.stderr)
        return boot(base, scratch, steps(), seconds=300)


def test_every_step_ends_well(told: Told) -> None:
    assert {name: step.output for name, step in told.items() if step.status != 0} == {}


def test_installing_makes_the_users_and_their_directories_and_starts_nothing(told: Told) -> None:
    users = told["users"].output
    assert re.search(r"^uid=\d+\(attestd\) gid=\d+\(attestd\)", users, re.MULTILINE)
    assert re.search(r"^uid=\d+\(attestd-agent\) .*\(tss\)$", users, re.MULTILINE)
    assert "700 attestd /var/lib/attestd\n755 attestd-agent /run/attestd-agent\n" in users
    assert told["quiet"].output.split() == ["disabled"] * 3 + ["inactive"] * 3


def test_the_commands_run_on_nothing_but_the_package_and_write_nothing_into_it(told: Told) -> None:
    assert told["commands"].output.startswith("attestd 0.1.0\nUsage: attestd ")
    assert "Usage: attestd agent " in told["commands"].output
    assert "Usage: attestd " in told["isolated"].output, "PYTHONPATH decides nothing"
    assert told["untouched"].output == ""


def test_the_service_comes_up_behind_its_walls_tells_so_and_reloads(told: Told) -> None:
    assert 'Status: "serving http://127.0.0.1:8440"' in told["serve"].output
    assert told["walls"].output.split() == ["CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert told["reload"].output.split() == ["active", "1"]


def test_the_agent_comes_up_before_it_is_admitted_with_one_capability_alone(told: Told) -> None:
    """CAP_DAC_READ_SEARCH is number 2: the kernel's logs are root's."""
    assert "\nactive\n666 /run/attestd-agent/workload.sock\n" in told["agent"].output
    assert told["agent-walls"].output.split()[:4] == [
        "CapEff:",
        f"{1 << 2:016x}",
        "CapAmb:",
        f"{1 << 2:016x}",
    ]


def test_who_needs_an_identity_starts_when_there_is_one_and_not_before(told: Told) -> None:
    assert told["pending"].output == "inactive\n"
    assert " is active\nactive\nactive\n" in told["identity"].output
    assert "\nbuilder.svid.pem\n" in told["identity"].output


def test_the_units_of_the_package_are_those_that_install_service_would_write(told: Told) -> None:
    assert told["install-service"].output.count("everything is in place\n") == 2


def test_files_can_belong_to_the_workload_where_the_operator_lets_the_agent_give_them(told: Told) -> None:
    told_of = told["chown"].output.splitlines()
    assert told_of[0] == "attestd-agent 600"
    assert told_of[-2:] == ["nobody 600", "-----BEGIN PRIVATE KEY-----"]


def test_what_root_enrolled_belongs_to_the_agent(told: Told) -> None:
    owners = {line.split()[0] for line in told["state"].output.splitlines() if "/agent.toml" not in line}
    assert "attestd-agent /var/lib/attestd-agent/enrollment.json" in told["state"].output
    assert "root" not in owners


def test_an_upgrade_runs_anew_what_ran_and_keeps_configuration_state_and_identity(told: Told) -> None:
    lines = told["upgrade"].output.splitlines()
    assert f"attestd\t{NEXT}" in lines
    before, after = next(line for line in lines if re.fullmatch(r"\d+-\d+ \d+-\d+", line)).split()
    assert not set(before.split("-")) & set(after.split("-")), "both have new processes"
    assert lines[-4:] == ["active"] * 4
    kept = told["state"].output.splitlines()[:3]
    assert told["state-after"].output.splitlines() == [*kept, *["enabled"] * 3]


def test_removal_leaves_configuration_state_and_what_was_enabled(told: Told) -> None:
    assert told["remove"].output.split()[-3:] == ["inactive"] * 3
    left = [line for line in told["left"].output.splitlines() if not line.startswith("/var/lib/dpkg/")]
    ours = ("/etc/attestd", "/var/lib/attestd", "/etc/systemd/system/", "/var/lib/systemd/deb-systemd-helper")
    assert [line for line in left if not line.startswith(ours)] == []
    assert {"/etc/attestd", "/var/lib/attestd", "/var/lib/attestd-agent"} <= set(left)


def test_a_new_installation_finds_the_same_machine(told: Told) -> None:
    assert told["again"].output.count("enabled\n") == 3
    assert told["again"].output.splitlines()[-1] == told["state"].output.splitlines()[0]


def test_a_purge_leaves_nothing(told: Told) -> None:
    assert told["left-after-purge"].output == ""


def test_nothing_of_the_machine_stays_mounted_here(told: Told, scratch: Path) -> None:
    assert str(scratch) not in Path("/proc/self/mountinfo").read_text()


def test_only_changed_sources_are_built_again() -> None:
    package = build()
    mark = package.with_name(f"{package.name}.made-of")
    before = mark.read_text(), package.stat().st_mtime_ns
    assert build() == package
    after = mark.read_text(), package.stat().st_mtime_ns
    assert (before[0] == after[0]) == (before[1] == after[1])


def test_the_package_holds_what_runs_and_no_tool_of_development(package: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-c", package], check=True, capture_output=True, text=True).stdout
    paths = [line.split()[5] for line in listed.splitlines()]
    top = {path.split("/site-packages/")[1].split("/")[0] for path in paths if "/site-packages/" in path}
    assert {"attestd", "tpm", "tpm2_pytss", "cryptography", "psycopg", "grpclib"} <= top
    assert not {"pip", "setuptools", "pytest", "mypy", "hypothesis", "grpc", "spiffe", "asn1crypto"} & top
    owners = {line.split()[1] for line in listed.splitlines()}
    assert owners == {"root/root"}
    sources = {path.removesuffix(".py") for path in paths if path.endswith(".py")}
    compiled = {
        re.sub(r"__pycache__/(.*)\.cpython-311\.pyc", r"\1", path) for path in paths if ".pyc" in path
    }
    assert compiled == sources, "every module is compiled, and nothing without its source"
    assert not [path for path in paths if re.search(r"\.(c|h|orig|log)$|/RECORD$|/direct_url\.json$", path)]


def test_the_package_names_the_libraries_that_it_loads(package: Path) -> None:
    depends = control(package)["Depends"]
    for needed in (
        "libc6 (>= ",
        "libtss2-esys-3.0.2-0 (>= ",
        "python3 (>= 3.11~), python3 (<< 3.12~)",
        "tpm-udev",
    ):
        assert needed in depends
