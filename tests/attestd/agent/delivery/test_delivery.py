"""Credentials lie in files as long as they may be used: whole, their user's alone, and in memory."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from attestd.agent.delivery.directory import Owner, foreseen
from attestd.agent.delivery.files import AGAIN_MS, Delivery, may_chown
from attestd.agent.delivery.on_renewal import Commands
from attestd.agent.errors import Misconfigured
from attestd.agent.holdings import NOTHING, Holdings
from attestd.agent.settings import Workload
from tests.attestd.agent.delivery.delivered import (
    MINUTE,
    NOW,
    STRANGER,
    another_version,
    as_user,
    contents,
    generations,
    holding,
    lying,
    spelled,
    token,
    workload,
)

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory that forgets when the power goes."""
    made = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="attestd-test."))
    yield made
    shutil.rmtree(made)


class Delivered(Delivery):
    """Keeps what it says."""

    def __init__(self, *workloads: Workload, chowns: bool | None = None) -> None:
        self.said: list[str] = []
        self.commands = Commands(self.said.append)
        super().__init__(workloads, tell=self.said.append, commands=self.commands, chowns=chowns)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def belongs(certificate: bytes, key: bytes) -> bool:
    private = load_pem_private_key(key, None)
    return load_pem_x509_certificate(certificate).public_key() == private.public_key()


# --- who may read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_ag_3_files_and_directories_are_their_owners_alone_whatever_the_mask(memory: Path, mask: int) -> None:
    (memory / "new").mkdir(mode=0o755)
    wanted = workload(memory / "new" / "files")
    before = os.umask(mask)
    try:
        Delivered(wanted).show(holding(wanted, contents()), now=NOW)
    finally:
        os.umask(before)
    folder = memory / "new" / "files"
    assert {mode(path) for path in folder.iterdir() if path.is_file()} == {0o600}
    assert mode(folder) == 0o700
    (generation,) = generations(folder)
    assert mode(folder / generation) == 0o700


def test_ag_2_the_way_to_a_new_directory_is_ours_to_change_alone(memory: Path) -> None:
    before = os.umask(0)
    try:
        Delivered(workload(memory / "one" / "two" / "files")).check()
    finally:
        os.umask(before)
    assert (mode(memory / "one"), mode(memory / "one" / "two")) == (0o755, 0o755)


def test_ag_2_another_user_reads_none_of_it_and_its_own_user_does(memory: Path) -> None:
    memory.chmod(0o755)
    folder, user = memory / "files", STRANGER if ROOT else os.geteuid()
    wanted = workload(folder, user=frozenset({str(user)}))
    Delivered(wanted).show(holding(wanted, contents()), now=NOW)
    key = folder / "telemetry.key.pem"
    assert key.stat().st_uid == user
    assert (mode(key), mode(folder) & 0o007) == (0o600, 0)
    if ROOT:
        assert as_user(STRANGER, key.read_bytes) == "done"
        assert as_user(STRANGER, (folder / "telemetry.current" / key.name).read_bytes) == "done"
        assert as_user(STRANGER + 1, key.read_bytes) == "PermissionError"


def test_ag_2_its_own_user_changes_nothing_in_the_directory(memory: Path) -> None:
    memory.chmod(0o755)
    folder, user = memory / "files", STRANGER if ROOT else os.geteuid()
    wanted = workload(folder, user=frozenset({str(user)}))
    Delivered(wanted).show(holding(wanted, contents()), now=NOW)
    assert folder.stat().st_uid == os.geteuid()
    if ROOT:
        assert as_user(STRANGER, (folder / "telemetry.key.pem").unlink) == "PermissionError"
        assert as_user(STRANGER, lambda: (folder / "planted").symlink_to("/etc")) == "PermissionError"


def test_without_the_right_to_give_files_away_they_stay_ours_and_it_is_said(memory: Path) -> None:
    wanted = workload(memory / "files", user=frozenset({str(STRANGER)}))
    delivered = Delivered(wanted, chowns=False)
    delivered.check()
    delivered.show(holding(wanted, contents()), now=NOW)
    assert (memory / "files" / "telemetry.key.pem").stat().st_uid == os.geteuid()
    assert [line for line in delivered.said if "CAP_CHOWN" in line]
    ours = Delivered(workload(memory / "files", user=frozenset({str(os.geteuid())})), chowns=False)
    ours.check()
    assert ours.said == []


_SERVICE = """
import os, sys
from pathlib import Path
from attestd.agent.delivery.files import Delivery
from tests.attestd.agent.delivery.delivered import MINUTE, NOW, contents, holding, workload
folder, user = Path(sys.argv[1]), int(sys.argv[2])
wanted = workload(folder, user=frozenset({str(user)}))
delivery = Delivery([wanted], tell=print)
delivery.check()
rounds = [holding(wanted, contents(jwt_end=NOW + MINUTE)) for _ in range(3)]
for each in (*rounds, rounds[-1]):
    delivery.show(each, now=NOW)
delivery.show(rounds[-1], now=NOW + MINUTE)
delivery = Delivery([wanted], tell=print)
delivery.show(holding(wanted, rounds[-1].held["telemetry"].files), now=NOW + MINUTE)
told = [(p.name, p.stat().st_uid) for p in sorted(folder.iterdir()) if p.is_file()]
delivery.show(rounds[-1], now=NOW + 60 * MINUTE)
print(os.geteuid() == 0, told, os.listdir(folder))
"""


def test_ag_2_the_agent_needs_no_more_than_to_read_and_to_give_away(memory: Path) -> None:
    """As the unit runs it: a user of its own, CAP_DAC_READ_SEARCH, and CAP_CHOWN to give files away."""
    user, command = os.geteuid(), [sys.executable]
    if ROOT:
        user = STRANGER
        os.chown(memory, STRANGER + 1, STRANGER + 1)
        service, rights = str(STRANGER + 1), "+chown,+dac_read_search"
        became = ["--reuid", service, "--regid", service, "--clear-groups"]
        command = ["setpriv", *became, "--inh-caps", rights, "--ambient-caps", rights, sys.executable]
    folder = memory / "files"
    command += ["-c", _SERVICE, str(folder), str(user)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = ("bundle.pem", "result.jwt", "telemetry.key.pem", "telemetry.svid.pem")
    assert ended.stdout == f"False {[(name, user) for name in names]} []\n"


def test_whether_files_may_be_given_away_is_the_kernels_word() -> None:
    assert may_chown() is ROOT


def test_a_user_who_is_not_here_is_named(memory: Path) -> None:
    with pytest.raises(Misconfigured, match="no user nobody-of-that-name here"):
        Delivered(workload(memory / "f", user=frozenset({"nobody-of-that-name"})), chowns=True).check()


# --- where it may lie -----------------------------------------------------------------------------


def test_ag_3_a_disk_is_refused_and_memory_is_taken(memory: Path, tmp_path: Path) -> None:
    Delivered(workload(memory / "files")).check()
    on_disk = tmp_path / "files"
    with pytest.raises(Misconfigured, match="below /run"):
        Delivered(workload(on_disk)).check()
    delivered = Delivered(workload(on_disk))
    delivered.show(holding(workload(on_disk), contents()), now=NOW)
    assert delivered.troubles.keys() == {"telemetry"}
    assert not on_disk.exists()
    on_disk.mkdir(mode=0o700)
    delivered.show(holding(workload(on_disk), contents()), now=NOW)
    assert (list(delivered.troubles), list(on_disk.iterdir())) == (["telemetry"], [])


def test_what_works_in_this_tpm_alone_may_lie_on_a_disk(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    wanted = workload(folder, key="tpm")
    Delivered(wanted).show(holding(wanted, {"disk.seal.json": b"{}\n"}), now=NOW)
    assert lying(folder) == {"disk.seal.json": b"{}\n"}
    with pytest.raises(Misconfigured, match="below /run"):
        Delivered(workload(folder, key="tpm", formats=("x509-svid", "jwt-svid"))).check()


def test_ag_3_a_symbolic_link_on_the_way_is_refused_and_named(memory: Path) -> None:
    (memory / "real").mkdir(mode=0o700)
    (memory / "link").symlink_to(memory / "real")
    for folder in (memory / "link", memory / "link" / "files"):
        with pytest.raises(Misconfigured, match=rf"symbolic link; name the directory itself: {memory}/real"):
            Delivered(workload(folder)).check()
    assert list((memory / "real").iterdir()) == []
    Delivered(workload(memory / "real" / "files")).check()


@pytest.mark.parametrize(
    ("wide", "where"), [(0o777, "step"), (0o770, "step"), (0o777, "end"), (0o720, "end")]
)
def test_ag_2_a_directory_that_others_may_change_is_refused(memory: Path, wide: int, where: str) -> None:
    folder = memory / "step" / "end"
    folder.mkdir(parents=True, mode=0o700)
    (memory / "step").chmod(0o755)
    Delivered(workload(folder)).check()
    (folder if where == "end" else memory / "step").chmod(wide)
    with pytest.raises(Misconfigured, match="others may write into"):
        Delivered(workload(folder)).check()


def test_ag_2_a_directory_of_somebody_else_is_refused(memory: Path) -> None:
    foreign = memory / "foreign"
    foreign.mkdir(mode=0o700)
    wanted = workload(foreign)
    Delivered(wanted).check()
    if ROOT:
        os.chown(foreign, STRANGER, STRANGER)
        for folder in (foreign, foreign / "files"):
            with pytest.raises(Misconfigured, match=f"belongs to user {STRANGER}"):
                Delivered(workload(folder)).check()
    else:
        with pytest.raises(Misconfigured, match="belongs to user 0"):
            Delivered(workload(Path("/dev/shm"))).check()


def test_a_directory_that_its_user_cannot_pass_is_refused_with_the_fix(memory: Path) -> None:
    folder = memory / "files"
    folder.mkdir(mode=0o750)
    theirs = workload(folder, user=frozenset({str(STRANGER)}))
    with pytest.raises(Misconfigured, match="remove it, it is made as it must be"):
        Delivered(theirs, chowns=True).check()
    Delivered(workload(folder, user=frozenset({str(os.geteuid())})), chowns=True).check()


def test_what_was_the_agents_alone_becomes_its_users_to_pass_where_the_agent_may(memory: Path) -> None:
    folder = memory / "files"
    folder.mkdir(mode=0o700)
    theirs = workload(folder, user=frozenset({str(STRANGER)}))
    if ROOT:
        Delivered(theirs, chowns=True).check()
        assert (mode(folder), folder.stat().st_gid) == (0o710, STRANGER)
    else:
        with pytest.raises(Misconfigured, match="remove it, it is made as it must be"):
            Delivered(theirs, chowns=True).check()
        assert mode(folder) == 0o700


def test_ag_2_a_directory_that_its_user_moved_there_is_not_opened_to_that_user(memory: Path) -> None:
    """Its parent is the user's: who moves a directory of root's into the place gets no way into it."""
    memory.chmod(0o755)
    theirs, kept = memory / "theirs", memory / "theirs" / "backup"
    kept.mkdir(mode=0o700, parents=True)
    (kept / "known").write_text("root's own")
    wanted = workload(theirs / "files", user=frozenset({str(STRANGER)}))
    if not ROOT:
        return  # Only root's directories can lie in somebody else's.
    os.chown(theirs, STRANGER, STRANGER)
    assert as_user(STRANGER, lambda: kept.rename(theirs / "files")) == "done"
    with pytest.raises(Misconfigured, match="remove it, it is made as it must be"):
        foreseen(theirs / "files", us=0, owner=Owner(STRANGER, STRANGER))
    with pytest.raises(Misconfigured, match="remove it, it is made as it must be"):
        Delivered(wanted).check()
    assert (mode(theirs / "files"), (theirs / "files").stat().st_gid) == (0o700, 0)
    assert as_user(STRANGER, (theirs / "files" / "known").read_text) == "PermissionError"
    shutil.rmtree(theirs / "files")
    Delivered(wanted).check()
    assert (mode(theirs / "files"), (theirs / "files").stat().st_gid) == (0o710, STRANGER)


def test_ag_2_a_directory_that_its_user_put_in_place_of_a_new_one_is_not_opened_to_that_user(
    memory: Path,
) -> None:
    """Between making it and opening it: then it is not what was made."""
    memory.chmod(0o755)
    theirs, kept = memory / "theirs", memory / "theirs" / "backup"
    kept.mkdir(mode=0o700, parents=True)
    (kept / "known").write_text("root's own")
    wanted = workload(theirs / "files", user=frozenset({str(STRANGER)}))
    if not ROOT:
        return  # Only root's directories can lie in somebody else's.
    os.chown(theirs, STRANGER, STRANGER)
    tries: list[object] = []

    def exchange(event: str, told: tuple[object, ...]) -> None:
        if event == "open" and told[0] == "files":
            tries.append(told)
            if len(tries) == 2:
                (theirs / "files").rename(theirs / "made")
                kept.rename(theirs / "files")

    def attacked() -> None:
        sys.addaudithook(exchange)
        Delivered(wanted).check()

    assert as_user(0, attacked) == "Misconfigured"
    assert (mode(theirs / "files"), (theirs / "files").stat().st_gid) == (0o700, 0)
    assert (theirs / "files" / "known").exists()


def test_two_workloads_do_not_share_a_directory(memory: Path) -> None:
    one = workload(memory / "files")
    with pytest.raises(Misconfigured, match="a directory of its own"):
        Delivered(one, workload(memory / "x" / ".." / "files", agent="builder")).check()
    Delivered(one, workload(memory / "others", agent="builder")).check()


# --- what lies there already ----------------------------------------------------------------------


def test_ag_3_a_symbolic_link_in_a_files_place_is_replaced_and_not_followed(memory: Path) -> None:
    folder, precious = memory / "files", memory / "precious"
    folder.mkdir(mode=0o700)
    precious.write_bytes(b"old")
    for name in ("telemetry.key.pem", "telemetry.current", "bundle.pem"):
        (folder / name).symlink_to(precious)
    wanted, files = workload(folder), contents()
    Delivered(wanted).show(holding(wanted, files), now=NOW)
    assert lying(folder) == files
    assert precious.read_bytes() == b"old"


def test_ag_3_another_name_of_an_old_file_gets_nothing_new(memory: Path) -> None:
    folder = memory / "files"
    folder.mkdir(mode=0o700)
    (folder / "telemetry.key.pem").write_bytes(b"planted")
    os.link(folder / "telemetry.key.pem", memory / "other name")
    wanted, files = workload(folder), contents()
    Delivered(wanted).show(holding(wanted, files), now=NOW)
    assert lying(folder) == files
    assert (memory / "other name").read_bytes() == b"planted"


def test_ag_3_a_wide_mode_does_not_last(memory: Path) -> None:
    wanted, files = workload(memory / "files"), contents()
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, files), now=NOW)
    (memory / "files" / "telemetry.key.pem").chmod(0o644)
    delivered.show(holding(wanted, files), now=NOW)
    assert mode(memory / "files" / "telemetry.key.pem") == 0o600


def test_what_is_not_ours_stays(memory: Path) -> None:
    folder = memory / "files"
    folder.mkdir(mode=0o700)
    foreign = {"nginx.conf": b"1", "telemetry.txt": b"2", "builder.key.pem": b"3", ".telemetry.notes": b"4"}
    for name, content in foreign.items():
        (folder / name).write_bytes(content)
    kept = [".builder.0123456789abcdef"]
    (folder / kept[0]).mkdir()
    if ROOT:
        kept.append(".telemetry.0123456789abcdef")
        (folder / kept[1]).mkdir()
        os.chown(folder / kept[1], STRANGER, STRANGER)
    wanted = workload(folder)
    delivered = Delivered(wanted)
    for picture in (holding(wanted, contents()), holding(wanted, contents()), NOTHING):
        delivered.show(picture, now=NOW)
    assert lying(folder) == foreign
    assert generations(folder) == kept


def test_a_directory_in_a_files_place_leaves_everything_as_it_was(memory: Path) -> None:
    wanted, first = workload(memory / "files"), contents()
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, first), now=NOW)
    (memory / "files" / "telemetry.wit.jwt").mkdir()
    second = contents() | {"telemetry.wit.jwt": token(NOW + MINUTE).encode()}
    for _ in range(2):
        delivered.show(holding(wanted, second), now=NOW)
        assert lying(memory / "files") == first
    assert len(delivered.said) == 1
    assert "telemetry.wit.jwt is a directory" in delivered.said[0]
    (memory / "files" / "telemetry.wit.jwt").rmdir()
    delivered.show(holding(wanted, contents()), now=NOW)
    assert delivered.troubles == {}


# --- whole and together ---------------------------------------------------------------------------


def test_the_files_are_what_is_held_under_the_names_of_agent_attest(memory: Path) -> None:
    wanted, files = workload(memory / "files"), contents()
    Delivered(wanted).show(holding(wanted, files), now=NOW)
    assert lying(memory / "files") == files
    assert lying((memory / "files" / "telemetry.current").resolve()) == files


_WRITER = """
import sys
from pathlib import Path
from tests.attestd.agent.delivery.delivered import NOW, contents, holding, workload
from attestd.agent.delivery.files import Delivery
wanted = workload(Path(sys.argv[1]))
rounds = [holding(wanted, contents()) for _ in range(4)]
delivery = Delivery([wanted], tell=print)
delivery.show(rounds[0], now=NOW)
print(flush=True)
while True:
    for each in rounds:
        delivery.show(each, now=NOW)
"""


def writer(folder: Path) -> "subprocess.Popen[bytes]":
    """Writes one round after the other, until it is killed."""
    command = [sys.executable, "-c", _WRITER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_ag_3_key_and_certificate_of_a_resolved_link_belong_to_each_other(memory: Path) -> None:
    with writer(memory / "files") as process:
        found = 0
        while found < 200:
            folder = (memory / "files" / "telemetry.current").resolve()
            try:
                pair = [(folder / f"telemetry.{name}").read_bytes() for name in ("svid.pem", "key.pem")]
            except FileNotFoundError:  # Two rounds went by meanwhile; a real one lasts minutes.
                continue
            assert belongs(*pair)
            found += 1
        process.kill()


def test_ag_3_a_killed_writer_leaves_whole_files_and_the_next_one_sweeps_its_drafts(memory: Path) -> None:
    folder = memory / "files"
    for number in range(12):
        with writer(folder) as process:
            time.sleep(0.0017 * number)
            process.send_signal(signal.SIGKILL)
        left = lying(folder)
        assert {name for name in left if not name.startswith(".")} == contents().keys()
        load_pem_x509_certificate(left["telemetry.svid.pem"])
        load_pem_private_key(left["telemetry.key.pem"], None)
        assert {mode(path) for path in folder.rglob("*") if path.is_file()} == {0o600}
    (folder / ".telemetry.0123456789abcdef").mkdir()
    (folder / ".telemetry.0123456789abcdef" / "telemetry.key.pem").write_bytes(b"half")
    wanted = workload(folder)
    Delivered(wanted).show(holding(wanted, contents()), now=NOW)
    assert len(generations(folder)) <= 2
    assert ".telemetry.0123456789abcdef" not in generations(folder)
    Delivered(wanted).show(NOTHING, now=NOW + 60 * MINUTE)
    assert list(folder.iterdir()) == []


def test_one_generation_before_the_last_is_kept_for_who_reads_it(memory: Path) -> None:
    wanted = workload(memory / "files")
    delivered, rounds = Delivered(wanted), [contents() for _ in range(4)]
    for each in rounds:
        delivered.show(holding(wanted, each), now=NOW)
    delivered.show(holding(wanted, rounds[-1]), now=NOW)
    kept = [lying(memory / "files" / name) for name in generations(memory / "files")]
    assert len(kept) == 2
    assert all(each in kept for each in rounds[-2:])


# --- until it ends --------------------------------------------------------------------------------


def test_ag_3_nothing_is_left_after_its_end(memory: Path) -> None:
    wanted = workload(memory / "files")
    files = contents(end=NOW + 10 * MINUTE, jwt_end=NOW + 5 * MINUTE) | {"disk.seal.json": b"{}\n"}
    delivered, picture = Delivered(wanted), holding(wanted, files)

    def left(at: int) -> set[str]:
        delivered.show(picture, now=at)
        found = {path.name for path in (memory / "files").rglob("*") if path.is_file()}
        assert not found or found == lying(memory / "files").keys()
        return found

    assert left(NOW) == files.keys()
    assert delivered.due() == NOW + 5 * MINUTE
    assert left(NOW + 5 * MINUTE - 1) == files.keys()
    assert left(NOW + 5 * MINUTE) == files.keys() - {"telemetry.jwt"}
    assert delivered.due() == NOW + 10 * MINUTE
    assert left(NOW + 10 * MINUTE) == {"disk.seal.json"}
    assert delivered.due() is None


def test_ag_3_a_key_goes_with_the_last_that_is_bound_to_it(memory: Path) -> None:
    wanted, files = workload(memory / "files"), contents(end=NOW + 5 * MINUTE, jwt_end=NOW + 10 * MINUTE)
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, files), now=NOW + 5 * MINUTE)
    assert lying(memory / "files").keys() == {"telemetry.jwt", "bundle.pem", "result.jwt"}
    longer = files | {"telemetry.wit.jwt": token(NOW + 8 * MINUTE).encode()}
    delivered.show(holding(wanted, longer), now=NOW + 5 * MINUTE)
    assert {"telemetry.wit.jwt", "telemetry.key.pem"} <= lying(memory / "files").keys()


def test_ag_3_what_is_not_held_any_more_is_removed_before_its_end(memory: Path) -> None:
    wanted = workload(memory / "files")
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, contents() | {"disk.seal.json": b"{}\n"}), now=NOW)
    delivered.show(NOTHING, now=NOW)
    assert lying(memory / "files") == {"disk.seal.json": b"{}\n"}
    assert not (memory / "files" / "telemetry.current").is_symlink()
    delivered.show(holding(wanted, contents()), now=NOW)
    assert "telemetry.key.pem" in lying(memory / "files")


def test_a_restarted_agent_leaves_what_lasts_and_removes_what_has_ended(memory: Path) -> None:
    wanted, files = workload(memory / "files"), contents(end=NOW + 10 * MINUTE, jwt_end=NOW + 5 * MINUTE)
    Delivered(wanted).show(holding(wanted, files), now=NOW)
    draft = memory / "files" / ".telemetry.0123456789abcdef"
    draft.mkdir()
    restarted = Delivered(wanted)
    restarted.show(NOTHING, now=NOW + MINUTE)
    assert (lying(memory / "files"), draft.exists()) == (files, False)
    restarted.show(NOTHING, now=NOW + 7 * MINUTE)
    assert lying(memory / "files").keys() == files.keys() - {"telemetry.jwt"}
    assert restarted.due() == NOW + 10 * MINUTE
    restarted.show(NOTHING, now=NOW + 10 * MINUTE)
    assert list((memory / "files").iterdir()) == []


def test_what_an_earlier_round_had_and_this_one_has_not_is_removed(memory: Path) -> None:
    wanted = workload(memory / "files")
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, contents(jwt_end=NOW + MINUTE)), now=NOW)
    second = contents()
    delivered.show(holding(wanted, second), now=NOW)
    assert lying(memory / "files") == second


def test_of_a_workload_that_is_gone_or_moved_nothing_is_left(memory: Path) -> None:
    wanted, files = workload(memory / "files"), contents()
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, files), now=NOW)
    moved = workload(memory / "moved")
    delivered.reconfigure([moved])
    delivered.show(holding(moved, files), now=NOW)
    assert (lying(memory / "files"), lying(memory / "moved")) == ({}, files)
    delivered.reconfigure([])
    delivered.show(NOTHING, now=NOW)
    assert lying(memory / "moved") == {}


def test_one_workloads_trouble_is_not_the_others(memory: Path, tmp_path: Path) -> None:
    good, bad = workload(memory / "files", agent="builder"), workload(tmp_path / "files")
    delivered = Delivered(bad, good)
    files: Mapping[str, bytes] = contents("builder")
    picture = holding(good, files)
    delivered.show(picture, now=NOW)
    assert lying(memory / "files") == files
    assert delivered.troubles.keys() == {"telemetry"}


# --- what cannot be read --------------------------------------------------------------------------

UNREADABLE: dict[str, Callable[[bytes], tuple[str, bytes]]] = {
    "an end that is infinite": lambda _: ("telemetry.jwt", spelled('{"exp":Infinity}')),
    "an end that is no number": lambda _: ("telemetry.jwt", spelled('{"exp":NaN}')),
    "an end of 400 digits": lambda _: ("telemetry.jwt", spelled('{"exp":1' + "0" * 400 + "}")),
    "an end before all time": lambda _: ("telemetry.jwt", spelled('{"exp":-1}')),
    "an end that is true": lambda _: ("telemetry.jwt", spelled('{"exp":true}')),
    "claims nested without end": lambda _: ("telemetry.jwt", spelled("[" * 200_000)),
    "a client attestation that is bytes": lambda _: ("telemetry.attestation.jwt", b"\xff.\xff.\xff"),
    "a certificate of another version": lambda pem: ("telemetry.svid.pem", another_version(pem)),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_ag_3_what_cannot_be_read_has_ended_and_ends_nothing_else(memory: Path, what: str) -> None:
    """The file's owner wrote it, or the service did; an agent before this one had put it there, or this one
    is to."""
    wanted, other = workload(memory / "files"), workload(memory / "other", agent="builder")
    files = contents(jwt_end=NOW + 5 * MINUTE)
    Delivered(wanted).show(holding(wanted, files), now=NOW)
    name, bad = UNREADABLE[what](files["telemetry.svid.pem"])
    (memory / "files" / name).write_bytes(bad)
    (memory / "files" / name).chmod(0o600)
    restarted = Delivered(wanted, other)
    restarted.show(holding(other, contents("builder")), now=NOW)
    assert name not in lying(memory / "files")
    assert lying(memory / "files").keys() >= {"result.jwt", "bundle.pem"}
    assert "builder.key.pem" in lying(memory / "other")
    restarted.show(holding(wanted, files | {name: bad}), now=NOW)
    assert (name not in lying(memory / "files"), restarted.troubles) == (True, {})
    restarted.show(holding(wanted, files), now=NOW)
    assert lying(memory / "files") == files


class Unforeseen(dict[str, bytes]):
    """Contents that cannot even be listed."""

    def items(self) -> NoReturn:
        raise RuntimeError("nobody thought of this\n")


def test_what_nobody_thought_of_is_one_workloads_trouble_and_told(memory: Path) -> None:
    bad, good = workload(memory / "files"), workload(memory / "other", agent="builder")
    delivered = Delivered(bad, good)
    held = {**holding(bad, Unforeseen()).held, **holding(good, contents("builder")).held}
    for _ in range(2):
        delivered.show(Holdings(held, {}, None), now=NOW)
    assert delivered.troubles == {
        "telemetry": f"{memory}/files: RuntimeError: nobody thought of this?",
    }
    assert delivered.said == [f"the files of telemetry: {delivered.troubles['telemetry']}"]
    assert "builder.key.pem" in lying(memory / "other")


# --- what fails -----------------------------------------------------------------------------------


def test_what_cannot_be_delivered_is_tried_again_in_half_a_minute_and_not_sooner(memory: Path) -> None:
    wanted, files = workload(memory / "files"), contents(end=NOW + MINUTE)
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, files), now=NOW)
    assert delivered.due() == NOW + MINUTE
    (memory / "files").chmod(0o777)
    for now in (NOW + MINUTE, NOW + 5 * MINUTE):
        delivered.show(holding(wanted, files), now=now)
        assert delivered.troubles.keys() == {"telemetry"}
        assert delivered.due() == now + AGAIN_MS
    (memory / "files").chmod(0o700)
    delivered.show(holding(wanted, files), now=NOW + 6 * MINUTE)
    assert (delivered.troubles, delivered.due(), lying(memory / "files")) == ({}, None, {})


@pytest.mark.parametrize("after", ["gone", "moved"])
def test_ag_3_of_a_workload_that_is_gone_nothing_is_left_though_its_directory_was_in_the_way(
    memory: Path, after: str
) -> None:
    wanted, files = workload(memory / "files"), contents()
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, files), now=NOW)
    (memory / "files").chmod(0o777)
    moved = workload(memory / "moved")
    delivered.reconfigure([moved] if after == "moved" else [])
    picture = holding(moved, files) if after == "moved" else NOTHING
    for minute in range(3):
        delivered.show(picture, now=NOW + minute * MINUTE)
        assert "to be removed" in delivered.troubles["telemetry"]
        assert delivered.due() == NOW + minute * MINUTE + AGAIN_MS
    assert len(delivered.said) == 1
    (memory / "files").chmod(0o700)
    delivered.show(picture, now=NOW + 3 * MINUTE)
    assert (delivered.troubles, lying(memory / "files")) == ({}, {})
    assert delivered.due() == (NOW + 10 * MINUTE if after == "moved" else None)


def test_a_workload_that_comes_back_to_its_directory_loses_nothing_there(memory: Path) -> None:
    wanted, files = workload(memory / "files"), contents()
    delivered = Delivered(wanted)
    delivered.show(holding(wanted, files), now=NOW)
    (memory / "files").chmod(0o777)
    delivered.reconfigure([])
    delivered.show(NOTHING, now=NOW)
    (memory / "files").chmod(0o700)
    delivered.reconfigure([wanted])
    before = (memory / "files" / "telemetry.svid.pem").stat().st_ino
    delivered.show(holding(wanted, files), now=NOW)
    assert (delivered.troubles, lying(memory / "files")) == ({}, files)
    assert (memory / "files" / "telemetry.svid.pem").stat().st_ino == before


def test_ag_3_what_an_earlier_agent_left_is_removed_where_it_may_not_be_had(memory: Path) -> None:
    banned, other = workload(memory / "files"), workload(memory / "other", agent="builder")
    files = contents("builder")
    held = {**holding(banned, contents()).held, **holding(other, files).held}
    Delivered(banned, other).show(Holdings(held, {}, None), now=NOW)
    restarted = Delivered(banned, other)
    restarted.forget(["telemetry"])
    restarted.show(NOTHING, now=NOW)
    assert (lying(memory / "files"), lying(memory / "other")) == ({}, files)
