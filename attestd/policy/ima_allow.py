"""Which files may a machine have run: what does this list of digests say?

One digest and one path a line, `sha256:<hex>  /path`, or as `sha256sum` prints it, `<hex>  path` (also for a
whole Debian system: over what its packages hold). Lines that begin with `#` are comments. A path with a line
break, a carriage return or a backslash is escaped as coreutils does it, with a backslash before the line. MD5
and SHA-1, and so a package's `md5sums`, are refused: two files can be made to have one such digest.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tpm.errors import PolicyError
from tpm.ima.entry import BOOT_AGGREGATE, Entry, FileDigest

MAX_BYTES = 128 * 1024 * 1024
MAX_LINES = 1_000_000

STRONG: Mapping[str, int] = {"sha256": 32, "sha384": 48, "sha512": 64}
"""The digests that count, with their bytes."""

_LINE = re.compile(rb"(\\?)(?:((?:verity:)?[a-z0-9-]{1,16}):)?([0-9a-fA-F]+)(?: [ *]|\t)(.+)", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"\\": b"\\"}
_BY_LENGTH = {2 * size: name.encode() for name, size in STRONG.items()}


@dataclass(frozen=True, slots=True)
class AllowList:
    """Digests as "sha256:<hex>" and "verity:sha256:<hex>", and which of them each path may have. Paths are as
    the kernel measures them, with "_" for each blank.
    """

    digests: frozenset[str]
    by_path: Mapping[bytes, tuple[str, ...]]


def load_allow_lists(files: Mapping[str, bytes]) -> AllowList:
    """All these files together, by name. PolicyError names file and line, "weak_digest" or
    "allow_list_wrong".
    """
    by_path: dict[bytes, list[str]] = defaultdict(list)
    digests: set[str] = set()
    count = 0
    for name, source in files.items():
        before = count
        if len(source) > MAX_BYTES:
            raise PolicyError("too_large", f"{name} has {len(source)} bytes; write at most {MAX_BYTES}")
        for number, line in enumerate(source.split(b"\n"), 1):
            if not line or line.startswith(b"#"):
                continue
            count += 1
            if count > MAX_LINES:
                raise PolicyError("too_large", f"{name}: the lists have more than {MAX_LINES} lines together")
            digest, path = _read_line(line, f"{name}, line {number}")
            digests.add(digest)
            if digest not in by_path[path]:
                by_path[path].append(digest)
        if count == before:
            raise PolicyError("list_empty", f"{name} names no file; capture a machine or leave it out")
    return AllowList(frozenset(digests), {path: tuple(listed) for path, listed in by_path.items()})


def write_allow_list(allowed: Iterable[tuple[FileDigest, bytes]], *, comment: str) -> bytes:
    """A file that `load_allow_lists` reads, sorted by path, each line once."""
    lines = {(path, str(digest).encode()) for digest, path in allowed}
    written = [b"# " + comment.encode("ascii", "replace").replace(b"\n", b" ")]
    for path, digest in sorted(lines):
        escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        written.append((b"\\" if escaped != path else b"") + digest + b"  " + escaped)
    return b"\n".join(written) + b"\n"


@dataclass(frozen=True, slots=True)
class Captured:
    """What a captured machine would be allowed: the file, how many lines it has, and the paths that cannot be
    allowed by a digest: violations, and digests that are too weak.
    """

    source: bytes
    lines: int
    left_out: tuple[bytes, ...]


def capture(entries: Iterable[Entry], *, comment: str) -> Captured:
    """An allow list of all that these proven entries measured. Who reads it decides whether the machine was
    good.
    """
    kept: set[tuple[FileDigest, bytes]] = set()
    left_out: dict[bytes, None] = {}
    for entry in entries:
        digest = entry.file_digest
        if entry.path == BOOT_AGGREGATE:
            continue
        if entry.violation or digest is None or not is_strong(digest) or not entry.path:
            left_out[entry.path] = None
        else:
            kept.add((digest, entry.path))
    return Captured(write_allow_list(kept, comment=comment), len(kept), tuple(left_out))


def is_strong(digest: FileDigest) -> bool:
    return STRONG.get(digest.algorithm) == len(digest.digest)


def _read_line(line: bytes, where: str) -> tuple[str, bytes]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise PolicyError(
            "allow_list_wrong",
            f'{where}: expected "sha256:<hex>  /path", found {line[:60]!a}; correct it',
        )
    escaped, algorithm, digits, path = match.groups()
    algorithm = algorithm or _BY_LENGTH.get(len(digits), b"a weak digest")
    name = algorithm.decode().removeprefix("verity:")
    if name not in STRONG:
        raise PolicyError(
            "weak_digest",
            f"{where}: {name} ({len(digits)} hex digits) can be forged; list sha256, as sha256sum makes it",
        )
    if len(digits) != 2 * STRONG[name]:
        raise PolicyError(
            "allow_list_wrong",
            f"{where}: {name} has {2 * STRONG[name]} hex digits, found {len(digits)}; correct it",
        )
    return f"{algorithm.decode()}:{digits.decode().lower()}", _path(path, bool(escaped), where)


def _path(written: bytes, escaped: bool, where: str) -> bytes:
    """As the kernel measures it. `md5sums` and their like write paths without the first slash."""

    def plain(match: re.Match[bytes]) -> bytes:
        if match[1] not in _ESCAPES:
            raise PolicyError(
                "allow_list_wrong", f"{where}: the path has an unknown escape; write \\n, \\r or \\\\"
            )
        return _ESCAPES[match[1]]

    path = _ESCAPED.sub(plain, written) if escaped else written
    return path.removeprefix(b"./").replace(b" ", b"_")
