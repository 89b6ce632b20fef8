"""Does a forked process begin with connections of its own?"""

import os

from attestd.store.process import PerProcess


class Connection:
    """Something that a process has open."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_each_process_makes_its_own_once_and_again_after_closing() -> None:
    here = PerProcess(Connection, Connection.close)
    first = here.get()
    assert here.get() is first
    here.close()
    here.close()
    assert first.closed
    assert here.get() is not first
    assert not here.get().closed


def test_what_the_parent_had_open_is_closed_before_a_child_can_inherit_it() -> None:
    here = PerProcess(Connection, Connection.close)
    parents = here.get()
    pid = os.fork()
    if pid == 0:
        own = here.get()
        os._exit(0 if parents.closed and own is not parents and not own.closed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert here.get() is not parents
    assert not here.get().closed
