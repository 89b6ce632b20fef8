"""How does a client come to be connected where many connect at once, as after a start of the agent?

A Unix socket that finds the queue full is not connecting: it has to ask again (connect(2), EAGAIN).
"""

import asyncio
import socket
import time

from grpclib.client import Channel
from grpclib.protocol import H2Protocol

TURN_SECONDS = 1.0
"""For a place in the queue."""
_PAUSE_SECONDS = 0.02


class PatientChannel(Channel):
    """grpclib's, to a Unix socket."""

    async def _create_connection(self) -> H2Protocol:
        sock = await _connected(str(self._path))
        try:
            _, protocol = await self._loop.create_unix_connection(self._protocol_factory, sock=sock)
        except BaseException:
            sock.close()
            raise
        return protocol


async def _connected(path: str) -> socket.socket:
    """OSError where there is no place in the queue for `TURN_SECONDS`, or nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    until = time.monotonic() + TURN_SECONDS
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)
    except BaseException:
        sock.close()
        raise
