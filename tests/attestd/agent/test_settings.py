"""Is the agent's configuration read whole, and refused with what to correct?"""

from pathlib import Path

import pytest

from attestd.agent.settings import DEFAULT_STATE, Callers, Settings, load_settings
from tpm.errors import PolicyError

WHOLE = """
server = "https://attestd.example.org"
ca = "ca.pem"
tpm = "swtpm:path=/run/tpm"
state = "state"
socket = "/run/a.sock"
reactivate = false
[[workload]]
agent = "telemetry"
formats = ["x509-svid", "jwt-svid"]
key = "software"
audiences = ["https://a.example.org"]
hint = "internal"
user = ["telemetry", "1000"]
group = ["tss"]
unit = ["telemetry.service"]
path = ["/usr/bin/telemetry"]
files = "telemetry"
on_renewal = ["/usr/bin/systemctl", "reload", "telemetry.service"]
seals = ["disk"]
[[workload]]
agent = "billing"
key = "tpm"
user = ["billing"]
"""


def load(directory: Path, text: str) -> Settings:
    file = directory / "agent.toml"
    file.write_text(text)
    return load_settings(file)


def test_every_key_is_read_and_paths_are_beside_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, WHOLE)
    assert (settings.server, settings.ca) == ("https://attestd.example.org", tmp_path / "ca.pem")
    assert (settings.tpm, settings.state) == ("swtpm:path=/run/tpm", tmp_path / "state")
    assert (settings.socket, settings.reactivate) == (Path("/run/a.sock"), False)
    telemetry, billing = settings.workloads
    assert telemetry.callers == Callers(
        frozenset({"telemetry", "1000"}),
        frozenset({"tss"}),
        frozenset({"telemetry.service"}),
        frozenset({"/usr/bin/telemetry"}),
    )
    assert (telemetry.formats, telemetry.audiences) == (
        ("x509-svid", "jwt-svid"),
        ("https://a.example.org",),
    )
    assert (telemetry.files, telemetry.seals, telemetry.hint) == (
        tmp_path / "telemetry",
        ("disk",),
        "internal",
    )
    assert telemetry.on_renewal == ("/usr/bin/systemctl", "reload", "telemetry.service")
    assert (billing.formats, billing.key, billing.files) == (("x509-svid",), "tpm", None)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Settings()
    assert Settings().state == DEFAULT_STATE


def workload(*lines: str) -> str:
    return "\n".join(["[[workload]]", *lines])


ONE = ('agent = "a"', 'user = ["a"]')

REFUSED = {
    "no TOML": ("server = ", "config_syntax"),
    "an unknown key": ('sever = "https://a.example.org"', "config_unknown_key"),
    "plain HTTP to another machine": ('server = "http://attestd.example.org"', "config_value"),
    "a fingerprint in capitals": (f'root_sha256 = "{"AB" * 32}"', "config_value"),
    "a short fingerprint": (f'root_sha256 = "{"ab" * 20}"', "config_value"),
    "two ways to trust": (f'ca = "ca.pem"\nroot_sha256 = "{"ab" * 32}"', "config_value"),
    "an agent without a name": (workload('user = ["a"]'), "config_missing_key"),
    "an agent's name that is a path": (workload('agent = "../a"', 'user = ["a"]'), "config_value"),
    "an identity for any program": (workload('agent = "a"'), "config_missing_key"),
    "a condition without values": (workload(*ONE, "unit = []"), "config_value"),
    "a condition with an empty value": (workload(*ONE, 'unit = [""]'), "config_value"),
    "a condition that is no list": (workload('agent = "a"', 'user = "a"'), "config_type"),
    "a user by a bare number": (workload('agent = "a"', "user = [0]"), "config_type"),
    "a program without a folder": (workload(*ONE, 'path = ["curl"]'), "config_value"),
    "a program alone": (workload('agent = "a"', 'path = ["/usr/bin/a"]'), "config_value"),
    "an unknown format": (workload(*ONE, 'formats = ["x509"]'), "config_value"),
    "a format twice": (workload(*ONE, 'formats = ["x509-svid", "x509-svid"]'), "config_value"),
    "no format": (workload(*ONE, "formats = []"), "config_value"),
    "an unknown kind of key": (workload(*ONE, 'key = "hsm"'), "config_value"),
    "tokens for nobody": (workload(*ONE, 'formats = ["jwt-svid"]'), "config_missing_key"),
    "a command without files": (workload(*ONE, 'on_renewal = ["/bin/true"]'), "config_value"),
    "a command that PATH finds": (workload(*ONE, 'files = "f"', 'on_renewal = ["true"]'), "config_value"),
    "sealed keys without files": (workload(*ONE, 'seals = ["disk"]'), "config_value"),
    "a sealed key that is a path": (workload(*ONE, 'files = "f"', 'seals = ["../disk"]'), "config_value"),
    "an agent twice": ("\n".join([workload(*ONE)] * 2), "config_value"),
    "more than one round holds": (
        "\n".join(
            workload(f'agent = "a{n}"', 'user = ["a"]', 'formats = ["x509-svid", "wit-svid"]')
            for n in range(9)
        ),
        "config_value",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    text, reason = REFUSED[what]
    with pytest.raises(PolicyError) as refusal:
        load(tmp_path, text)
    assert refusal.value.reason == reason
    assert refusal.value.detail.startswith(str(tmp_path / "agent.toml"))
    assert "\n" not in refusal.value.detail


def test_a_mistyped_key_is_told_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="did you mean server"):
        load(tmp_path, 'sever = "https://a.example.org"')


@pytest.mark.parametrize("beside", ["user", "group", "unit"])
def test_a_program_is_named_beside_what_no_process_gives_to_itself(tmp_path: Path, beside: str) -> None:
    path = 'path = ["/usr/bin/a"]'
    with pytest.raises(PolicyError, match=r"alone is no condition.*name user, group or unit beside it"):
        load(tmp_path, workload('agent = "a"', path))
    (read,) = load(tmp_path, workload('agent = "a"', path, f'{beside} = ["a.service"]')).workloads
    assert read.callers.path == {"/usr/bin/a"}
