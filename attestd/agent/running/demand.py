"""What does a local caller get that is not in the picture: JWT-SVIDs for audiences that it names, access
tokens, and proofs with them?

Each costs the service or the TPM something, so what can be is kept until half of its life, what failed is not
asked for again at once, and an agent that asks without end is told to wait, and takes nothing from others.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from attestd.agent.attest import Wanted
from attestd.agent.errors import Misconfigured, Refusal, Unreachable
from attestd.agent.holdings import Bundle, Holdings, JwtSvid
from attestd.agent.machine import Machine
from attestd.agent.running.budget import Budget
from attestd.agent.running.bundle import fetch_bundle, header_of, key_ids
from attestd.agent.running.era import Era
from attestd.agent.running.home import Home
from attestd.agent.running.received import OffClock, not_ours, read_jwt
from attestd.agent.settings import Settings, Workload
from attestd.agent.token import AccessToken, Asked, ClientAttestation, attest_client, request_token
from attestd.agent.trouble import told_again
from attestd.clock import now_ms
from tpm.errors import DeviceError

KEPT = 256
"""Of each kind, the ones last used."""
ASKED_A_MINUTE = 30
"""Of the service, for all agents together: the machine's own rounds must not starve."""
PROOFS_A_MINUTE = 240
"""Of the TPM, for all agents together; one takes it for a tenth of a second or two."""
AGAIN_MS = 5000
"""What failed is not asked for again before this."""
_ENDED = frozenset({"invalid_client", "invalid_grant", "use_fresh_attestation", "invalid_client_attestation"})

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[Item]):
    item: Item
    half: int
    """Milliseconds: half of its life is over."""
    end: int
    era: int


class _Shelf(Generic[Item]):
    """What was used longest ago goes first. Looked at by one thread while another puts things in."""

    def __init__(self, era: Era) -> None:
        self._era = era
        self._kept: OrderedDict[Hashable, _Kept[Item]] = OrderedDict()

    def put(self, key: Hashable, item: Item, *, now: int, end: int) -> Item:
        self._kept[key] = _Kept(item, now + (end - now) // 2, end, self._era.number)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return item

    def fresh(self, key: Hashable, now: int) -> Item | None:
        """In the first half of its life."""
        kept = self._of_now(key)
        return kept.item if kept is not None and now < kept.half else None

    def live(self, key: Hashable, now: int) -> Item | None:
        """Before its end."""
        kept = self._of_now(key)
        return kept.item if kept is not None and now < kept.end else None

    def drop(self, key: Hashable) -> None:
        self._kept.pop(key, None)

    def _of_now(self, key: Hashable) -> _Kept[Item] | None:
        """What was put here before the service ended all that it had given is none."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.era == self._era.number else None


class Demands:
    """The `kept_…` methods may be called by any thread; the others use TPM and network, in one thread."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        holdings: Callable[[], Holdings],
        *,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`holdings` gives the picture of now."""
        self._home, self._settings, self._holdings, self._clock = home, settings, holdings, clock
        self._svids: _Shelf[JwtSvid] = _Shelf(home.era)
        self._attestations: _Shelf[ClientAttestation] = _Shelf(home.era)
        self._tokens: _Shelf[AccessToken] = _Shelf(home.era)
        self._given: _Shelf[tuple[Asked, AccessToken]] = _Shelf(home.era)
        self._failures: OrderedDict[Hashable, tuple[int, Exception]] = OrderedDict()
        self._asked, self._proven = Budget(ASKED_A_MINUTE), Budget(PROOFS_A_MINUTE)

    def reconfigure(self, settings: Settings) -> None:
        """What is not allowed any more is not given any more, though it is still kept."""
        self._settings = settings

    def kept_jwt_svid(self, agent: str, audiences: tuple[str, ...], *, now: int) -> JwtSvid | None:
        """One that is there and fresh; none for an agent that holds nothing any more. Misconfigured for what
        no workload of this machine has."""
        self._check(self._workload(agent), audiences, form="jwt-svid")
        svid, picture = self._svids.fresh((agent, audiences), now), self._holdings()
        if svid is None or agent not in picture.held:
            return None
        return svid if picture.bundle is None or _vouched(svid, picture.bundle) else None

    def jwt_svid(self, agent: str, audiences: tuple[str, ...]) -> JwtSvid:
        """A new one. Refusal, Unreachable, DeviceError or Misconfigured."""
        self._check(self._workload(agent), audiences, form="jwt-svid")
        return self._tried(agent, (agent, audiences), lambda: self._new_svid(agent, audiences))

    def kept_token(self, asked: Asked, *, now: int) -> AccessToken | None:
        """As `kept_jwt_svid`."""
        self._check(self._workload(asked.agent), (asked.audience,))
        return self._tokens.fresh(asked, now) if asked.agent in self._holdings().held else None

    def access_token(self, asked: Asked) -> AccessToken:
        """As `jwt_svid`."""
        self._check(self._workload(asked.agent), (asked.audience,))
        return self._tried(asked.agent, asked, lambda: self._new_token(asked))

    def proof(self, agent: str, access_token: str, method: str, url: str, *, nonce: str | None) -> str:
        """The header `DPoP` for one request. Misconfigured for a token that this agent was not given here, or
        may not have any more, and for an address that is none; Unreachable for too many."""
        now = self._clock()
        asked, token = self._given.live(access_token, now) or (None, None)
        if asked is None or token is None or asked.agent != agent or agent not in self._holdings().held:
            raise Misconfigured(f"{agent} has no such token here; it has ended, or is another's: ask for one")
        self._check(self._workload(agent), (asked.audience,))
        if not self._proven.spend(agent, sharing=self._sharing(), now=now):
            raise Unreachable(f"{agent} asks for more proofs than this machine's TPM has time for; wait")
        try:
            return token.headers(method, url, now=now, nonce=nonce)["DPoP"]
        except ValueError as error:
            raise Misconfigured(f"{url!r}: {error}") from None

    # --- asking -----------------------------------------------------------------------------------

    def _new_svid(self, agent: str, audiences: tuple[str, ...]) -> JwtSvid:
        machine = self._machine()
        bundle = self._holdings().bundle or fetch_bundle(machine.server, machine.trust_domain)[0]
        (part,) = machine.attest(Wanted(agent, ("jwt-svid",), "software", audiences, ())).parts
        now = self._clock()
        try:
            svid = read_jwt(part.credentials[0], audiences, bundle, now=now)
        except OffClock:
            raise
        except Exception as error:  # As in `read_part`.
            raise not_ours(error) from None
        return self._svids.put((agent, audiences), svid, now=now, end=svid.expires_at)

    def _new_token(self, asked: Asked) -> AccessToken:
        machine, now = self._machine(), self._clock()
        kept = self._attestations.fresh(asked.agent, now)
        if kept is not None:
            try:
                return self._token(machine, kept, asked)
            except Refusal as refusal:
                if refusal.error not in _ENDED:
                    raise
                # The machine is judged otherwise since, or has booted: it says anew how it is.
                self._attestations.drop(asked.agent)
        attestation = attest_client(machine, asked.agent)
        self._attestations.put(asked.agent, attestation, now=now, end=attestation.expires_at)
        return self._token(machine, attestation, asked)

    def _token(self, machine: Machine, attestation: ClientAttestation, asked: Asked) -> AccessToken:
        token = request_token(machine.server, attestation, asked, now=self._clock())
        end = token.got_at + token.expires_in * 1000
        self._given.put(token.text, (asked, token), now=token.got_at, end=end)
        return self._tokens.put(asked, token, now=token.got_at, end=end)

    def _tried(self, agent: str, key: Hashable, work: Callable[[], Answer]) -> Answer:
        """At most as often as the agent's share is, and what failed not at once again: the same error."""
        now = self._clock()
        failed_at, failure = self._failures.get(key, (0, None))
        if failure is not None and failed_at <= now < failed_at + AGAIN_MS:
            raise told_again(failure)
        if not self._asked.spend(agent, sharing=self._sharing(), now=now):
            raise Unreachable(f"{agent} asks for more tokens than this machine asks its service for; wait")
        self._failures.pop(key, None)
        try:
            return work()
        except (Refusal, Unreachable, DeviceError, Misconfigured) as error:
            self._failures[key] = (now, told_again(error))
            while len(self._failures) > KEPT:
                self._failures.popitem(last=False)
            raise

    def _sharing(self) -> int:
        """How many of the workloads may ask at all."""
        return sum(bool(each.audiences) for each in self._settings.workloads)

    def _machine(self) -> Machine:
        return self._home.machine(self._settings.server)

    def _workload(self, agent: str) -> Workload:
        for workload in self._settings.workloads:
            if workload.agent == agent:
                return workload
        raise Misconfigured(f"no workload of this machine is the agent {agent}")

    @staticmethod
    def _check(workload: Workload, audiences: tuple[str, ...], *, form: str | None = None) -> None:
        if form is not None and form not in workload.formats:
            raise Misconfigured(f"{workload.agent} has no {form}: its formats in the settings do not name it")
        foreign = [each for each in audiences if each not in workload.audiences]
        if foreign or not audiences:
            named = foreign[0] if foreign else "nobody"
            raise Misconfigured(f"{named} is none of {workload.agent}'s audiences in the settings")


def _vouched(svid: JwtSvid, bundle: Bundle) -> bool:
    return header_of(svid.text)["kid"] in key_ids(bundle.jwt_keys)
