"""What is delivered: credentials that end at given times, workloads that want them as files, and a look at
what lies there."""

import json
import os
import stat
import textwrap
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from attestd.agent.holdings import Held, Holdings
from attestd.agent.settings import Callers, Workload

NOW = 1_800_000_000_000
"""Milliseconds."""
MINUTE = 60_000
STRANGER = 54321
"""A user that nobody is."""
NOBODYS = frozenset[str]()


def key_and_certificate(
    end: int, *, identity: str = "spiffe://example.org/agent/telemetry/1"
) -> tuple[bytes, bytes]:
    """PKCS#8 and certificate in PEM, for each other."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    ends = datetime.fromtimestamp(end / 1000, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - timedelta(hours=1))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)


def token(end: int, **claims: object) -> str:
    parts = ({"alg": "ES256", "kid": "1"}, {"exp": end // 1000, **claims})
    written = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*written, "c2lnbmF0dXJl"))


def spelled(payload: str) -> bytes:
    """A token whose payload is this text, whatever it says."""
    written = [urlsafe_b64encode(part.encode()).rstrip(b"=") for part in ('{"alg":"ES256"}', payload)]
    return b".".join((*written, b"c2lnbmF0dXJl"))


def another_version(certificate: bytes) -> bytes:
    """The certificate (PEM) as X.509 of a version that there is not for certificates with extensions."""
    lines = certificate.decode().strip().splitlines()
    raw = b64decode("".join(lines[1:-1]))
    changed = b64encode(raw.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01", 1)).decode()
    return "\n".join((lines[0], *textwrap.wrap(changed, 64), lines[-1], "")).encode()


def contents(
    agent: str = "telemetry", *, end: int = NOW + 10 * MINUTE, jwt_end: int | None = None
) -> dict[str, bytes]:
    """What one round brings: a key and a certificate for each other, and what lies beside them."""
    key, certificate = key_and_certificate(end)
    files = {
        "result.jwt": token(end).encode() + b"\n",
        "bundle.pem": certificate,
        f"{agent}.svid.pem": certificate,
        f"{agent}.key.pem": key,
    }
    if jwt_end is not None:
        files[f"{agent}.jwt"] = token(jwt_end).encode() + b"\n"
    return files


def workload(
    files: Path | None,
    *,
    agent: str = "telemetry",
    user: frozenset[str] = NOBODYS,
    key: str = "software",
    formats: tuple[str, ...] = ("x509-svid",),
    on_renewal: tuple[str, ...] = (),
) -> Workload:
    callers = Callers(user, frozenset({"any"}), NOBODYS, NOBODYS)
    return Workload(agent, formats, key, (), "", callers, files, on_renewal, ())


def holding(wanted: Workload, files: Mapping[str, bytes]) -> Holdings:
    return Holdings({wanted.agent: Held(wanted, NOW, None, None, None, files)}, {}, None)


def lying(folder: Path) -> dict[str, bytes]:
    """The regular files by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if stat.S_ISREG(path.lstat().st_mode)}


def generations(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") and path.is_dir())


def as_user(uid: int, what: Callable[[], object]) -> str:
    """What happens when that user does it: "done", or the name of the error. Needs root."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = "done"
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            what()
        except BaseException as error:
            told = type(error).__name__
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        told = file.read().decode()
    os.waitpid(pid, 0)
    return told
