"""Which keys does a new database know? Those in the directory of whoever opens it first.

`attestd init` makes keys and database together. A database that is named later (PostgreSQL, for several
workers) is empty: the first replica or command that needs a key writes down those that it has, and every
other replica must have the same.
"""

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestd.config import Config
from attestd.issue.audit_keys import audit_signer
from attestd.issue.key_files import ALGORITHMS, KeyFile, KeyFiles, read_key_files
from attestd.issue.keys import KeyRing
from attestd.store import audit, meta, signing_keys
from attestd.store.audit import AuditEvent
from attestd.store.engine import Transaction
from attestd.store.signing_keys import SigningKey
from attestd.store.store import Store
from tpm.errors import PolicyError


def adopt_keys(store: Store, config: Config, *, verb: str, by: str, now: int) -> bool:
    """True if the database knew no key and now has this directory's, on record as `verb` by `by`.

    PolicyError `keys_ambiguous` where the directory does not say which key of a use is to sign.
    """
    if store.read(signing_keys.list_all):
        return False
    files = read_key_files(config.keys)

    def adopt(tx: Transaction) -> bool:
        if signing_keys.list_all(tx):
            return False
        for key in _one_of_each_use(files, config):
            signing_keys.insert(tx, _active(key, now))
        fingerprint = files.fingerprint()
        meta.agree_on_key(tx, "keys", fingerprint)
        # Nonces of a database that this one replaces are as dead as those of before a restore.
        meta.raise_epoch(tx, now)
        ring = KeyRing(
            config.keys,
            trust_domain=config.trust_domain,
            read_states=lambda: signing_keys.list_all(tx),
        )
        told = {"verb": verb, "by": by, "trust_domain": config.trust_domain, "keys": fingerprint}
        event = AuditEvent(event="admin", decision="accepted", details=told)
        audit.append(tx, audit_signer(ring.at(now)), event, chain=None, now=now)
        return True

    return store.write(adopt)


def _one_of_each_use(files: KeyFiles, config: Config) -> Iterator[KeyFile]:
    for use in ALGORITHMS:
        found = [key for key in files.keys if key.use == use]
        if len(found) != 1:
            detail = (
                f"the database knows no key yet and {config.keys} has {len(found)} for {use}; leave the one "
                "that is to sign, or name the database that knows them"
            )
            raise PolicyError("keys_ambiguous", detail)
        yield found[0]


def _active(key: KeyFile, now: int) -> SigningKey:
    """It signs from the start: nobody can have cached an older set."""
    public = key.private_key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(
        kid=key.kid,
        use=key.use,
        alg="RS256" if isinstance(public, rsa.RSAPublicKey) else ALGORITHMS[key.use][0],
        state="active",
        fingerprint=hashlib.sha256(der).hexdigest(),
        created_at=now,
        published_at=now,
        activated_at=now,
    )
