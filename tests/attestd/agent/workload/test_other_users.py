"""AG-2: another user of the machine gets nothing that is not its own.

As root these are real processes of other users. Whoever runs the tests without rights is the other user
itself: the rule then is for somebody else.
"""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, UnaryStreamMethod
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol

from attestd.agent.workload import messages
from attestd.agent.workload.listening import make
from tests.attestd.agent.workload.domain import workload
from tests.attestd.agent.workload.serving import Serving, folder, serving

ROOT = Path(__file__).parents[4]
ALICE, MALLORY, METERS = 64_001, 64_002, 64_100
AM_ROOT = os.geteuid() == 0
ME = str(os.getuid())


def asked_by(uid: int, there: Serving, *, gid: int | None = None, groups: tuple[int, ...] = ()) -> Any:
    """What a process of this user gets."""
    command = [sys.executable, "-m", "tests.attestd.agent.workload.as_user"]
    arguments = [str(uid), str(uid if gid is None else gid), ",".join(map(str, groups)), str(there.path)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rule_for(uid: int) -> str:
    """As root users are who they are; else the one who runs the tests stands in for Alice."""
    return str(uid) if AM_ROOT or uid != ALICE else ME


def test_ag_2_a_user_gets_its_own_and_another_nothing() -> None:
    with serving(workload("telemetry", user=[rule_for(ALICE)])) as there:
        assert asked_by(ALICE, there) == {"given": there.shelf.domain.spiffe_id("telemetry")}
        assert there.endpoint.refused == 0
    with serving(workload("telemetry", user=[rule_for(MALLORY)])) as there:
        told = asked_by(ALICE, there)["refused"]
        assert "no workload of this machine" in told
        assert f"of user {ALICE if AM_ROOT else ME}" in told
        assert there.endpoint.refused == 1


def test_ag_2_two_users_on_one_socket_get_each_its_own() -> None:
    theirs = [workload("alice", user=[rule_for(ALICE)]), workload("mallory", user=[str(MALLORY)])]
    with serving(*theirs) as there:
        domain = there.shelf.domain
        assert asked_by(ALICE, there) == {"given": domain.spiffe_id("alice")}
        expected = {"given": domain.spiffe_id("mallory" if AM_ROOT else "alice")}
        assert asked_by(MALLORY, there) == expected


def test_ag_2_a_group_lets_in_its_members_primary_and_supplementary() -> None:
    group = METERS if AM_ROOT else os.getgid()
    with serving(workload("telemetry", group=[str(group)])) as there:
        given = {"given": there.shelf.domain.spiffe_id("telemetry")}
        assert asked_by(ALICE, there, gid=group) == given
        assert asked_by(ALICE, there, groups=(7, group, 9)) == given
    with serving(workload("telemetry", group=[str(METERS)])) as there:
        assert "refused" in asked_by(ALICE, there, groups=(7, 9))


def test_ag_2_root_without_a_rule_gets_nothing() -> None:
    with serving(workload("telemetry", user=[str(MALLORY)])) as there:
        assert "refused" in asked_by(0, there)


def test_ag_2_a_program_is_told_by_its_file_where_it_may_be_looked_at() -> None:
    python = os.path.realpath(sys.executable)
    with serving(workload("telemetry", path=[python])) as there:
        assert asked_by(ALICE, there) == {"given": there.shelf.domain.spiffe_id("telemetry")}
    with serving(workload("telemetry", path=["/usr/bin/true"])) as there:
        assert "refused" in asked_by(ALICE, there)


def test_ag_2_the_socket_is_open_to_all_and_its_directory_writable_by_none() -> None:
    with folder() as directory:
        listening = make(directory / "run" / "workload.sock")
        try:
            socket_mode, directory_mode = (
                stat.S_IMODE(os.lstat(each).st_mode) for each in (listening.path, listening.path.parent)
            )
            assert (socket_mode, directory_mode) == (0o666, 0o755)
        finally:
            listening.close()


MAKER = """
import os, socket, sys
uid = int(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
made = socket.socket(socket.AF_UNIX)
made.connect(sys.argv[2])
with socket.socket(fileno=int(sys.argv[3])) as to:
    socket.send_fds(to, [b"x"], [made.fileno()])
sys.stdin.read()
"""


@contextmanager
def handed_on(there: Serving, uid: int, *, maker_stays: bool) -> Iterator[socket.socket]:
    """A connection that a process of this user made and gave to us."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", MAKER, str(uid), str(there.path), str(theirs.fileno())]
        maker = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
    try:
        with socket.socket(fileno=descriptor) as made:
            if not maker_stays:
                maker.communicate()
            yield made
    finally:
        maker.communicate()


class Over(Channel):
    """A client on a connection that is there already."""

    def __init__(self, made: socket.socket) -> None:
        super().__init__()
        self._made = made

    async def _create_connection(self) -> H2Protocol:
        self._made.setblocking(False)
        _, protocol = await self._loop.create_connection(self._protocol_factory, sock=self._made.dup())
        return protocol


async def asked_over(made: socket.socket) -> str:
    call = messages.FETCH_X509_SVID
    async with Over(made) as channel:
        method = UnaryStreamMethod(channel, call.path, call.request, call.response)
        try:
            async with method.open(timeout=20, metadata=[messages.SECURITY_HEADER]) as stream:
                await stream.send_message(call.request(), end=True)
                told: Any = await stream.recv_message()
                await stream.cancel()
        except GRPCError as error:
            return str(error.message)
    return str(told.svids[0].spiffe_id)


@pytest.mark.parametrize("maker_stays", [True, False])
def test_ag_2_a_connection_is_whose_process_made_it_whoever_speaks_on_it(maker_stays: bool) -> None:
    """Ours is Alice's rule, but what Mallory connected is Mallory's."""
    with serving(workload("telemetry", user=[ME])) as there:
        with handed_on(there, MALLORY, maker_stays=maker_stays) as made:
            told = asyncio.run(asked_over(made))
        if AM_ROOT:
            assert f"of user {MALLORY}" in told
        else:
            assert told == there.shelf.domain.spiffe_id("telemetry")
