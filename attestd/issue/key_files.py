"""Which keys lie in the directory of signing keys, and is it as closed as it must be?

    keys/                     0700, and every file 0600, owned by who runs the service
      <use>-<kid>.pem         a signing key, PKCS#8; use is x509, jwt, wit, ear or audit
      x509-<kid>.crt.pem      the CA certificate of an x509 key
      nonce.key               32 random bytes, from which the keys of nonces and enrolments are derived
      nonce.previous.key      the one before it, still accepted (optional)

Other files that end in .pem or .key stop the start: a signing key that is silently not loaded would be
found out too late. Files of other names are somebody else's and are left alone.
"""

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from attestd.issue.authority import Authority, create_authority, read_authority, serial_number
from attestd.issue.jwk import public_jwk, thumbprint_digest
from attestd.issue.signer import PrivateKey
from tpm.errors import AttestationError, PolicyError

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "x509": ("ES256",),
    "jwt": ("ES256", "RS256", "PS256"),
    "wit": ("ES256",),
    "ear": ("ES256",),
    "audit": ("ES256",),
}
"""What a key of each use may sign with; the first is the default."""

NONCE_KEY = "nonce.key"
PREVIOUS_NONCE_KEY = "nonce.previous.key"
_NONCE_KEY_SIZE = 32
_KEY_NAME = re.compile(rf"({'|'.join(ALGORITHMS)})-([0-9a-f]{{32}})\.pem")
_CERTIFICATE_NAME = re.compile(r"x509-[0-9a-f]{32}\.crt\.pem")
_RSA_BITS = 3072
_MAX_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One signing key as it was found, or made."""

    use: str
    kid: str
    private_key: PrivateKey = field(repr=False)
    authority: Authority | None


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Everything in the directory; comes from `read_key_files` alone."""

    keys: tuple[KeyFile, ...]
    nonce_keys: tuple[bytes, ...] = field(repr=False)
    """The current one first."""

    def fingerprint(self) -> str:
        """Lower-case hex SHA-256 that two directories share exactly if they hold the same keys, whatever
        the writing of their files. Tells nothing of the keys."""
        digest = hashlib.sha256(b"attestd keys\n")
        for key in sorted(f"{key.use} {key.kid}\n" for key in self.keys):
            digest.update(key.encode())
        for nonce_key in self.nonce_keys:
            digest.update(hashlib.sha256(b"attestd nonce key" + nonce_key).digest())
        return digest.hexdigest()


def kid_of(private_key: PrivateKey) -> str:
    """The first 128 bits of the key's RFC 7638 thumbprint, in hex: names differ across uses, files and
    JWKS, and are also fit for a file system that folds case and a shell that reads a leading dash as an
    option."""
    return thumbprint_digest(public_jwk(private_key.public_key()))[:16].hex()


def read_key_files(directory: Path) -> KeyFiles:
    """All keys. PolicyError `key_file_mode`, `key_file_owner`, `key_file_unreadable`, `key_file_name` or
    `ca_certificate`, naming the file."""
    _check_closed(directory, os.lstat(directory) if directory.is_dir() else None)
    names = sorted(entry.name for entry in directory.iterdir())
    keys = []
    for name in names:
        if match := _KEY_NAME.fullmatch(name):
            keys.append(_read_key(directory, use=match[1], kid=match[2]))
        elif name.endswith((".pem", ".key")) and not _is_companion(name):
            raise PolicyError(
                "key_file_name", f"{directory / name} is no key of this service: move it elsewhere"
            )
    nonce_keys = tuple(
        _read_nonce_key(directory / name) for name in (NONCE_KEY, PREVIOUS_NONCE_KEY) if name in names
    )
    if NONCE_KEY not in names:
        raise PolicyError(
            "key_missing", f"{directory / NONCE_KEY} is missing; restore it, or begin with `attestd init`"
        )
    return KeyFiles(tuple(keys), nonce_keys)


def create_directory(directory: Path) -> None:
    """Make the directory (0700) with a nonce key; an existing one is refused by FileExistsError."""
    directory.mkdir(mode=0o700)
    write_file(directory / NONCE_KEY, secrets.token_bytes(_NONCE_KEY_SIZE))


def create_key(directory: Path, *, use: str, alg: str, trust_domain: str, now: int) -> KeyFile:
    """Make a key and write its files; ValueError for a use or algorithm that is not in `ALGORITHMS`.

    The certificate is written before its key, so that a key which is there is whole.
    """
    if alg not in ALGORITHMS.get(use, ()):
        raise ValueError(f"a key for {use!r} cannot sign with {alg!r}")
    if use != "x509":
        private_key: PrivateKey = _generate(alg)
        key = KeyFile(use, kid_of(private_key), private_key, None)
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        kid = kid_of(ca_key)
        serial = serial_number(secrets.token_bytes(20))
        certificate = create_authority(ca_key, trust_domain=trust_domain, kid=kid, serial=serial, now=now)
        write_file(directory / f"x509-{kid}.crt.pem", certificate.public_bytes(Encoding.PEM))
        key = KeyFile(use, kid, ca_key, read_authority(certificate))
    pem = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_file(directory / f"{use}-{key.kid}.pem", pem)
    return key


def remove_key(directory: Path, key: KeyFile) -> None:
    """Take back what `create_key` wrote, the key before its certificate."""
    (directory / f"{key.use}-{key.kid}.pem").unlink(missing_ok=True)
    (directory / f"{key.use}-{key.kid}.crt.pem").unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600 that is there whole and on disk, or not at all; FileExistsError if it
    is there."""
    # The name while it is written ends like no key, for readers that come in between.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _generate(alg: str) -> PrivateKey:
    if alg == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


def _is_companion(name: str) -> bool:
    return name in (NONCE_KEY, PREVIOUS_NONCE_KEY) or _CERTIFICATE_NAME.fullmatch(name) is not None


def _read_key(directory: Path, *, use: str, kid: str) -> KeyFile:
    path = directory / f"{use}-{kid}.pem"
    try:
        loaded = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PolicyError(
            "key_file_unreadable", f"{path} is no unencrypted PKCS#8 key; restore it, or remove it"
        ) from None
    private_key = _of_use(loaded, use)
    if private_key is None or kid_of(private_key) != kid:
        raise PolicyError("key_file_name", f"{path} holds another key than its name says; restore it")
    authority = _read_authority(directory / f"x509-{kid}.crt.pem", private_key) if use == "x509" else None
    return KeyFile(use, kid, private_key, authority)


def _read_authority(path: Path, private_key: PrivateKey) -> Authority:
    try:
        certificate = x509.load_pem_x509_certificate(_read(path))
        authority = read_authority(certificate)
        certificate.verify_directly_issued_by(certificate)
    except AttestationError as error:
        raise PolicyError(error.reason, f"{path}: {error.detail}") from None
    except (ValueError, TypeError, InvalidSignature):
        raise PolicyError("ca_certificate", f"{path} is no self-signed certificate; restore it") from None
    if certificate.public_key() != private_key.public_key():
        raise PolicyError("ca_certificate", f"{path} is the certificate of another key; restore it")
    return authority


def _of_use(private_key: object, use: str) -> PrivateKey | None:
    """The key if a key of this use may be one like it."""
    if isinstance(private_key, ec.EllipticCurvePrivateKey) and private_key.curve.name == "secp256r1":
        return private_key
    if (
        isinstance(private_key, rsa.RSAPrivateKey)
        and "RS256" in ALGORITHMS[use]
        and private_key.key_size >= 2048
    ):
        return private_key
    return None


def _read_nonce_key(path: Path) -> bytes:
    content = _read(path)
    if len(content) != _NONCE_KEY_SIZE:
        raise PolicyError(
            "key_file_unreadable", f"{path} has {len(content)} bytes and not {_NONCE_KEY_SIZE}; restore it"
        )
    return content


def _read(path: Path) -> bytes:
    """The file's bytes, once what was opened is known to be closed to others."""
    try:
        # Not through a link: what is checked here is the file itself. Not waiting for the writer of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PolicyError("key_file_unreadable", f"{path} cannot be read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        _check_closed(path, os.fstat(descriptor))
        return file.read(_MAX_SIZE)


def _check_closed(path: Path, status: os.stat_result | None) -> None:
    """PolicyError unless the file or directory is there, ours, and closed to everybody else."""
    if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise PolicyError("key_file_unreadable", f"{path} is not there, or is neither a file nor a directory")
    if status.st_uid != os.geteuid():
        owner, user = status.st_uid, os.geteuid()
        detail = f"{path} belongs to user {owner} and we are {user}: run this as its owner, or chown it"
        raise PolicyError("key_file_owner", detail)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        wanted = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise PolicyError("key_file_mode", f"{path} is open to others (mode {mode:o}): chmod {wanted} it")
