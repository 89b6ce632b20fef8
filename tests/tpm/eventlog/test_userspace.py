"""Is systemd's log read strictly, and are its texts believed only where they were measured?"""

import hashlib
import json

import pytest

from tests.tpm.eventlog.logs import secure_boot_log
from tpm.errors import StructureError
from tpm.eventlog.events import EventType
from tpm.eventlog.facts.boot import read_facts
from tpm.eventlog.userspace import RECORDS_LIMIT, SIZE_LIMIT, read_userspace

SHA256 = hashlib.sha256(b"ready").hexdigest()
GOOD = {
    "pcr": 11,
    "digests": [{"hashAlg": "sha256", "digest": SHA256}],
    "content_type": "systemd",
    "content": {"string": "ready", "bootId": "0" * 32, "timestamp": 1515761, "eventType": "phase"},
}


def line(value: object, separator: bytes = b"\x1e") -> bytes:
    return separator + json.dumps(value).encode() + b"\n"


def test_a_record_is_read() -> None:
    (one,) = read_userspace(line(GOOD)).records
    assert (one.register, one.text, one.kind) == (11, "ready", "phase")
    assert one.digests == {"sha256": bytes.fromhex(SHA256)}


def test_records_without_separator_byte_and_unknown_members_are_read() -> None:
    assert len(read_userspace(line(GOOD, b"") + line({**GOOD, "since_262": [1]})).records) == 2
    assert read_userspace(b"").records == ()


def test_an_nv_index_extends_no_register() -> None:
    place = {key: value for key, value in GOOD.items() if key != "pcr"}
    log = read_userspace(
        line({**place, "nv_index": 0x01D10200}) + line({**place, "content": {"nvIndexName": "verity"}})
    )
    assert [one.register for one in log.records] == [None, None]
    assert log.events(0) == ()


def test_a_confidential_machines_register_is_counted_from_one() -> None:
    place = {key: value for key, value in GOOD.items() if key != "pcr"}
    (one,) = read_userspace(line({**place, "rtmr": 2, "mapped_pcr": 11})).records
    assert one.register == 3


WRONG: dict[str, bytes] = {
    "no JSON": b"\x1ehello\n",
    "cut off": line(GOOD)[:-5],
    "a list": line([GOOD]),
    "an empty line": line(GOOD) + b"\n" + line(GOOD),
    "member twice": b'\x1e{"pcr": 1, "pcr": 11, "digests": []}\n',
    "NaN": line(GOOD).replace(b"1515761", b"NaN"),
    "no register": line({"digests": GOOD["digests"]}),
    "two registers": line({**GOOD, "nv_index": 1}),
    "PCR 24": line({**GOOD, "pcr": 24}),
    "PCR true": line({**GOOD, "pcr": True}),
    "PCR as text": line({**GOOD, "pcr": "11"}),
    "PCR -1": line({**GOOD, "pcr": -1}),
    "no digests": line({**GOOD, "digests": []}),
    "digest without value": line({**GOOD, "digests": [{"hashAlg": "sha256"}]}),
    "digest twice": line({**GOOD, "digests": [GOOD["digests"][0]] * 2}),  # type: ignore[index]
    "digest too short": line({**GOOD, "digests": [{"hashAlg": "sha256", "digest": "00"}]}),
    "digest no hex": line({**GOOD, "digests": [{"hashAlg": "sha256", "digest": "zz" * 32}]}),
    "digest with blanks": line({**GOOD, "digests": [{"hashAlg": "sha256", "digest": "00 " * 32}]}),
    "content a list": line({**GOOD, "content": []}),
    "string a number": line({**GOOD, "content": {"string": 1}}),
    "half a character": line({**GOOD, "content": {"string": "\ud800"}}),
    "nested deeply": b"\x1e" + b"[" * 60_000 + b"\n",
    "not UTF-8": b'\x1e{"\xff": 1}\n',
    "long record": line({**GOOD, "x": "y" * 70_000}),
    "many records": line(GOOD, b"") * (RECORDS_LIMIT + 1),
    "large": b" " * (SIZE_LIMIT + 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_systemd_does_not_write_is_refused(name: str) -> None:
    with pytest.raises(StructureError) as caught:
        read_userspace(WRONG[name])
    assert caught.value.reason == "userspace_log"


def test_records_of_two_boots_are_told() -> None:
    other = {**GOOD, "content": {**GOOD["content"], "bootId": "1" * 32}}  # type: ignore[dict-item]
    assert [one.code for one in read_userspace(line(GOOD) + line(other)).findings] == ["boot_id_mixed"]
    assert read_userspace(line(GOOD) * 2).findings == ()


def test_a_phase_counts_only_if_its_text_was_measured() -> None:
    log = secure_boot_log().read()
    true = read_userspace(line(GOOD))
    facts = read_facts(log, bank="sha256", registers=None, userspace=true)
    assert facts.phases == ("ready",)
    false = read_userspace(line({**GOOD, "content": {"string": "sysinit"}}))
    facts = read_facts(log, bank="sha256", registers=None, userspace=false)
    assert facts.phases == ()
    assert facts.unexplained[11] == (len(log.events),)


@pytest.mark.parametrize("text", [".cmdline\0", ".cmdline"])
def test_a_section_of_the_kernel_image_does_not_pass_for_a_phase(text: str) -> None:
    log = secure_boot_log().read()
    digest = hashlib.sha256(text.encode()).hexdigest()
    moved = {**GOOD, "digests": [{"hashAlg": "sha256", "digest": digest}], "content": {"string": text}}
    facts = read_facts(log, bank="sha256", registers=None, userspace=read_userspace(line(moved)))
    assert facts.phases == ()
    assert facts.unexplained[11] == (len(log.events),)


@pytest.mark.parametrize("register", [7, 12])
def test_systemds_separator_is_explained_in_its_own_log_only(register: int) -> None:
    content = b"os-separator"
    digest = {"hashAlg": "sha256", "digest": hashlib.sha256(content).hexdigest()}
    told = {**GOOD, "pcr": register, "digests": [digest], "content": {"string": "os-separator"}}
    log = secure_boot_log().read()
    facts = read_facts(log, bank="sha256", registers=None, userspace=read_userspace(line(told)))
    assert facts.unexplained.get(register, ()) == ()
    # The firmware's log does not have it, whatever it calls it.
    for kind in (EventType.EV_IPL, EventType.EV_POST_CODE, EventType.EV_EVENT_TAG):
        maker = secure_boot_log().add(register, kind, content)
        facts = read_facts(maker.read(), bank="sha256", registers=None)
        assert facts.unexplained[register] == (len(maker.records),)


def test_what_is_only_called_systemds_separator_is_not_explained() -> None:
    other = {"hashAlg": "sha256", "digest": hashlib.sha256(b"something else").hexdigest()}
    told = {**GOOD, "pcr": 7, "digests": [other], "content": {"string": "os-separator"}}
    log = secure_boot_log().read()
    facts = read_facts(log, bank="sha256", registers=None, userspace=read_userspace(line(told)))
    assert facts.unexplained[7] == (len(log.events),)
