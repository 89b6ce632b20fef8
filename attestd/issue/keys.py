"""Which keys does this service sign with, and which does it publish?"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attestd.issue import rotation
from attestd.issue.jwk import public_jwk
from attestd.issue.key_files import (
    ALGORITHMS,
    KeyFile,
    KeyFiles,
    create_directory,
    create_key,
    read_key_files,
)
from attestd.issue.rotation import KeyState
from attestd.issue.signer import Signer
from attestd.wire import Problem
from tpm.errors import PolicyError

STATE_AGE_MS = 1000
"""How old the states of keys may be: rotation reaches every replica within this."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys at one moment."""

    states: tuple[KeyState, ...]
    signers: Mapping[str, Signer] = field(repr=False)
    """By kid: every key that is here and that the store knows, retired ones too."""
    missing: tuple[str, ...]
    """Published keys whose files are not here: a replica with such a gap is not ready."""

    def signer(self, use: str) -> Signer:
        """The key that signs for this use; Problem `unavailable` when there is none here."""
        state = rotation.signing(self.states, use)
        if state is None or state.kid not in self.signers:
            raise Problem("unavailable", f"no key for {use} can sign on this replica", cause="no_key")
        return self.signers[state.kid]

    def published(self, use: str) -> tuple[Signer, ...]:
        """What relying parties are to know for this use, the oldest first."""
        states = rotation.published(self.states, use)
        return tuple(self.signers[state.kid] for state in states if state.kid in self.signers)

    def of_use(self, use: str) -> tuple[Signer, ...]:
        """Every key of this use that is here, retired ones too; they verify what is kept for ever."""
        return tuple(signer for signer in self.signers.values() if signer.use == use)

    def holds(self, jwk: Mapping[str, str]) -> bool:
        """Is this public key one of ours? No credential may be bound to such a key."""
        return any(signer.jwk == jwk for signer in self.signers.values())


class KeyRing:
    """The files of the keys, with their states read again at most once a second."""

    def __init__(
        self, directory: Path, *, trust_domain: str, read_states: Callable[[], Iterable[KeyState]]
    ) -> None:
        """Reads all files at once; PolicyError when the directory is open to others or a file is no key of
        ours."""
        self._directory = directory
        self._trust_domain = trust_domain
        self._read_states = read_states
        self._lock = threading.Lock()
        self._files = self._read_files()
        self._keys: Keys | None = None
        self._read_at = 0

    @property
    def nonce_keys(self) -> tuple[bytes, ...]:
        """The secrets behind nonces and enrolments, the current one first."""
        return self._files.nonce_keys

    def fingerprint(self) -> str:
        """Equal on replicas whose key files hold the same keys, and on no others."""
        return self._files.fingerprint()

    def at(self, now: int) -> Keys:
        """The keys as they are now, states not older than a second."""
        keys = self._keys
        if keys is not None and 0 <= now - self._read_at < STATE_AGE_MS:
            return keys
        with self._lock:
            states = tuple(sorted(self._read_states(), key=lambda state: state.kid))
            if self._keys is None or states != self._keys.states or self._keys.missing:
                self._keys = self._assemble(states)
            self._read_at = now
            return self._keys

    def _assemble(self, states: tuple[KeyState, ...]) -> Keys:
        keys = _join(states, self._files)
        if keys.missing:
            # A key that was added while we run: its file is there before its state is. Where it is not, or
            # is not as it must be, this replica is not ready, and goes on with what it has.
            with contextlib.suppress(PolicyError):
                self._files = self._read_files()
                keys = _join(states, self._files)
        return keys

    def _read_files(self) -> KeyFiles:
        files = read_key_files(self._directory)
        for key in files.keys:
            if key.authority is not None and key.authority.trust_domain != self._trust_domain:
                other = key.authority.trust_domain
                detail = f"the certificate of {key.kid} is for {other}, not for {self._trust_domain}"
                raise PolicyError("ca_certificate", detail)
        return files


def create_keys(directory: Path, *, trust_domain: str, now: int) -> tuple[tuple[str, str, str], ...]:
    """Make the directory with one key for each use; (use, kid, alg) of each, for the store.

    FileExistsError if it exists.
    """
    create_directory(directory)
    made = []
    for use, (alg, *_) in ALGORITHMS.items():
        key = create_key(directory, use=use, alg=alg, trust_domain=trust_domain, now=now)
        made.append((use, key.kid, alg))
    return tuple(made)


def _join(states: tuple[KeyState, ...], files: KeyFiles) -> Keys:
    by_kid: dict[str, KeyFile] = {key.kid: key for key in files.keys}
    signers = {
        state.kid: _signer(by_kid[state.kid], state.alg)
        for state in states
        if state.kid in by_kid and by_kid[state.kid].use == state.use
    }
    missing = tuple(state.kid for state in states if state.kid not in signers and state.state != "retired")
    return Keys(states, signers, missing)


def _signer(key: KeyFile, alg: str) -> Signer:
    jwk = public_jwk(key.private_key.public_key())
    return Signer(key.use, key.kid, alg, key.private_key, jwk, key.authority)
