"""Where do tests get a real PostgreSQL from? A throw-away cluster, one a session, on a socket of its own.

from tests.postgres import postgres_cluster      in a conftest; fixtures take `postgres_cluster`
url = postgres_cluster.fresh()                   an empty schema of its own for one test
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

STARTS_WITHIN = 30.0
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server. `pid` is its postmaster."""

    folder: Path
    pid: int

    @property
    def url(self) -> str:
        return f"postgresql://attestd@/postgres?host={quote(str(self.folder), safe='')}"

    def fresh(self) -> str:
        """The URL of a schema with nothing in it."""
        schema = f"test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return f"{self.url}&options={quote(f'-csearch_path={schema}')}"


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    # Short, because the path of a socket must fit into 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    # PostgreSQL refuses to run as root; the package has made a user for it.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        process = _start(folder, user)
        try:
            cluster = Cluster(folder, process.pid)
            _wait(cluster, process)
            yield cluster
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown
            process.wait(timeout=STARTS_WITHIN)
    finally:
        shutil.rmtree(folder)


def _start(folder: Path, user: pwd.struct_passwd) -> subprocess.Popen[bytes]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    data = folder / "data"
    run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "attestd", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        **run_as,
    )
    # What the tests write need not survive a power cut; isolation and locking are the real ones.
    return subprocess.Popen(
        [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
        cwd=folder,
        **run_as,
    )


def _wait(cluster: Cluster, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            psycopg.connect(cluster.url).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((cluster.folder / "log").read_text()) from None
            time.sleep(0.05)
