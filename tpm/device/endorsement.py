"""Which endorsement key does this TPM have, and who vouches for it?"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import TPM2B_DIGEST, TPML_DIGEST

from tpm.device import templates
from tpm.device.connection import Connection, LoadedKey
from tpm.device.nv import maker_indices, read_index, split_certificates
from tpm.device.primary import create_primary
from tpm.device.refusals import explained
from tpm.errors import AttestationError, DeviceError
from tpm.seal.policy import policy_or, policy_secret, start
from tpm.seal.wrap import sized
from tpm.structures.algorithms import Hash, TpmCc, TpmRh
from tpm.structures.public import PublicArea, parse_public, parse_sized_public
from tpm.verify.templates import EK_TEMPLATES, EkTemplate

CHAIN_LIMIT = 8
"""Certificates between the endorsement certificate and its root that we read."""

_CHAIN_FIRST, _CHAIN_LAST = 0x01C00100, 0x01C001FF
_PERSISTENT_FIRST, _PERSISTENT_LAST = 0x81010000, 0x8101FFFF
_BY_NAME = {template.name: template for template in EK_TEMPLATES}
_ALIASES = {"p256": "L-2", "rsa": "L-1"}
# Without a certificate to decide it: what is quick to create, and what every TPM has.
_PREFERENCE = ("L-2", "L-1", "H-2", "H-3", "H-1", "H-4", "H-6", "H-7")
# Template name: NV indices of certificate, nonce (low range only) and template (EK Credential Profile
# 2.6, 2.2.1).
_INDICES: dict[str, tuple[int, int | None, int]] = {
    "L-1": (0x01C00002, 0x01C00003, 0x01C00004),
    "L-2": (0x01C0000A, 0x01C0000B, 0x01C0000C),
    "H-1": (0x01C00012, None, 0x01C00013),
    "H-2": (0x01C00014, None, 0x01C00015),
    "H-3": (0x01C00016, None, 0x01C00017),
    "H-4": (0x01C00018, None, 0x01C00019),
    "H-6": (0x01C0001C, None, 0x01C0001D),
    "H-7": (0x01C0001E, None, 0x01C0001F),
}
_POLICY_INDICES = {"sha256": 0x01C07F01, "sha384": 0x01C07F02, "sha512": 0x01C07F03}
_POLICY_INDEX_ATTRIBUTES = 0x220F1008


@dataclass(frozen=True, slots=True)
class Endorsement:
    """What an endorsement key shows: its template ("L-2"), public area, certificate (DER) and chain from
    NV.
    """

    kind: str
    public: PublicArea
    certificate: bytes | None
    chain: tuple[bytes, ...]


def endorsement(tpm: Connection, kind: str | None = None) -> Endorsement:
    """The key of this kind ("p256", "rsa" or a template's name); without one, the first that has a
    certificate.
    """
    indices = set(maker_indices(tpm))
    name = _template(kind).name if kind is not None else _preferred(indices)
    with endorsement_key(tpm, name) as key:
        public = key.public
    certificate = _certificate(tpm, name, indices)
    chain = _chain(tpm, indices) if certificate is not None else ()
    return Endorsement(name, public, certificate, chain)


@contextmanager
def endorsement_key(tpm: Connection, kind: str) -> Iterator[LoadedKey]:
    """The key loaded: where it is persistent from there, otherwise created anew, which gives the same
    key.
    """
    template = _template(kind)
    wanted = _template_bytes(tpm, template)
    with ExitStack() as stack:
        key = _persistent(tpm, wanted, stack)
        if key is None:
            key = stack.enter_context(create_primary(tpm, wanted, ESYS_TR.ENDORSEMENT))
        yield key


@contextmanager
def endorsement_session(tpm: Connection, key: LoadedKey, *, private: bool = False) -> Iterator[Any]:
    """A session that may use an endorsement key: its policy is satisfied for one command.

    With `private`, what the TPM answers travels encrypted under a secret that only this key can open.
    """
    hash = key.public.name_alg
    branch = policy_a(hash)
    with tpm.policy_session(hash, salt=key if private else None) as session:
        with explained("authorize the endorsement hierarchy"):
            empty = (b"", b"", b"", 0)
            tpm.esapi.policy_secret(ESYS_TR.ENDORSEMENT, session, *empty, session1=ESYS_TR.PASSWORD)
        if key.public.auth_policy != branch:
            branches = TPML_DIGEST([TPM2B_DIGEST(branch), TPM2B_DIGEST(policy_c(hash))])
            with explained("satisfy the endorsement key's policy"):
                tpm.esapi.policy_or(session, branches)
        yield session


def policy_a(hash: Hash) -> bytes:
    """PolicySecret(TPM_RH_ENDORSEMENT)."""
    return policy_secret(start(hash), hash, TpmRh.ENDORSEMENT.to_bytes(4))


def policy_b(hash: Hash) -> bytes:
    """The policy of the high-range keys: A, or what the reserved index holds."""
    return policy_or(hash, [policy_a(hash), policy_c(hash)])


def policy_c(hash: Hash) -> bytes:
    """PolicyAuthorizeNV of the index that the profile reserves for this hash (EK Credential Profile 2.6,
    B.6.3).
    """
    index = _POLICY_INDICES[hash.name]
    head = index.to_bytes(4) + hash.id.to_bytes(2) + _POLICY_INDEX_ATTRIBUTES.to_bytes(4)
    public = head + sized(policy_a(hash)) + (2 + hash.size).to_bytes(2)
    name = hash.id.to_bytes(2) + hash.digest(public)
    return hash.digest(start(hash) + TpmCc.POLICY_AUTHORIZE_NV.to_bytes(4) + name)


def _template(kind: str) -> EkTemplate:
    template = _BY_NAME.get(_ALIASES.get(kind, kind))
    if template is None:
        known = ", ".join([*_ALIASES, *_BY_NAME])
        raise DeviceError("unknown_kind", f"An endorsement key is one of {known}, not {kind!r}.")
    return template


def _preferred(indices: set[int]) -> str:
    for name in _PREFERENCE:
        if _INDICES[name][0] in indices:
            return name
    return _PREFERENCE[0]


def _template_bytes(tpm: Connection, template: EkTemplate) -> bytes:
    """The maker's own template from NV where there is one, otherwise TCG's with the maker's nonce, if
    any.
    """
    _, nonce, own = _INDICES[template.name]
    indices = set(maker_indices(tpm))
    if own in indices:
        raw = read_index(tpm, own)
        try:
            return parse_public(raw).raw
        except AttestationError as error:
            raise DeviceError(
                "ek_template", f"Index {own:#010x} holds no template: {error.detail}"
            ) from error
    if nonce in indices and nonce is not None:
        return templates.endorsement_key(template, read_index(tpm, nonce))
    return templates.endorsement_key(template)


def _persistent(tpm: Connection, wanted: bytes, stack: ExitStack) -> LoadedKey | None:
    template = parse_public(wanted)
    head = wanted[: -sum(2 + len(part) for part in template.unique)]
    for number in tpm.handles(_PERSISTENT_FIRST, _PERSISTENT_LAST):
        with ExitStack() as attempt:
            handle = attempt.enter_context(tpm.known(number))
            with explained(f"read the key at {number:#010x}"):
                public = parse_sized_public(tpm.esapi.read_public(handle)[0].marshal())
            # All but the key itself is what the template asks for: what was made persistent is that key.
            if public.raw.startswith(head):
                stack.push(attempt.pop_all())
                return LoadedKey(handle, public)
    return None


def _certificate(tpm: Connection, name: str, indices: set[int]) -> bytes | None:
    index = _INDICES[name][0]
    if index not in indices:
        return None
    certificates = split_certificates(read_index(tpm, index), limit=1)
    return certificates[0] if certificates else None


def _chain(tpm: Connection, indices: set[int]) -> tuple[bytes, ...]:
    # A chain may run over from one index into the next, so it is joined before it is cut into certificates.
    chain = [index for index in sorted(indices) if _CHAIN_FIRST <= index <= _CHAIN_LAST]
    content = b"".join(read_index(tpm, index) for index in chain)
    return tuple(split_certificates(content, limit=CHAIN_LIMIT))
