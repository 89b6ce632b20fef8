"""One attestation for several agents of a machine: each gets its own, and a mixed-up answer nobody's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from attestd.agent.attest import Received, Wanted
from attestd.agent.delivery.deliver import deliver
from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.machine import Machine
from tests.attestd.agent.far_side import ATTEST, BUNDLE, FarSide, member_of
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

TELEMETRY = Wanted("telemetry", ("x509-svid", "wit-svid"), "tpm", (), ())
BUILDER = Wanted("builder", ("x509-svid", "jwt-svid"), "tpm", ("https://a.example.org",), ("disk",))
SOFT = Wanted("builder", ("x509-svid",), "software", (), ("signer",))


def machine_of(agent: Agent) -> Machine:
    return Machine.enrolled(agent.tpm.tcti, agent.state)


def test_each_agent_gets_its_own_credentials_under_its_own_key(agent: Agent, tmp_path: Path) -> None:
    received = machine_of(agent).attest(TELEMETRY, BUILDER)
    told = [[each["format"] for each in part.credentials] for part in received.parts]
    assert told == [["x509-svid", "wit-svid"], ["x509-svid", "jwt-svid"]]
    keys = []
    for part in received.parts:
        assert {each["agent"] for each in part.credentials} == {part.wanted.agent}
        leaf = x509.load_pem_x509_certificates(part.credentials[0]["certificate_chain"].encode())[0]
        assert part.key is not None
        assert part.key.blob is not None
        assert leaf.public_key() == part.key.blob.area.public_key()
        keys.append(leaf.public_key())
    assert keys[0] != keys[1]
    assert [part.sealed_keys[0]["name"] for part in received.parts if part.sealed_keys] == ["disk"]
    assert leftovers(agent.tpm) == {}


def test_a_key_in_a_file_and_one_in_the_tpm_go_in_one_round(agent: Agent, tmp_path: Path) -> None:
    machine = machine_of(agent)
    received = machine.attest(SOFT, TELEMETRY)
    soft, hard = received.parts
    assert soft.key is not None
    assert soft.key.blob is None
    assert machine.key(hard).jwk["kty"] == "EC"
    paths = deliver(received, machine.server.get(BUNDLE), out=tmp_path)
    assert {"builder.key.pem", "telemetry.key.tss", "signer.seal.json"} <= {path.name for path in paths}


def test_one_agent_that_is_not_entitled_leaves_all_without(agent: Agent) -> None:
    stranger = Wanted("stranger", ("x509-svid",), "tpm", (), ())
    with pytest.raises(Refusal) as refusal:
        machine_of(agent).attest(TELEMETRY, stranger)
    assert (refusal.value.code, refusal.value.problem["pointer"]) == ("not_entitled", "/credentials/2")
    assert machine_of(agent).attest(TELEMETRY).parts[0].credentials


def given(*credentials: tuple[str, str], seals: tuple[str, ...] = ("disk",)) -> dict[str, Any]:
    return {
        "result": "r.r.r",
        "credentials": [{"agent": agent, "format": form, "token": "t"} for agent, form in credentials],
        "sealed_keys": [{"name": name} for name in seals],
    }


IN_ORDER = (("telemetry", "jwt-svid"), ("builder", "jwt-svid"))
MIXED_UP = {
    "the other's first": given(*reversed(IN_ORDER)),
    "one agent's twice": given(IN_ORDER[0], IN_ORDER[0]),
    "one too many": given(*IN_ORDER, IN_ORDER[0]),
    "one missing": given(IN_ORDER[0]),
    "another format": given(IN_ORDER[0], ("builder", "x509-svid")),
    "a sealed key that nobody asked for": given(*IN_ORDER, seals=("disk", "../disk")),
    "no sealed key": given(*IN_ORDER, seals=()),
}


@pytest.fixture
def ask(shared_tpm: SoftwareTpm, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Received]]:
    """Two agents ask a far side, which answers this."""

    def ask(answer: dict[str, Any]) -> Received:
        far.answers[ATTEST] = answer
        audiences = ("https://a.example.org",)
        return machine_of(member).attest(
            Wanted("telemetry", ("jwt-svid",), "tpm", audiences, ()),
            Wanted("builder", ("jwt-svid",), "tpm", audiences, ("disk",)),
        )

    with FarSide() as far:
        member = member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))
        yield ask


@pytest.mark.parametrize("how", MIXED_UP)
def test_ag_1_an_answer_that_mixes_agents_up_is_refused(
    ask: Callable[[dict[str, Any]], Received], how: str
) -> None:
    with pytest.raises(Unreachable, match="than were asked for"):
        ask(MIXED_UP[how])


def test_an_answer_in_order_is_taken_apart_by_agent(ask: Callable[[dict[str, Any]], Received]) -> None:
    telemetry, builder = ask(given(*IN_ORDER)).parts
    assert (telemetry.credentials[0]["agent"], telemetry.sealed_keys) == ("telemetry", ())
    assert (builder.credentials[0]["agent"], builder.sealed_keys[0]["name"]) == ("builder", "disk")
