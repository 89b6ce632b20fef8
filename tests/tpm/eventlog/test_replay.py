"""Do registers come out as a TPM's would, and does only an honest log match?"""

import hashlib
import json
from typing import Any

import pytest

from tests.tpm.eventlog.logs import IPL, NO_ACTION, SEPARATOR, Logged, LogMaker, secure_boot_log
from tests.tpm.vectors import vectors
from tpm.errors import EvidenceError
from tpm.eventlog.compare import VerifiedLog, compare, divergence, verify_log
from tpm.eventlog.events import EventLog, EventType
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay
from tpm.eventlog.userspace import UserspaceLog, read_userspace
from tpm.verify.pcrs import VerifiedPcrs

LOCALITY = b"StartupLocality\0"


def sha256(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def chain(start: bytes, *contents: bytes) -> bytes:
    for content in contents:
        start = sha256(start + sha256(content))
    return start


def quoted(log: EventLog, userspace: UserspaceLog | None = None, bank: str = "sha256") -> VerifiedPcrs:
    """What a TPM with this history would have quoted."""
    return VerifiedPcrs(bank, dict(replay(log, userspace).banks[bank]))


def codes(log: EventLog) -> list[str]:
    return [one.code for one in replay(log).findings]


def test_a_register_is_the_chain_of_its_events() -> None:
    log = LogMaker().add(4, IPL, b"a").add(4, IPL, b"b").add(5, IPL, b"c").read()
    assert replay(log).banks["sha256"] == {4: chain(bytes(32), b"a", b"b"), 5: chain(bytes(32), b"c")}
    assert set(replay(log).banks) == {"sha1", "sha256"}


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_pcr_0_starts_from_the_locality_that_is_told_first(locality: int) -> None:
    maker = LogMaker().add(0, NO_ACTION, LOCALITY + bytes((locality,))).add(0, IPL, b"a").add(1, IPL, b"b")
    values = replay(maker.read()).banks["sha256"]
    assert values == {0: chain(bytes(31) + bytes((locality,)), b"a"), 1: chain(bytes(32), b"b")}
    assert codes(maker.read()) == []


def test_startup_locality_late_twice_or_odd_is_a_finding_and_does_not_count() -> None:
    start = LogMaker().add(0, NO_ACTION, LOCALITY + b"\x03").add(0, IPL, b"a")
    value = replay(start.read()).banks["sha256"][0]
    for record, code in [
        (Logged(0, NO_ACTION, LOCALITY + b"\x04"), "startup_locality_repeated"),
        (Logged(0, NO_ACTION, LOCALITY + b"\x07"), "startup_locality_malformed"),
        (Logged(0, NO_ACTION, LOCALITY + b"\x04\0"), "startup_locality_malformed"),
        (Logged(3, NO_ACTION, LOCALITY + b"\x04"), "startup_locality_malformed"),
    ]:
        maker = LogMaker(records=[start.records[0], record, start.records[1]])
        assert codes(maker.read()) == [code]
        assert replay(maker.read()).banks["sha256"][0] == value
    late = LogMaker().add(0, IPL, b"a").add(0, NO_ACTION, LOCALITY + b"\x03")
    assert codes(late.read()) == ["startup_locality_late"]
    assert replay(late.read()).banks["sha256"][0] == chain(bytes(32), b"a")


def test_h_crtm_starts_pcr_0_from_locality_4() -> None:
    first = LogMaker().add(0, EventType.EV_EFI_HCRTM_EVENT, b"HCRTM").add(0, IPL, b"a")
    assert replay(first.read()).banks["sha256"][0] == chain(bytes(31) + b"\x04", b"HCRTM", b"a")
    second = LogMaker().add(0, IPL, b"a").add(0, EventType.EV_EFI_HCRTM_EVENT, b"HCRTM")
    assert replay(second.read()).banks["sha256"][0] == chain(bytes(32), b"a", b"HCRTM")


def test_registers_of_a_dynamic_launch_start_at_zero_when_the_log_extends_them() -> None:
    log = LogMaker().add(17, IPL, b"launch").read()
    assert replay(log).banks["sha256"] == {17: chain(bytes(32), b"launch")}


def test_an_event_without_a_bank_does_not_extend_it() -> None:
    log = LogMaker().add(4, IPL, b"a").add(11, IPL, b"windows", banks=("sha256",)).read()
    banks = replay(log).banks
    assert set(banks["sha1"]) == {4}
    assert set(banks["sha256"]) == {4, 11}


def test_notes_extend_nothing() -> None:
    log = LogMaker().add(7, NO_ACTION, b"SecureBoot").add(4, IPL, b"a").read()
    assert set(replay(log).banks["sha256"]) == {4}


def test_a_log_that_measures_nothing_is_told() -> None:
    assert codes(LogMaker().read()) == ["log_measures_nothing"]
    assert codes(secure_boot_log().read()) == []


def test_a_second_header_of_a_legacy_log_is_told() -> None:
    maker = LogMaker(("sha1",), "sha1").add(4, IPL, b"a").add(0, NO_ACTION, b"Spec ID Event02\0" + bytes(20))
    assert codes(maker.read()) == ["header_repeated"]


MUTATIONS: dict[str, Any] = {
    "dropped": lambda records: records[:3] + records[4:],
    "added": lambda records: [*records, Logged(4, IPL, b"more")],
    "swapped": lambda records: [records[0], records[2], records[1], *records[3:]],
    "moved to another PCR": lambda records: [Logged(1, records[0].kind, records[0].data), *records[1:]],
    "retyped as a note": lambda records: [*records[:1], Logged(7, NO_ACTION, records[1].data), *records[2:]],
    "with a locality": lambda records: [Logged(0, NO_ACTION, LOCALITY + b"\x03"), *records],
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_el_1_a_log_that_is_not_the_registers_history_is_refused(name: str) -> None:
    pcrs = quoted(secure_boot_log().read())
    changed = LogMaker(records=MUTATIONS[name](secure_boot_log().records)).read()
    with pytest.raises(EvidenceError) as caught:
        verify_log(changed, pcrs)
    assert caught.value.reason == "log_replay"


def test_el_1_twin_the_honest_log_is_verified() -> None:
    log = secure_boot_log().read()
    verified = verify_log(log, quoted(log))
    assert verified.registers == frozenset(range(8))
    assert set(verified.states.values()) == {"match"}


def test_el_8_a_log_without_the_quoted_bank_is_refused() -> None:
    log = secure_boot_log(banks=("sha1",)).read()
    with pytest.raises(EvidenceError) as caught:
        verify_log(log, quoted(secure_boot_log().read()))
    assert caught.value.reason == "log_bank_missing"


def test_el_8_twin_one_of_several_banks_is_enough() -> None:
    log = secure_boot_log(banks=("sha1", "sha384", "sha256")).read()
    assert verify_log(log, quoted(log, bank="sha384")).bank == "sha384"


def test_a_log_of_a_header_alone_is_refused_beside_a_quote() -> None:
    with pytest.raises(EvidenceError) as caught:
        verify_log(LogMaker().read(), quoted(secure_boot_log().read()))
    assert caught.value.reason == "log_empty"


def test_el_11_events_of_registers_that_are_not_quoted_are_recorded_and_never_used() -> None:
    log = secure_boot_log().add(8, IPL, b"grub_cmd: x\0", measured=b"x").add(14, IPL, b"MokList\0").read()
    pcrs = VerifiedPcrs("sha256", {one: replay(log).banks["sha256"][one] for one in range(8)})
    verified = verify_log(log, pcrs)
    assert verified.states[8] == verified.states[14] == "not_quoted"
    assert 8 not in verified.registers


def test_a_quoted_register_that_the_log_lacks_is_not_a_mismatch() -> None:
    log = secure_boot_log().read()
    values = {**replay(log).banks["sha256"], 10: bytes(32)}
    assert verify_log(log, VerifiedPcrs("sha256", values)).states[10] == "not_in_log"


def test_a_verified_log_is_made_in_one_place_only() -> None:
    assert VerifiedLog.__module__ == verify_log.__module__ == "tpm.eventlog.compare"


def test_where_register_and_log_part_is_told() -> None:
    log = secure_boot_log().read()
    history = [one for one in log.events if one.register == 5 and one.type != NO_ACTION]
    values = [bytes(32)]
    for one in history:
        values.append(sha256(values[-1] + one.digests["sha256"]))
    shorter = divergence(log, "sha256", 5, values[1])
    assert shorter.event == history[1].number
    without = divergence(log, "sha256", 5, chain(bytes(32), history[0].data, history[2].data))
    assert without.event == history[1].number
    assert divergence(log, "sha256", 5, b"\x07" * 32).event is None
    locality = divergence(log, "sha256", 0, chain(bytes(31) + b"\x03", log.events[1].data, SEPARATOR))
    assert "locality 3" in locality.detail


def test_a_firmware_that_does_not_log_its_last_events_is_explained() -> None:
    (vector,) = vectors("eventlogs/hp-ebs-missing-sha1")
    value = bytes.fromhex(vector.about["expected"]["pcrs"]["sha1"]["5"])
    log = read_log(vector.read("log.bin"))
    assert compare(replay(log).banks["sha1"], {5: value})[5] == "mismatch"
    assert "ExitBootServices" in divergence(log, "sha1", 5, value).detail


def record(pcr: int, text: str, **more: object) -> bytes:
    digests = [
        {"hashAlg": bank, "digest": hashlib.new(bank, text.encode()).hexdigest()}
        for bank in ("sha1", "sha256")
    ]
    content = {"string": text, "bootId": "0" * 32, "eventType": "phase"}
    return b"\x1e" + json.dumps({"pcr": pcr, "digests": digests, "content": content, **more}).encode() + b"\n"


def test_userspace_measurements_follow_the_firmwares() -> None:
    (vector,) = vectors("vm/*")
    log = read_log(vector.read("eventlog.bin"))
    wanted = vector.about["expected"]["pcrs"]["sha256"]
    values = {int(register): bytes.fromhex(value) for register, value in wanted.items()}
    alone = compare(replay(log).banks["sha256"], values)
    assert [register for register, state in alone.items() if state == "mismatch"] == [11]
    userspace = read_userspace(record(11, "sysinit") + record(11, "ready"))
    both = replay(log, userspace).banks["sha256"]
    assert compare(both, values)[11] == "match"
    verified = verify_log(log, VerifiedPcrs("sha256", values), userspace=userspace)
    assert 11 in verified.registers


def test_the_separator_of_the_operating_system_is_explained_and_replayed() -> None:
    log = secure_boot_log().read()
    userspace = read_userspace(b"".join(record(register, "os-separator") for register in range(8)))
    pcrs = quoted(log, userspace)
    assert "os-separator" in divergence(log, "sha256", 7, pcrs.values[7]).detail
    assert verify_log(log, pcrs, userspace=userspace).registers == frozenset(range(8))
