"""The demonstration shows what it claims, tells when it does not, and leaves nothing behind."""

import io
import re
import signal
import subprocess
from pathlib import Path

import pytest

from scripts.demonstration import measured_boot
from scripts.demonstration.__main__ import run
from scripts.demonstration.claims import Disappointed, claim
from scripts.demonstration.display import Display
from tests.processes import running_in, surroundings
from tpm.swtpm import SoftwareTpm

ROOT = Path(__file__).parent.parent
DEMO = [str(ROOT / "scripts" / "demo")]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple["subprocess.CompletedProcess[str]", Path]:
    """One run of `scripts/demo`, and the directory that it had for temporary things."""
    directory = tmp_path_factory.mktemp("demo") / "tmp"
    ended = subprocess.run(
        DEMO, env=surroundings(directory), capture_output=True, text=True, timeout=120, cwd=directory
    )
    return ended, directory


def test_one_machine_is_let_in_and_one_is_refused(
    shown: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    ended, _ = shown
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    lines = ended.stdout.splitlines()
    assert lines[-2].startswith("gateway-1 booted what is good")
    assert lines[-1].startswith("gateway-2 booted something else: refused")
    assert "welcome, spiffe://demo.example/telemetry/gateway-1" in ended.stdout
    assert "certificate required" in ended.stdout or "connection reset" in ended.stdout


def test_an_agent_acts_for_a_user_until_its_machine_is_lost(
    shown: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    text = shown[0].stdout
    agent = "spiffe://demo.example/assistant/gateway-1"
    assert f"the tool answers:   acme holds 42 for alice, told to {agent}" in text
    assert "on behalf of alice of http://127.0.0.1:" in text
    found = re.search(r"the tool answers:   401 invalid_token, (\d+\.\d) s later", text)
    assert found is not None
    assert float(found[1]) <= 2


def test_it_shows_the_policy_and_which_register_expected_found_and_what_to_do(
    shown: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    text = shown[0].stdout
    expected = measured_boot.kernel_digest()
    assert f'│   digests = ["sha256:{expected}"]' in text
    assert "register  pcr4" in text
    assert "event     33, started \\EFI\\BOOT\\BOOTX64.EFI" in text
    assert "No other device has this value." in " ".join(text.split())
    assert f"expected  sha256:{expected}" in text
    assert "found     sha256:" in text
    assert "run attestd policy apply gateway.toml" in " ".join(text.split())


def test_it_is_short_plain_and_timed(shown: tuple["subprocess.CompletedProcess[str]", Path]) -> None:
    lines = shown[0].stdout.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 110
    assert "\x1b" not in shown[0].stdout
    stages = [line.split()[0] for line in lines if line.endswith(" s") and "··" in line]
    assert stages == [str(number) for number in range(1, 11)]


def test_it_leaves_nothing_behind(shown: tuple["subprocess.CompletedProcess[str]", Path]) -> None:
    _, directory = shown
    assert list(directory.iterdir()) == []
    assert running_in(directory) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_leaves_nothing_behind_either(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "tmp"
    with subprocess.Popen(
        DEMO, env=surroundings(directory), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith("2"):
            pass
        assert running_in(directory) != []
        demo.send_signal(number)
        assert demo.wait(30) == 128 + number
    assert list(directory.iterdir()) == []
    assert running_in(directory) == []


def test_what_is_not_as_claimed_ends_it_with_its_reason_and_status_one() -> None:
    def story(display: Display, work: Path) -> tuple[str, str]:
        with display.stage("Something"):
            display.say("is said")
            claim(False, "the moon should be full")
        return "good", "bad"

    out = io.StringIO()
    assert run(story, out) == 1
    assert "is said" in out.getvalue()
    assert out.getvalue().endswith("The demonstration failed: the moon should be full\n")
    assert run(lambda display, work: ("good", "bad"), io.StringIO()) == 0


def test_the_recorded_boot_makes_the_real_machines_registers(software_tpm: SoftwareTpm) -> None:
    measured_boot.play(measured_boot.recorded_boot(), software_tpm)
    held, expected = measured_boot.registers(software_tpm), measured_boot.reference_values()
    assert held == {register: expected[register] for register in (0, 1, 2, 3, 4, 5, 6, 7, 9, 11)}
    measured_boot.claim_registers(held, expected, but=frozenset())
    with pytest.raises(Disappointed):
        measured_boot.claim_registers(held, expected, but=frozenset({4}))


def test_another_kernel_differs_in_register_four_alone(software_tpm: SoftwareTpm) -> None:
    measured_boot.play(measured_boot.another_kernel(measured_boot.recorded_boot()), software_tpm)
    held, expected = measured_boot.registers(software_tpm), measured_boot.reference_values()
    assert {register for register in held if held[register] != expected[register]} == {4}
    with pytest.raises(Disappointed):
        measured_boot.claim_registers(held, expected, but=frozenset())
