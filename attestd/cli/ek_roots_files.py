"""How does a file of trusted roots come, change and go, so that nobody ever reads half of one?"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attestd.cli.failures import Failure
from tpm.verify.certificate import Certificate


def file_in(directory: Path, which: str) -> Path | None:
    """The directory's own file that `which` names, or None; a path counts only where it leads into it."""
    named = Path(which)
    path = directory / named.name
    inside = named.name == which or named.parent.absolute() == directory.absolute()
    if not inside or named.name in ("", "..") or not os.path.lexists(path):
        return None
    if path.is_dir() and not path.is_symlink():
        raise Failure(f"{path} is a directory, which this command does not remove; move it away")
    return path


def check_free(path: Path) -> None:
    """Failure when something has this name already, be it a link to nowhere."""
    if os.path.lexists(path):
        raise Failure(f"{path} is in the way and is something else; rename it")


def write_certificates(path: Path, certificates: Sequence[Certificate], *, note: str = "") -> None:
    """PEM, mode 0644: the old content or the new, never half. A link is replaced, not followed.

    `note` is whole lines of comment in front.
    """
    pem = (note + "".join(ssl.DER_cert_to_PEM_cert(one.raw) for one in certificates)).encode()
    # A name that begins with a dot: the service does not read it.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with open(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(path.parent)


def remove_file(path: Path) -> None:
    """A link goes, not what it leads to."""
    path.unlink()
    _sync(path.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
