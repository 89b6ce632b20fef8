"""Which of a host's addresses answers, and how long may that take?

A name often has several, and one kind of them leads nowhere where IPv6 is half set up: that must cost each
request a moment, and not the life of a nonce.
"""

import socket
import time

CONNECT_SECONDS = 5.0
"""For one address while there are others."""


def connect(host: str, port: int, *, end: float, longest: float) -> socket.socket:
    """A connection to the first address that answers before `end` (on the monotonic clock). The last one may
    take `longest` seconds, each before it a moment. OSError, that of the last one that was tried."""
    failure: OSError | None = None
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        left, others = end - time.monotonic(), len(addresses) - place - 1
        if left <= 0:
            break
        seconds = min(CONNECT_SECONDS, left / (others + 1)) if others else min(longest, left)
        try:
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(seconds)
                made.connect(address)
            except BaseException:
                made.close()
                raise
        except OSError as error:
            failure = error
        else:
            return made
    raise failure or TimeoutError("no time was left to connect")
