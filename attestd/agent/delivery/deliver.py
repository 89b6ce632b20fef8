"""Which files does an attestation leave for the agents of this machine?

All of them or none: everything is checked before the first one is written. Each is 0600 and replaces its
predecessor whole.
"""

import json
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.agent.attest import Part, Received
from attestd.agent.errors import Unreachable, plain
from attestd.agent.formats import SUFFIXES
from attestd.agent.state import replace_file

_OF_A_KEY = ("svid.pem", "wit.jwt", "attestation.jwt", "key.tss", "key.pem")

TOKEN_LIMIT = 64 * 1024
_COMPACT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")


def deliver(received: Received, bundle: Mapping[str, Any], *, out: Path) -> list[Path]:
    """Write result, bundle, credentials, keys and sealed keys into `out`; returns the paths. Unreachable for
    a bad answer."""
    try:
        files = {"result.jwt": token_line(received.answer["result"]), "bundle.pem": pem(authorities(bundle))}
        for part in received.parts:
            files |= files_of(part)
    except Exception as error:  # The parsers raise more than they document, and the sender chooses what.
        why = plain(error)
        raise Unreachable(
            f"the server's answer cannot be read ({why}); is it attestd, in this version?"
        ) from None
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        replace_file(out / name, content)
    for part in received.parts:
        if part.key is not None:
            # What was bound to the key before this one works with nothing that is left.
            for name in {f"{part.wanted.agent}.{suffix}" for suffix in _OF_A_KEY} - files.keys():
                (out / name).unlink(missing_ok=True)
    return [out / name for name in files]


def files_of(part: Part) -> dict[str, bytes]:
    """The contents of one agent's files by their names; LookupError, TypeError or ValueError for a bad
    answer."""
    agent, files = part.wanted.agent, {}
    for credential in part.credentials:
        name = f"{agent}.{SUFFIXES[credential['format']]}"
        chained = credential["format"] == "x509-svid"
        files[name] = line(credential["certificate_chain"]) if chained else token_line(credential["token"])
    if part.key is not None:
        files[f"{agent}.{part.key.suffix}"] = part.key.file
    for sealed in part.sealed_keys:
        files[seal_name(sealed["name"])] = json.dumps(sealed, indent=1).encode() + b"\n"
    return files


def seal_name(seal: str) -> str:
    """The file of a sealed key."""
    return f"{seal}.seal.json"


def authorities(bundle: Mapping[str, Any]) -> tuple[x509.Certificate, ...]:
    """A SPIFFE bundle's X.509 authorities; ValueError if there is none or one is no certificate."""
    found = tuple(
        x509.load_der_x509_certificate(b64decode(key["x5c"][0], validate=True))
        for key in bundle["keys"]
        if key.get("use") == "x509-svid"
    )
    if not found:
        raise ValueError("a bundle without X.509 authorities")
    return found


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def compact(token: object) -> str:
    """A token in the compact serialisation (RFC 7515, section 7.1), so that it fits a header and a line;
    ValueError for anything else."""
    if not isinstance(token, str) or len(token) > TOKEN_LIMIT or _COMPACT.fullmatch(token) is None:
        raise ValueError("a credential that is no token")
    return token


def token_line(token: object) -> bytes:
    """A token as a file has it; ValueError as for `compact`."""
    return compact(token).encode() + b"\n"


def line(text: object) -> bytes:
    """Certificates as a file has them; ValueError for what is no lines of ASCII."""
    if not isinstance(text, str) or not text.isascii() or not text.replace("\n", "").isprintable():
        raise ValueError("a credential that is no text")
    return text.rstrip("\n").encode() + b"\n"
