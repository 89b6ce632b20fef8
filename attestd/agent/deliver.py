"""Which files does an attestation leave for the agents of this machine?

All of them or none: everything is checked before the first one is written. Each is 0600 and replaces its
predecessor whole.
"""

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.agent.attest import Received
from attestd.agent.state import replace_file
from attestd.agent.transport import Unreachable

_SUFFIXES = {"x509-svid": "svid.pem", "wit-svid": "wit.jwt", "jwt-svid": "jwt"}
# Names in file names are the protocol's, whatever the server sends.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def deliver(received: Received, bundle: Mapping[str, Any], *, agent: str | None, out: Path) -> list[Path]:
    """Write result, bundle, credentials, key and sealed keys into `out`; returns the paths. Unreachable for a
    bad answer."""
    try:
        files = dict(_files(received, bundle, agent))
    except (KeyError, TypeError, ValueError) as error:
        raise Unreachable(
            f"the server's answer cannot be read ({error}); is it attestd, in this version?"
        ) from None
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        replace_file(out / name, content)
    return [out / name for name in files]


def _files(received: Received, bundle: Mapping[str, Any], agent: str | None) -> list[tuple[str, bytes]]:
    answer = received.answer
    files = [("result.jwt", _line(answer["result"])), ("bundle.pem", authorities(bundle))]
    for credential in answer["credentials"]:
        if credential["agent"] != agent:
            raise ValueError("a credential for another agent")
        member = "certificate_chain" if credential["format"] == "x509-svid" else "token"
        files.append((f"{agent}.{_SUFFIXES[credential['format']]}", _line(credential[member])))
    if received.key is not None:
        files.append((f"{agent}.{received.key.suffix}", received.key.file))
    for sealed in answer["sealed_keys"]:
        if _NAME.fullmatch(sealed["name"]) is None:
            raise ValueError("the name of a sealed key")
        files.append((f"{sealed['name']}.seal.json", json.dumps(sealed, indent=1).encode() + b"\n"))
    return files


def authorities(bundle: Mapping[str, Any]) -> bytes:
    """PEM of the X.509 authorities in a SPIFFE bundle; ValueError if there is none or one is no certificate."""
    pem = b""
    for key in bundle["keys"]:
        if key.get("use") == "x509-svid":
            certificate = x509.load_der_x509_certificate(b64decode(key["x5c"][0], validate=True))
            pem += certificate.public_bytes(Encoding.PEM)
    if not pem:
        raise ValueError("a bundle without X.509 authorities")
    return pem


def _line(text: object) -> bytes:
    if not isinstance(text, str) or not text.isascii():
        raise ValueError("a credential that is no text")
    return text.rstrip("\n").encode() + b"\n"
