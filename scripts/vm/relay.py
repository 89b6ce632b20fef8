"""How does one connection of the machine reach the service? QEMU starts this for each, with the connection as
standard input and output."""

import os
import socket
import sys
import threading


def relay(port: int) -> None:
    """Copy both ways until both sides have ended."""
    with socket.create_connection(("127.0.0.1", port)) as service:
        back = threading.Thread(target=_copy, args=(service.fileno(), 1), daemon=True)
        back.start()
        _copy(0, service.fileno())
        service.shutdown(socket.SHUT_WR)
        back.join()


def _copy(source: int, target: int) -> None:
    try:
        while piece := os.read(source, 65536):
            while piece:
                piece = piece[os.write(target, piece) :]
    except OSError:
        return


if __name__ == "__main__":
    relay(int(sys.argv[1]))
