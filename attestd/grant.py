"""What does an accepted machine get? Entitlement first, all or nothing; then keys and credentials, and
nothing else.

`entitle` decides without signing, so that a request for one thing too many costs no signature; `mint` signs
what was entitled and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from attestd.issue.jwk import BoundKey, from_public_key
from attestd.issue.keys import Keys
from attestd.policy.document import Policy
from attestd.policy.entitlement import NotEntitled, find_grant, find_seal, spiffe_id
from attestd.policy.grants import Grant, Seal
from attestd.protocol import CredentialRequest
from attestd.round.claim import Claim, RequestedKey
from attestd.store.devices import Device
from attestd.wire import Problem
from tpm.errors import StructureError
from tpm.structures.public import PublicArea, parse_sized_public
from tpm.verify.certified import VerifiedKey


@dataclass(frozen=True, slots=True)
class EntitledCredential:
    """A credential that the policy grants to this device, bound to a key that is proven (or, for a JWT-SVID,
    to none)."""

    format: str
    grant: Grant
    spiffe_id: str
    key: BoundKey | None
    resident: bool
    """The key is proven to live in the device's TPM."""
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EntitledSeal:
    """A sealed key that the policy gives, and the storage key that it is wrapped for ("ek", or a Name in
    hex)."""

    seal: Seal
    parent: PublicArea
    parent_name: str


@dataclass(frozen=True, slots=True)
class Entitlement:
    """All that was asked for, in the order asked."""

    policy: Policy
    credentials: tuple[EntitledCredential, ...]
    seals: tuple[EntitledSeal, ...]


def entitle(
    policy: Policy,
    claim: Claim,
    device: Device,
    *,
    keys: Mapping[bytes, VerifiedKey],
    trust_domain: str,
    ours: Keys,
) -> Entitlement:
    """All or nothing; Problem `not_entitled` points into the request at the first thing that the policy does
    not give, `identity_bound` at a key that is one of `ours`."""
    credentials = []
    for index, (wanted, key) in enumerate(zip(claim.request.credentials, claim.keys, strict=True)):
        grant = _find_grant(policy, wanted, f"/credentials/{index}")
        _check_key(grant, key, f"/credentials/{index}/key")
        _check_audience(grant, wanted, f"/credentials/{index}/audience")
        try:
            identity = spiffe_id(
                grant,
                trust_domain=trust_domain,
                device_id=device.device_id,
                name=device.name,
                labels=device.labels,
            )
        except NotEntitled as error:
            raise _not_entitled(error, f"/credentials/{index}/agent") from None
        credentials.append(
            EntitledCredential(
                wanted.format,
                grant,
                identity,
                _bind(key, keys, ours, f"/credentials/{index}/key"),
                isinstance(key, bytes),
                tuple(wanted.audience),
            )
        )
    return Entitlement(policy, tuple(credentials), _entitle_seals(policy, claim, device, keys))


def _find_grant(policy: Policy, wanted: CredentialRequest, pointer: str) -> Grant:
    try:
        return find_grant(policy, agent=wanted.agent, credential_format=wanted.format)
    except NotEntitled as error:
        raise _not_entitled(error, pointer) from None


def _check_key(grant: Grant, key: RequestedKey, pointer: str) -> None:
    if grant.key == "tpm" and not isinstance(key, bytes):
        error = NotEntitled(
            "software_key", f"{grant.agent} needs a key that lives in the TPM; name a certified one"
        )
        raise _not_entitled(error, pointer)


def _check_audience(grant: Grant, wanted: CredentialRequest, pointer: str) -> None:
    for index, audience in enumerate(wanted.audience):
        if audience not in grant.audiences:
            error = NotEntitled(
                "audience", f"{grant.agent} may be told to none but the audiences of its grant"
            )
            raise _not_entitled(error, f"{pointer}/{index}")


def _not_entitled(error: NotEntitled, pointer: str) -> Problem:
    return Problem("not_entitled", f"{error.detail}.", pointer=pointer, cause=error.reason)


def _bind(
    key: RequestedKey, keys: Mapping[bytes, VerifiedKey], ours: Keys, pointer: str
) -> BoundKey | None:
    """The public key itself. One with which we sign is nobody's; one that is weak by its making is none."""
    if isinstance(key, bytes):
        verified = keys[key]
        try:
            key = from_public_key(verified.public.public_key(), alg=str(verified.alg))
        except StructureError as error:
            raise Problem("not_entitled", f"{error.detail}.", pointer=pointer, cause=error.reason) from None
    if key is not None and ours.holds(key.jwk):
        detail = "The service itself signs with this key; make one of your own."
        raise Problem("identity_bound", detail, pointer=pointer, cause="key_reuse")
    return key


def _entitle_seals(
    policy: Policy, claim: Claim, device: Device, keys: Mapping[bytes, VerifiedKey]
) -> tuple[EntitledSeal, ...]:
    seals = []
    slow = 0
    for index, (wanted, parent) in enumerate(zip(claim.request.sealed_keys, claim.parents, strict=True)):
        try:
            seal = find_seal(policy, name=wanted.name)
            slow += seal.kind == "rsa-2048"
            if slow > 1:
                raise NotEntitled(
                    "rsa_twice", "one round makes one rsa-2048 key; ask for the other in the next"
                )
        except NotEntitled as error:
            raise _not_entitled(error, f"/sealed_keys/{index}/name") from None
        if parent is None:
            assert device.ek_public is not None
            seals.append(EntitledSeal(seal, parse_sized_public(device.ek_public), "ek"))
        else:
            seals.append(EntitledSeal(seal, keys[parent].public, parent.hex()))
    return tuple(seals)
