"""Calls the Workload API as another user: `UID GID GROUPS SOCKET`, and prints what came of it.

All is loaded before the rights are given away, in the order groups, group, user, as that user may not be able
to read where our code lies.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.workload.client import WorkloadClient


def become(uid: int, gid: int, groups: list[int]) -> None:
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


async def ask(path: Path) -> Any:
    async with WorkloadClient(path, timeout=20) as client:
        try:
            return {"given": (await client.x509_svid()).spiffe_id}
        except Refusal as refusal:
            return {"refused": str(refusal)}
        except Unreachable as error:
            return {"unreachable": str(error)}


def main(uid: str, gid: str, groups: str, path: str) -> None:
    if os.geteuid() == 0:
        become(int(uid), int(gid), [int(one) for one in groups.split(",") if one])
    print(json.dumps(asyncio.run(ask(Path(path)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
