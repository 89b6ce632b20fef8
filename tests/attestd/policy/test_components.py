"""[[component]]: in the registers that components name, nothing stands but what the policy names."""

import pytest

from attestd.clock import parse_rfc3339
from tests import recorded
from tests.attestd.policy.booted import codes, hexadecimal, judged, made_boot, policy, recorded_boot
from tests.attestd.policy.documents import refused
from tests.recorded import components, kernel_digests
from tests.tpm.eventlog.logs import Logged, image_load, secure_boot_log
from tpm.eventlog.events import EventType

IMAGE = EventType.EV_EFI_BOOT_SERVICES_APPLICATION
LOADER = hexadecimal(b"the loader")
OTHER = hexadecimal(b"another kernel")
PART = """
[[component]]
name = "{name}"
pcrs = [4]
  [[component.variant]]
  name = "one"
  digests = [{digests}]
"""


def small(*digests: str, name: str = "loader", action: bool = True) -> str:
    actions = f'[actions]\n4 = ["{recorded.CALLS}"]\n' if action else ""
    return actions + PART.format(name=name, digests=", ".join(f'"sha256:{one}"' for one in digests))


def test_the_recorded_boot_is_made_of_its_components() -> None:
    appraisal = judged(components(), recorded_boot())
    assert (appraisal.verdict, appraisal.findings) == ("accepted", ())
    assert "component:kernel" in appraisal.checks
    assert policy(components()).needed() == (4, 11)


def test_another_image_is_named_with_register_event_and_artefact() -> None:
    digests = (OTHER, *kernel_digests()[1:])
    findings = judged(components(digests=digests), recorded_boot()).findings
    assert [(one.code, one.subject) for one in findings] == [
        ("component_missing", "kernel"),
        ("event_unexpected", "pcr4"),
    ]
    assert findings[0].expected == ("6.1.0-49",)
    event = findings[1]
    assert (event.event, event.found) == (recorded.IMAGE, kernel_digests()[0])
    assert OTHER in event.expected
    assert event.artefact is not None
    assert "BOOTX64.EFI" in event.artefact


def test_any_one_of_the_variants_is_good_and_two_at_once_are_not() -> None:
    more = f'[[component.variant]]\n  name = "next"\n  digests = ["sha256:{OTHER}"]'
    assert codes(components(more=more), recorded_boot()) == []
    beside = small(LOADER) + f'  [[component.variant]]\n  name = "two"\n  digests = ["sha256:{OTHER}"]\n'
    assert codes(beside, made_boot(secure_boot_log())) == []
    both = secure_boot_log().add(4, IMAGE, image_load(), measured=b"another kernel")
    assert codes(beside, made_boot(both)) == [("event_unexpected", "pcr4")]


def test_an_expired_variant_is_refused_from_its_end_on() -> None:
    text = components(until="2027-01-31T00:00:00Z")
    end = parse_rfc3339("2027-01-31T00:00:00Z")
    assert codes(text, recorded_boot(), now=end - 1) == []
    assert codes(text, recorded_boot(), now=end) == [("component_expired", "kernel")]
    (finding,) = judged(text, recorded_boot(), now=end).findings
    assert finding.found == "6.1.0-49, which ended 2027-01-31T00:00:00Z"


def test_an_action_that_the_policy_does_not_list_is_unexpected() -> None:
    (finding,) = judged(components(actions=False), recorded_boot()).findings
    assert (finding.code, finding.subject, finding.found) == (
        "event_unexpected",
        "pcr4",
        hexadecimal(recorded.RETURNS.encode()),
    )
    assert codes(small(LOADER, action=False), made_boot(secure_boot_log())) == [("event_unexpected", "pcr4")]


@pytest.mark.parametrize("name", ["twice", "foreign", "retyped"])
def test_what_stands_there_beside_the_components_is_unexpected_whatever_it_is_called(name: str) -> None:
    log = secure_boot_log()
    match name:
        case "twice":
            log.add(4, IMAGE, image_load(), measured=b"the loader")
        case "foreign":
            log.add(4, IMAGE, image_load(), measured=b"malware")
        case "retyped":
            log.add(4, EventType.EV_SEPARATOR, bytes(4), measured=b"malware")
    assert codes(small(LOADER), made_boot(log)) == [("event_unexpected", "pcr4")]
    assert codes(small(LOADER), made_boot(secure_boot_log())) == []


SEPARATORS: dict[str, tuple[tuple[bytes, ...], int]] = {
    "the firmware's": ((bytes(4),), 0),
    "the firmware's other": ((b"\xff" * 4,), 0),
    "none": ((), 0),
    "the firmware's twice": ((bytes(4), bytes(4)), 1),
    "both of the firmware's": ((bytes(4), b"\xff" * 4), 1),
    "of an error": ((b"\x01\0\0\0",), 1),
    "of an error beside the firmware's": ((bytes(4), b"\x01\0\0\0"), 1),
    "the firmware's and systemd's": ((bytes(4), b"os-separator"), 0),
    "systemd's twice": ((bytes(4), b"os-separator", b"os-separator"), 1),
}


@pytest.mark.parametrize("case", SEPARATORS)
def test_one_separator_of_the_firmware_and_one_of_systemd_are_expected(case: str) -> None:
    found, unexpected = SEPARATORS[case]
    log = secure_boot_log()
    place = next(at for at, one in enumerate(log.records) if (one.register, one.data) == (4, bytes(4)))
    log.records[place : place + 1] = [Logged(4, EventType.EV_SEPARATOR, content) for content in found]
    assert codes(small(LOADER), made_boot(log)) == [("event_unexpected", "pcr4")] * unexpected


def test_a_policy_may_list_a_separator_that_its_machines_measure_again() -> None:
    log = secure_boot_log().add(4, EventType.EV_SEPARATOR, bytes(4))
    text = small(LOADER)
    assert codes(text, made_boot(log)) == [("event_unexpected", "pcr4")]
    listed = text.replace("4 = [", f'4 = ["sha256:{hexadecimal(bytes(4))}", ')
    assert codes(listed, made_boot(log)) == []


def test_the_digests_of_a_variant_stand_in_its_order() -> None:
    log = secure_boot_log().add(4, IMAGE, image_load(), measured=b"another kernel")
    assert codes(small(LOADER, OTHER), made_boot(log)) == []
    found = codes(small(OTHER, LOADER), made_boot(log))
    assert ("component_missing", "loader") in found
    assert ("event_unexpected", "pcr4") in found


def test_each_component_is_present_and_several_share_a_register() -> None:
    text = small(LOADER) + PART.format(name="kernel", digests=f'"sha256:{OTHER}"')
    log = secure_boot_log().add(4, IMAGE, image_load(), measured=b"another kernel")
    assert codes(text, made_boot(log)) == []
    assert codes(text, made_boot(secure_boot_log())) == [("component_missing", "kernel")]


def test_el_11_events_in_registers_that_no_component_names_are_allowed() -> None:
    log = secure_boot_log()
    for register in (8, 9, 12, 13, 14):
        log.add(register, EventType.EV_IPL, b"something else")
    assert codes(small(LOADER), made_boot(log)) == []
    log.add(4, EventType.EV_IPL, b"something else")
    assert codes(small(LOADER), made_boot(log)) == [("event_unexpected", "pcr4")]


def test_the_line_that_a_kernels_stub_was_given_is_closed_in_by_a_component_on_pcrs_4_and_9() -> None:
    machine = recorded_boot()
    image, line, initrd = (machine[1].digest(event).hex() for event in (recorded.IMAGE, 42, 43))
    text = f'[actions]\n4 = ["{recorded.CALLS}", "{recorded.RETURNS}"]\n' + PART.replace("[4]", "[4, 9]")

    def listed(*digests: str) -> str:
        return text.format(name="kernel", digests=", ".join(f'"sha256:{one}"' for one in digests))

    assert codes(listed(image, line, initrd), machine) == []
    assert codes(listed(image, OTHER, initrd), machine) == [
        ("component_missing", "kernel"),
        ("event_unexpected", "pcr9"),
    ]
    assert codes(listed(image, initrd), machine) == [("event_unexpected", "pcr9")]


def test_the_words_of_allowed_phases_are_allowed_in_their_register() -> None:
    text = components().replace('11 = ["sysinit", "ready"]\n', "")
    assert codes(text, recorded_boot()) == [("event_unexpected", "pcr11")] * 2
    assert codes(text + '[boot]\nevent_log = "required"\nphases = ["sysinit:ready"]', recorded_boot()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (small(LOADER) + PART.format(name="loader", digests=f'"sha256:{OTHER}"'), "value_twice"),
        (small(LOADER) + PART.format(name="kernel", digests=f'"sha256:{LOADER}"'), "components_conflict"),
        (small(LOADER).replace("4 = [", "5 = ["), "register_unused"),
        (small(LOADER).replace("sha256:", "sha1:"), "digest_wrong"),
        (small(), "list_empty"),
        (small(LOADER) + "  until = 2027-01-31\n", "type_wrong"),
        (small(LOADER) + "  until = 2027-01-31T00:00:00\n", "type_wrong"),
        (small(LOADER) + '[boot]\nevent_log = "unavailable"\n', "log_unavailable"),
    ],
)
def test_a_component_that_cannot_be_meant_is_refused(text: str, reason: str) -> None:
    assert refused('name = "a"\n' + text).reason == reason
    assert policy(small(LOADER)).components[0].pcrs == (4,)
