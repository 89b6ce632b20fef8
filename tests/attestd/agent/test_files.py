"""A file of ours is whole and its owner's alone, whatever happens and whatever lies in its place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attestd.agent.state import replace_file

OLD, NEW = b"old" * 100_000, b"new" * 100_000
_WRITER = """
import sys
from pathlib import Path
from attestd.agent.state import replace_file
print(flush=True)
while True:
    for word in (b"old", b"new"):
        replace_file(Path(sys.argv[1]), word * 100_000)
"""


def drafts(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_ag_3_a_file_is_its_owners_alone_whatever_the_mask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        replace_file(tmp_path / "file", NEW)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600 & ~mask
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0


def test_ag_3_an_older_files_wide_mode_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "file").chmod(0o666)
    replace_file(tmp_path / "file", NEW)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_ag_3_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(OLD)
    (tmp_path / "file").symlink_to(tmp_path / "precious")
    replace_file(tmp_path / "file", NEW)
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == NEW
    assert (tmp_path / "precious").read_bytes() == OLD


def test_ag_3_another_name_of_the_old_file_keeps_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    os.link(tmp_path / "file", tmp_path / "other name")
    replace_file(tmp_path / "file", NEW)
    assert (tmp_path / "other name").read_bytes() == OLD


def test_ag_3_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "file", NEW)
    assert drafts(tmp_path) == []


def test_ag_3_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for moment in (0.005, 0.011, 0.017, 0.023):
        command = [sys.executable, "-c", _WRITER, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while not file.exists():
                time.sleep(0.001)
            time.sleep(moment)
            writer.send_signal(signal.SIGKILL)
        assert file.read_bytes() in (OLD, NEW)
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    replace_file(file, OLD)
    command = [sys.executable, "-c", _WRITER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert {file.read_bytes() for _ in range(300)} <= {OLD, NEW}
        writer.kill()
