"""Does what we commit stay, whatever other programs do with the same file?"""

import subprocess
import sys
import threading
from pathlib import Path

from attestd.store import meta
from attestd.store.store import Store

_NEIGHBOUR = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
print(*database.execute(sys.argv[2]).fetchone())
database.close()
"""


def _neighbour(path: Path, sql: str) -> str:
    """Another program opens the database, reads, and closes it again."""
    command = [sys.executable, "-c", _NEIGHBOUR, str(path), sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_commit_survives_a_neighbour_that_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "attestd.db"
    store = Store.open(f"sqlite:{path}")
    store.migrate()
    # Several readers at once, so that connections are opened while others hold their locks.
    together = threading.Barrier(4)
    readers = [threading.Thread(target=lambda: store.read(lambda tx: together.wait(5))) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    for number in range(3):
        store.write(lambda tx, number=number: meta.put(tx, "number", str(number)))
        assert _neighbour(path, "SELECT value FROM meta WHERE key = 'number'") == str(number)
    store.close()
