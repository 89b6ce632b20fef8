"""Is IMA's list compared with the registers as they were when it began, as far as that was proven?"""

import hashlib
from dataclasses import replace

from attestd.log_cache import LogCache
from attestd.policy.document import Policy, load_policy
from attestd.round.logs import NONE, BootLog, Logs
from attestd.round.replayed import Replayed, replay_logs
from tests.recorded import userspace_log
from tests.tpm.eventlog.logs import secure_boot_log
from tests.tpm.ima.kernel import Kernel
from tpm.eventlog.replay import replay
from tpm.eventlog.userspace import read_userspace
from tpm.verify.pcrs import VerifiedPcrs

DIGESTS = {"plant.digests": f"sha256:{'ab' * 32}  /usr/bin/sh\n".encode()}
POLICY: Policy = load_policy(b'name = "plant"\n[ima]\nrequired = true\nallow = ["plant.digests"]\n', DIGESTS)
FIRMWARE = replay(secure_boot_log().read()).banks["sha256"]
AT_BOOT = {register: FIRMWARE.get(register, bytes(32)) for register in range(10)}


def sent(userspace: bytes | None) -> BootLog:
    raw = secure_boot_log().write()
    read = None if userspace is None else read_userspace(userspace)
    name = "" if userspace is None else hashlib.sha256(userspace).hexdigest()
    return BootLog(hashlib.sha256(raw).hexdigest(), raw, secure_boot_log().read(), read, name, len(raw))


def machine(*extended: int, left_out: tuple[int, ...] = ()) -> tuple[Logs, VerifiedPcrs]:
    """It measured a file; then systemd extended these registers. `left_out` were not quoted."""
    kernel = Kernel(boot=dict(AT_BOOT)).aggregate().run(b"/usr/bin/sh")
    values = dict(kernel.quoted.values)
    for register in extended:
        values[register] = hashlib.sha256(values[register] + hashlib.sha256(b"later").digest()).digest()
    records = b"".join(userspace_log("later", register=register) for register in extended)
    quoted = {register: value for register, value in values.items() if register not in left_out}
    return replace(NONE, boot=sent(records or None), ima=kernel.raw()), VerifiedPcrs("sha256", quoted)


def replayed(logs: Logs, pcrs: VerifiedPcrs) -> Replayed:
    return replay_logs(LogCache(), logs, pcrs, POLICY)


def aggregate(logs: Logs, pcrs: VerifiedPcrs) -> str:
    """What is known of the boot aggregate, or why the list is refused."""
    told = replayed(logs, pcrs)
    return told.ima.boot if told.ima is not None else told.findings[-1].code


def test_a_list_without_an_event_log_is_compared_with_the_quoted_registers() -> None:
    logs, pcrs = machine()
    assert aggregate(replace(logs, boot=None), pcrs) == "proven"
    moved = VerifiedPcrs("sha256", {**pcrs.values, 9: b"\x09" * 32})
    assert aggregate(replace(logs, boot=None), moved) == "boot_aggregate"


def test_a_list_without_systemds_log_is_compared_with_the_quoted_registers() -> None:
    logs, pcrs = machine()
    assert aggregate(logs, pcrs) == "proven"
    # Register 9 is in no log: what it holds was there when IMA began, for all that anybody proved.
    moved = VerifiedPcrs("sha256", {**pcrs.values, 9: b"\x09" * 32})
    assert aggregate(logs, moved) == "boot_aggregate"


def test_registers_that_systemd_extended_are_compared_as_they_were_when_ima_began() -> None:
    for registers in ((9,), (4, 9), (7,)):
        logs, pcrs = machine(*registers)
        assert aggregate(logs, pcrs) == "proven"
        # Without its log nobody knows what they held then.
        without = replace(logs, boot=None)
        assert aggregate(without, pcrs) == "boot_aggregate"


def test_im_5_a_register_that_was_not_quoted_is_known_from_no_log() -> None:
    for registers in ((9,), (7,)):
        logs, pcrs = machine(*registers, left_out=registers)
        assert aggregate(logs, pcrs) == "unquoted"


def test_a_log_that_does_not_replay_says_nothing_of_what_was_there_before() -> None:
    logs, pcrs = machine(9)
    moved = VerifiedPcrs("sha256", {**pcrs.values, 9: b"\x09" * 32})
    told = replayed(logs, moved)
    assert (told.boot, told.ima) == (None, None)
    assert [(one.code, one.subject) for one in told.findings] == [
        ("log_replay", "pcr9"),
        ("boot_aggregate", "ima_log"),
    ]
