"""What does a caller get now?

Pure, from the workloads that it may be and from what the machine holds. An answer is the message as it goes
out, made once for all who get the same, and has an end: of the first credential in it.

Who may not have something is told PermissionDenied, and so is who might but was refused by the service: the
standard has clients stop using what they had (SPIFFE Workload API, section 5.2.1), which is what a refusal
means. Who may have it and only cannot now is told Unavailable. Both ask again after a while.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestd.agent.holdings import Bundle, Held, Holdings, JwtSvid, WitSvid, X509Svid
from attestd.agent.settings import Workload
from attestd.agent.workload.messages import new

DENIED = Status.PERMISSION_DENIED
FOREVER = 2**63 - 1
_S = TypeVar("_S", X509Svid, WitSvid)


@dataclass(frozen=True, slots=True)
class Answer:
    """A serialized message, true until then (milliseconds)."""

    raw: bytes
    until: int


Reading = Callable[[Sequence[Workload], Holdings, int], Answer]


def denied(why: str) -> GRPCError:
    return GRPCError(DENIED, why)


def unavailable(why: str) -> GRPCError:
    return GRPCError(Status.UNAVAILABLE, why)


def invalid(why: str) -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, why)


def x509_svids(workloads: Sequence[Workload], holdings: Holdings, now: int) -> Answer:
    """FetchX509SVID. GRPCError for nothing. What has its key in the TPM is not there: the message demands the
    private key."""
    entitled = entitled_to("x509-svid", workloads)
    live = [(workload, held.x509) for workload, held in _current(entitled, holdings, now) if held.x509]
    given = _some([(workload, svid) for workload, svid in live if svid.key], entitled, holdings)
    authorities = b"".join(bundle_of(holdings).authorities)
    response = new("X509SVIDResponse")
    for hint, (_, svid) in zip(_hints(given), given, strict=True):
        response.svids.add(
            spiffe_id=svid.spiffe_id,
            x509_svid=b"".join(svid.chain),
            x509_svid_key=svid.key,
            bundle=authorities,
            hint=hint,
        )
    return _answer(response, (svid.expires_at for _, svid in given))


def wit_svids(workloads: Sequence[Workload], holdings: Holdings, now: int) -> Answer:
    """FetchWITSVID, likewise."""
    entitled = entitled_to("wit-svid", workloads)
    live = [(workload, held.wit) for workload, held in _current(entitled, holdings, now) if held.wit]
    given = _some([(workload, svid) for workload, svid in live if svid.key], entitled, holdings)
    response = new("WITSVIDResponse")
    for hint, (_, svid) in zip(_hints(given), given, strict=True):
        response.svids.add(spiffe_id=svid.spiffe_id, wit_svid=svid.text, wit_svid_key=svid.key, hint=hint)
    return _answer(response, (svid.expires_at for _, svid in given))


def jwt_svids(given: Sequence[tuple[Workload, JwtSvid]]) -> Answer:
    """FetchJWTSVID, of tokens that were made for this caller."""
    response = new("JWTSVIDResponse")
    for hint, (_, svid) in zip(_hints(given), given, strict=True):
        response.svids.add(spiffe_id=svid.spiffe_id, svid=svid.text, hint=hint)
    return _answer(response, (svid.expires_at for _, svid in given))


def x509_bundles(_: Sequence[Workload], holdings: Holdings, __: int) -> Answer:
    """FetchX509Bundles. Whoever has a rule may verify others, whatever became of its own identity."""
    bundle = bundle_of(holdings)
    return _answer(new("X509BundlesResponse", bundles={_name(bundle): b"".join(bundle.authorities)}))


def jwt_bundles(_: Sequence[Workload], holdings: Holdings, __: int) -> Answer:
    bundle = bundle_of(holdings)
    return _answer(new("JWTBundlesResponse", bundles={_name(bundle): bundle.jwt_keys.encode()}))


def wit_bundles(_: Sequence[Workload], holdings: Holdings, __: int) -> Answer:
    bundle = bundle_of(holdings)
    return _answer(new("WITBundlesResponse", bundles={_name(bundle): bundle.wit_keys}))


def bundle_of(holdings: Holdings) -> Bundle:
    if holdings.bundle is None:
        raise unavailable("the agent has no trust bundle yet; its service was not reached")
    return holdings.bundle


def entitled_to(form: str, workloads: Sequence[Workload]) -> tuple[Workload, ...]:
    """Those that the operator gave this format, and whose key can leave the agent where the answer holds one.
    PermissionDenied if none is left."""
    having = tuple(workload for workload in workloads if form in workload.formats)
    keyless = form == "jwt-svid"
    entitled = tuple(workload for workload in having if keyless or workload.key == "software")
    if not having:
        raise denied(f"no workload of this caller has {form} among its formats")
    if not entitled:
        names = ", ".join(workload.agent for workload in having)
        raise denied(f"the key of {names} stays in the TPM; its {form} is delivered as files only")
    return entitled


def _current(entitled: Sequence[Workload], holdings: Holdings, now: int) -> list[tuple[Workload, Held]]:
    found = [(workload, holdings.current(workload.agent, now=now)) for workload in entitled]
    return [(workload, held) for workload, held in found if held is not None]


def _some(
    live: list[tuple[Workload, _S]], entitled: Sequence[Workload], holdings: Holdings
) -> list[tuple[Workload, _S]]:
    if live:
        return live
    first = entitled[0].agent
    why = holdings.withheld.get(first, "the agent holds nothing for it yet")
    if holdings.refused.issuperset(workload.agent for workload in entitled):
        raise denied(f"the service gives {first} no identity: {why}")
    raise unavailable(f"{first} has no identity now: {why}")


def _hints(given: Sequence[tuple[Workload, object]]) -> list[str]:
    """No hint twice in an answer: of several, the first has it."""
    hints: list[str] = []
    for workload, _ in given:
        hints.append("" if workload.hint in hints else workload.hint)
    return hints


def _name(bundle: Bundle) -> str:
    """The SPIFFE ID of the trust domain."""
    return f"spiffe://{bundle.trust_domain}"


def _answer(message: Any, ends: Iterable[int] = ()) -> Answer:
    return Answer(message.SerializeToString(), min(ends, default=FOREVER))
