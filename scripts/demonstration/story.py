"""What happens, in which order? One service, one policy, two machines, one user."""

import json
import socket
import ssl
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from scripts.demonstration import measured_boot
from scripts.demonstration.claims import Disappointed, claim
from scripts.demonstration.credentials import received
from scripts.demonstration.delegation import GRANT, Places, act, introduce, look_back, lose, tool
from scripts.demonstration.display import WIDTH, Display
from scripts.demonstration.ledger import Ledger, call, ledger
from scripts.demonstration.login import login
from scripts.demonstration.measured_boot import Event
from scripts.demonstration.people import Person
from tpm.swtpm import SoftwareTpm

DOMAIN, AUDIENCE, SECRET_BYTES = "demo.example", "https://ledger.example", 32
DECIDING = {0: "firmware", 11: "kernel image"}

_POLICY = """\
name = "gateway"
description = "The gateway's kernel, started with Secure Boot"
disclose = "findings"                          # a refused machine is told why

[pcrs]                                         # what the registers of a good machine hold
{registers}

[boot]                                         # what its event log has to prove
event_log = "required"
secure_boot = true

[actions]                                      # what its firmware may say in between
4 = ["Calling EFI Application from Boot Option",
     "Returning from EFI Application from Boot Option"]

[[component]]                                  # what it may start; nothing else
name = "kernel"
pcrs = [4]
  [[component.variant]]
  name = "6.1 of the gateway"
  digests = ["sha256:{kernel}"]

[[grant]]
agent = "telemetry"
spiffe_id = "spiffe://{{trust_domain}}/{{agent}}/{{name}}"
formats = ["x509-svid", "wit-svid", "jwt-svid"]
ttl = "10m"
key = "any"                                    # "tpm" would demand keys that never leave the TPM
audiences = ["{audience}"]
{assistant}
[[seal]]
name = "disk"
kind = "secret-{secret}"
pcrs = [0, 7]
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where it happens: the directory that is removed afterwards, the service's address, and the others'."""

    display: Display
    work: Path
    url: str
    places: Places

    def person(self, name: str, **environment: str) -> Person:
        home = self.work / name
        home.mkdir(exist_ok=True)
        return Person(name, home, self.display, environment)


def tell(display: Display, work: Path) -> tuple[str, str]:
    """The whole story; two lines of what it showed. Disappointed when something was otherwise."""
    with ExitStack() as stack:
        scene = _scene(display, work)
        tpms = tuple(stack.enter_context(SoftwareTpm()) for _ in range(2))
        _switch_on(display, tpms)
        machines = [
            scene.person(f"gateway-{number}", ATTESTD_TPM=tpm.tcti)
            for number, tpm in enumerate(tpms, start=1)
        ]
        operator = scene.person("operator")
        _set_up(scene, operator, tpms[0], stack)
        for machine in machines:
            _enrol(scene, operator, machine)
        good, bad = machines
        measured_boot.write_logs(good.home, measured_boot.recorded_boot())
        measured_boot.write_logs(bad.home, measured_boot.another_kernel(measured_boot.recorded_boot()))
        _receive(scene, good)
        service = ledger(
            work, bundle=good.home / "credentials" / "bundle.pem", callers=f"spiffe://{DOMAIN}/telemetry/"
        )
        _use(good, stack.enter_context(service))
        _be_refused(operator, bad)
        _delegate(scene, operator, good, tpms[0], stack)
        left = [tpm.pid for tpm in tpms]
    claim(not any(Path(f"/proc/{pid}").exists() for pid in left), "no software TPM should be left running")
    return (
        f"{good.name} booted what is good: credentials, its sealed key, calls for alice, while it lasted.",
        f"{bad.name} booted something else: refused, told which event and why, left with nothing.",
    )


def _switch_on(display: Display, tpms: tuple[SoftwareTpm, ...]) -> None:
    boot, expected = measured_boot.recorded_boot(), measured_boot.reference_values()
    with display.stage("Two machines are switched on; ATTESTD_TPM names the software TPM of each"):
        display.say(
            f"{len(boot)} measurements of a real machine's boot are played into each: firmware to systemd."
        )
        for tpm, measured, differing, told in (
            (tpms[0], boot, (), "as recorded; its registers now hold what the real machine's held"),
            (tpms[1], measured_boot.another_kernel(boot), (4,), "the same, but it started another image"),
        ):
            _measure(tpm, measured, expected, differing)
            display.say(f"gateway-{1 + tpms.index(tpm)}  {told}")


def _measure(
    tpm: SoftwareTpm, boot: tuple[Event, ...], expected: dict[int, str], differing: tuple[int, ...]
) -> None:
    measured_boot.play(boot, tpm)
    measured_boot.claim_registers(measured_boot.registers(tpm), expected, but=frozenset(differing))


def _set_up(scene: Scene, operator: Person, tpm: SoftwareTpm, stack: ExitStack) -> None:
    values = measured_boot.reference_values()
    registers = (f'{pcr:<2} = ["sha256:{values[pcr]}"]  # {what}' for pcr, what in DECIDING.items())
    policy = _POLICY.format(
        registers="\n".join(registers),
        kernel=measured_boot.kernel_digest(),
        audience=AUDIENCE,
        secret=SECRET_BYTES,
        assistant=GRANT.format(login=scene.places.login, tool=scene.places.tool),
    )
    (operator.home / "gateway.toml").write_text(policy)
    (operator.home / "tpm-maker.pem").write_bytes(tpm.ek_root.public_bytes(Encoding.PEM))
    with operator.display.stage(
        "An operator says whose TPMs to trust and what is good, and starts the service"
    ):
        operator.runs("init", ".", "--trust-domain", DOMAIN, "--listen", scene.url.removeprefix("http://"))
        operator.runs("ek-roots", "import", "tpm-maker.pem", "--yes")
        for line in policy.splitlines():
            operator.display.say(f"│ {line}".rstrip(), "dim")
        operator.runs("policy", "apply", "gateway.toml")
        introduce(operator, scene.places)
        stack.enter_context(operator.serves(scene.url))


def _enrol(scene: Scene, operator: Person, machine: Person) -> None:
    with scene.display.stage(f"{machine.name} enrols: its TPM proves who it is, the operator approves"):
        told = machine.runs("agent", "enroll", "--server", scene.url, "--state", "state")
        state, device = told.lines[0].split()
        claim(state == "pending", f"{machine.name} should wait for approval, not be {state}")
        scene.display.say(f"{state} {device}")
        operator.runs("device", "rename", device[:12], machine.name)
        operator.runs("device", "approve", machine.name)


def _attest(machine: Person, *, status: int) -> str:
    formats = [word for form in ("x509-svid", "wit-svid", "jwt-svid") for word in ("--format", form)]
    wanted = ["--agent", "telemetry", *formats, "--audience", AUDIENCE, "--key", "software", "--seal", "disk"]
    places = ("--state", "state", "--out", "credentials")
    return machine.runs("agent", "attest", *wanted, *measured_boot.LOG_OPTIONS, *places, status=status).said


def _receive(scene: Scene, machine: Person) -> None:
    with scene.display.stage(f"{machine.name} attests: its TPM signs the request and its registers"):
        _attest(machine, status=0)
        expected = f"spiffe://{DOMAIN}/telemetry/{machine.name}"
        for each in received(machine.home / "credentials", "telemetry", url=scene.url, audience=AUDIENCE):
            claim(
                each.spiffe_id == expected,
                f"the {each.standard} should name {expected}, not {each.spiffe_id}",
            )
            until = f"until {each.until:%H:%M} UTC"
            scene.display.say(f"{each.file:<19} {each.standard:<11} {each.spiffe_id}  {until}", "green")
        machine_key = machine.home / "credentials" / "telemetry.key.pem"
        claim(machine_key.stat().st_mode & 0o777 == 0o600, "the key should be its owner's alone")


def _use(machine: Person, tool: Ledger) -> None:
    display, kept = machine.display, machine.home / "credentials"
    with display.stage(f"{machine.name} opens its sealed key and calls a service behind mutual TLS"):
        secret = machine.runs("agent", "unseal", "credentials/disk.seal.json", "--state", "state").output
        claim(len(secret) == SECRET_BYTES, f"the secret should have {SECRET_BYTES} bytes, not {len(secret)}")
        display.say(f"{len(secret)} bytes, which nobody else has: the service keeps none", "green")
        answer = call(tool, (kept / "telemetry.svid.pem", kept / "telemetry.key.pem"))
        claim(
            answer == f"welcome, spiffe://{DOMAIN}/telemetry/{machine.name}",
            f"the ledger answered {answer!r}",
        )
        display.say(f"with its SVID, the ledger answers:   {answer}", "green")
        display.say(f"without one, it hangs up:            {_turned_away(tool)}")


def _turned_away(tool: Ledger) -> str:
    try:
        answer = call(tool, None)
    except ssl.SSLError as error:
        return str(error.reason).lower().replace("_", " ")
    except ConnectionError as error:
        return str(error.strerror).lower()
    raise Disappointed(f"the ledger should turn away who has no SVID, but answered {answer!r}")


def _be_refused(operator: Person, machine: Person) -> None:
    display = machine.display
    with display.stage(f"{machine.name} attests and is refused"):
        problem = json.loads(_attest(machine, status=1))
        claim(problem["code"] == "posture_rejected", f"the refusal should be of its posture, not {problem}")
        claim(not (machine.home / "credentials").exists(), "a refused machine should receive nothing")
        display.say(f"{problem['status']} {problem['code']}: {problem['detail']}", "red")
        missing, finding = problem["findings"]
        claim((missing["code"], missing["subject"]) == ("component_missing", "kernel"), f"found {missing}")
        claim(finding["subject"] == "pcr4", f"register 4 should be the one, not {finding['subject']}")
        claim(
            finding["expected"] == [measured_boot.kernel_digest()], "the policy's kernel should be expected"
        )
        event = ("event", f"{finding['event']}, {finding['artefact']}")
        for name, value in ("register", finding["subject"]), event, *_digests(finding):
            display.say(f"{name:<9} {value}", "red")
        for line in operator.runs("device", "why", machine.name).lines:
            for piece in textwrap.wrap(line.strip(), WIDTH - 6, break_on_hyphens=False):
                display.say(f"  {piece}")


def _digests(finding: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (("expected", f"sha256:{value}") for value in finding["expected"])
    yield "found", f"sha256:{finding['found']}"


def _delegate(scene: Scene, operator: Person, machine: Person, device: SoftwareTpm, stack: ExitStack) -> None:
    provider = stack.enter_context(login(scene.places.login))
    stack.enter_context(tool(operator, scene.places, scene.url))
    session, token_id = act(machine, device, scene.places, provider)
    look_back(operator, token_id)
    lose(machine, device, scene.places, session)


def _scene(display: Display, work: Path) -> Scene:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(3)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        service, users, tools = (f"http://127.0.0.1:{probe.getsockname()[1]}" for probe in probes)
    return Scene(display, work, service, Places(users, f"{tools}/mcp"))
