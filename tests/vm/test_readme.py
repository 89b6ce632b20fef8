"""The README's commands are found as a reader would type them, and whose they are."""

import pytest

from scripts.demonstration.claims import Disappointed
from scripts.vm.readme import SECTION, Step, steps

README = f"""\
## Before

    not this

## {SECTION}

What it is.

    apt install ./attestd_*.deb             # on the device
    attestd policy apply gateway.toml       # on the service: what is good
    attestd check

    # on the device
    attestd agent join https://attestd.example.org \\
        --root-sha256 FINGERPRINT           # of its CA
    cat >/etc/attestd/agent.toml <<'EOF'
    [[workload]]                            # kept: it is a document
    agent = "telemetry"
    EOF
    systemctl enable --now attestd-agent.service

And then:

    nor this

## After
"""


def test_commands_come_in_order_with_their_place_and_without_their_comments() -> None:
    assert steps({"FINGERPRINT": "ab12"}, README) == (
        Step("device", "apt install ./attestd_*.deb"),
        Step("service", "attestd policy apply gateway.toml"),
        Step("service", "attestd check"),
        Step("device", "attestd agent join https://attestd.example.org --root-sha256 ab12"),
        Step(
            "device",
            "cat >/etc/attestd/agent.toml <<'EOF'\n"
            "[[workload]]                            # kept: it is a document\n"
            'agent = "telemetry"\nEOF',
        ),
        Step("device", "systemctl enable --now attestd-agent.service"),
    )


@pytest.mark.parametrize("text", ["", f"## {SECTION}\n\nNothing to type.\n", "## Other\n\n    attestd\n"])
def test_a_readme_without_them_is_no_success(text: str) -> None:
    with pytest.raises(Disappointed, match=SECTION):
        steps({}, text)
