"""Which makers of TPMs do we trust today, and do they vouch for this EK?

The trust store is a directory of certificates, each a root by being there. It is read at the start and again
when a file comes, goes or changes, so that a withdrawn root stops the next issue. When it cannot be read any
more, nobody is trusted.
"""

import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tpm.errors import EvidenceError, PolicyError
from tpm.structures.public import PublicArea
from tpm.verify.certificate import Certificate
from tpm.verify.certificate_pem import read_certificate_file
from tpm.verify.endorsement import VerifiedEndorsement, verify_endorsement
from tpm.verify.endorsement_path import TrustAnchors

LOOK_AGAIN_MS = 1000
MAX_FILES = 4096
_CACHED = 1024

Snapshot = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Root:
    """One certificate of the trust store and the file that has it; a file may have several."""

    certificate: Certificate
    path: Path


class TrustStore:
    """The roots in `directory`. Safe to share among threads; times are milliseconds since the epoch."""

    def __init__(self, directory: Path) -> None:
        """Reads the store: PolicyError names the file that is no certificate, which stops the start."""
        self.directory = directory
        self._lock = threading.Lock()
        self._looked = 0
        self._snapshot = _take_snapshot(directory)
        self._anchors: TrustAnchors | PolicyError = _read_anchors(directory)
        self._known: OrderedDict[bytes, VerifiedEndorsement] = OrderedDict()

    def anchors(self, now_ms: int) -> TrustAnchors:
        """What is trusted now, at most a second old. PolicyError while it cannot be read: nobody is, then."""
        with self._lock:
            if not 0 <= now_ms - self._looked < LOOK_AGAIN_MS:
                self._looked = now_ms
                self._look_again()
            if isinstance(self._anchors, PolicyError):
                raise PolicyError(self._anchors.reason, self._anchors.detail)
            return self._anchors

    def verify(
        self, certificate: bytes, chain: Sequence[bytes], *, ek: PublicArea | None, now_ms: int
    ) -> VerifiedEndorsement:
        """`verify_endorsement` under today's roots; the same evidence under the same roots is looked up."""
        anchors = self.anchors(now_ms)
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        key = _digest(anchors.fingerprint, ek.raw if ek is not None else b"", certificate, *chain)
        with self._lock:
            known = self._known.get(key)
        # The same path still holds as long as each of its certificates is valid.
        if known is not None and known.not_before <= now <= known.not_after:
            return known
        verified = verify_endorsement(certificate, chain, roots=anchors, ek=ek, now=now)
        self._remember(key, verified)
        return verified

    def _look_again(self) -> None:
        try:
            snapshot = _take_snapshot(self.directory)
            if snapshot != self._snapshot or isinstance(self._anchors, PolicyError):
                self._anchors = _read_anchors(self.directory)
                self._snapshot = snapshot
        except PolicyError as fault:
            self._anchors = fault

    def _remember(self, key: bytes, verified: VerifiedEndorsement) -> None:
        with self._lock:
            self._known[key] = verified
            self._known.move_to_end(key)
            while len(self._known) > _CACHED:
                self._known.popitem(last=False)


def read_roots(directory: Path) -> list[Root]:
    """Every certificate of the store, by file name. PolicyError names what must not be there.

    Names that begin with a dot are left out. Anything else has to be a file of certificates, PEM or DER: a
    directory or another file would be a root that somebody believes to be trusted.
    """
    roots = []
    for path in _files(directory):
        _mark(path)
        try:
            roots += [Root(certificate, path) for certificate in read_certificates(path)]
        except PolicyError as error:
            detail = f"{error.detail} Take it out of the trust store."
            raise PolicyError("ek_root_unreadable", detail) from None
    return roots


def read_certificates(path: Path) -> list[Certificate]:
    """The certificates of a PEM or DER file; PolicyError when it has anything else, or none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PolicyError(
            "file_unreadable", f"{path}: {error.strerror or error}; name a readable file."
        ) from None
    try:
        return read_certificate_file(raw)
    except EvidenceError as error:
        raise PolicyError("ek_root_unreadable", f"{path}: {error.detail}") from None


def _read_anchors(directory: Path) -> TrustAnchors:
    roots = read_roots(directory)
    for root in roots:
        if not root.certificate.is_ca:
            detail = f"{root.path} has no certification authority but {root.certificate.title}. Take it out."
            raise PolicyError("ek_root_not_ca", detail)
    return TrustAnchors.of(root.certificate for root in roots)


def _files(directory: Path) -> list[Path]:
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError as error:
        detail = f"{directory}: {error.strerror or error}; it is the trust store, [admission] ek_roots."
        raise PolicyError("ek_roots_missing", detail) from None
    if len(names) > MAX_FILES:
        raise PolicyError(
            "ek_root_unreadable", f"{directory} has {len(names)} files, more than there are makers."
        )
    return [directory / name for name in names]


def _take_snapshot(directory: Path) -> Snapshot:
    """What tells whether a file was exchanged. Links are followed, as they are when the file is read."""
    return tuple(_mark(path) for path in _files(directory))


def _mark(path: Path) -> tuple[str, int, int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise PolicyError("ek_root_unreadable", f"{path}: {error.strerror or error}. Take it out.") from None
    if not stat.S_ISREG(found.st_mode):
        raise PolicyError(
            "ek_root_unreadable", f"{path} is not a file of certificates. Take it out of the trust store."
        )
    return path.name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(_framed(parts))).digest()


def _framed(parts: Sequence[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield len(part).to_bytes(8, "big")
        yield part
