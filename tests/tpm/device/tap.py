"""What goes over the wires between a program and its TPM? A listener in between, as on a board's bus."""

import socket
import tempfile
import threading
from pathlib import Path
from typing import Self


class Tap:
    """Stands in front of a software TPM at a TCTI of its own and keeps all that passes."""

    def __init__(self, tcti: str) -> None:
        self._behind = Path(tcti.removeprefix("swtpm:path="))
        self._directory = tempfile.TemporaryDirectory(prefix="tap-")
        self._path = Path(self._directory.name) / "tpm"
        self.tcti = f"swtpm:path={self._path}"
        self.heard = bytearray()
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> Self:
        for suffix in ("", ".ctrl"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{self._path}{suffix}")
            listener.listen()
            self._listeners.append(listener)
            threading.Thread(
                target=self._serve, args=(listener, f"{self._behind}{suffix}"), daemon=True
            ).start()
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        self._directory.cleanup()

    def _serve(self, listener: socket.socket, behind: str) -> None:
        while True:
            try:
                front, _ = listener.accept()
            except OSError:
                return
            back = socket.socket(socket.AF_UNIX)
            back.connect(behind)
            for source, sink in ((front, back), (back, front)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(8192):
                self.heard += piece
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
