"""What goes with an agent's next request, and what does the answer to it ask for?

One session keeps one access token in memory, for one audience, and renews it before it ends: with the client
attestation that it has, or, where that is getting old or is taken no more, by attesting anew. It may be used
by several threads and clients at once.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from attestd.addresses import is_loopback
from attestd.agent.errors import Misconfigured, Refusal, Unreachable
from attestd.agent.machine import Machine
from attestd.agent.proofs import nonce_of
from attestd.agent.token import AccessToken, Asked, ClientAttestation, attest_client, request_token
from attestd.agent.transport import good_nonce
from attestd.clock import now_ms
from tpm.errors import DeviceError

RENEW_AFTER = 0.8
"""Of a token's or an attestation's life; the rest is for trying again where the service does not answer."""
LEAST_AGE_MS = 5000
"""A token that a resource does not take is not replaced before this: otherwise a resource that takes none
would have the machine attest at every call."""
ORIGINS = 64
"""Resources whose last nonce is remembered."""

_SLOW_DOWN = 429
_SCHEME = re.compile(r'\bDPoP\s(?:[^"]|"[^"]*")*?\berror="([a-z_]+)"', re.IGNORECASE)
_ENDED = frozenset({"invalid_client", "invalid_grant", "use_fresh_attestation", "invalid_client_attestation"})

Headers = dict[str, str]


class AgentSession:
    """The agent's side of one audience. Nothing of it is written anywhere."""

    def __init__(
        self,
        machine: Machine,
        asked: Asked,
        *,
        subject_token: Callable[[], str] | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`subject_token` gives the user's token where it changes while the session lasts; else the one in
        `asked` is used. `clock` in milliseconds."""
        self._machine, self._asked = machine, asked
        self._subject_token, self._clock = subject_token, clock
        self._renewing = threading.Lock()
        self._attestation: tuple[ClientAttestation, int] | None = None
        self._token: AccessToken | None = None
        self._nonces: OrderedDict[str, str] = OrderedDict()
        self._nonces_change = threading.Lock()

    def headers(self, method: str, url: str) -> Headers:
        """Token and proof for one request. Refusal, Unreachable or DeviceError where there is no token to be
        had; Misconfigured for an address that a token must not travel to."""
        origin = _origin(url)
        return self.token().headers(method, url, now=self._clock(), nonce=self._nonces.get(origin))

    def again(
        self,
        method: str,
        url: str,
        *,
        sent: Mapping[str, str],
        answered: tuple[str, int],
        told: Mapping[str, str],
    ) -> Headers | None:
        """What the same request should be sent with once more, or None. `url` is the address for which it was
        proven, `sent` the headers that it had; `answered` the address and status of the answer, `told` its
        headers. Names of headers are of any case."""
        sent, told = _by_lower_name(sent), _by_lower_name(told)
        if answered[0] != url or not {"authorization", "dpop"} <= sent.keys():
            # It is from the end of a redirect: the proof was not for there, and the token not for whoever
            # that is.
            return None
        nonce = good_nonce(told.get("dpop-nonce"))
        if nonce is not None:
            self._note_nonce(_origin(url), nonce)
        found = _SCHEME.search(told.get("www-authenticate", "")) if answered[1] == 401 else None
        match found[1].lower() if found else None:
            case "use_dpop_nonce" if nonce not in (None, nonce_of(sent["dpop"])):
                return self.headers(method, url)
            case "invalid_token" if self._drop(sent["authorization"]):
                return self.headers(method, url)
        return None

    def token(self) -> AccessToken:
        """The token that is good now; errors as for `headers`."""
        with self._renewing:
            kept, now = self._token, self._clock()
            if kept is not None and now < _renewal(kept):
                return kept
            try:
                self._token = self._renewed(now)
            except (Unreachable, DeviceError, Refusal) as error:
                if isinstance(error, Refusal) and error.status != _SLOW_DOWN:
                    self._token = self._attestation = None
                    raise
                # While the old one lasts there is time to try again.
                if kept is None or now >= kept.got_at + kept.expires_in * 1000:
                    raise
                return kept
            return self._token

    def _renewed(self, now: int) -> AccessToken:
        held = self._attestation
        if held is not None and now < held[1] + RENEW_AFTER * (held[0].expires_at - held[1]):
            try:
                return request_token(self._machine.server, held[0], self._wish(), now=self._clock())
            except Refusal as refusal:
                if refusal.error not in _ENDED:
                    raise
                # The machine has booted since, or is judged otherwise: it says anew how it is.
        attestation = attest_client(self._machine, self._asked.agent)
        self._attestation = (attestation, now)
        return request_token(self._machine.server, attestation, self._wish(), now=self._clock())

    def _wish(self) -> Asked:
        if self._subject_token is None:
            return self._asked
        asked = self._asked
        return Asked(asked.agent, asked.audience, asked.scopes, self._subject_token())

    def _drop(self, sent: str) -> bool:
        """Is the token that was sent done with, so that a new one is worth a try?"""
        with self._renewing:
            kept = self._token
            if kept is None or sent != f"DPoP {kept.text}":
                return True  # Another thread has seen to it.
            if self._clock() < kept.got_at + LEAST_AGE_MS:
                return False
            # What it rested on is gone: a machine that is as it was gets a new one by attesting.
            self._token = self._attestation = None
            return True

    def _note_nonce(self, origin: str, nonce: str) -> None:
        """For the next proof, of whichever thread."""
        with self._nonces_change:
            self._nonces[origin] = nonce
            self._nonces.move_to_end(origin)
            while len(self._nonces) > ORIGINS:
                self._nonces.popitem(last=False)


def _by_lower_name(headers: Mapping[str, str]) -> Headers:
    return {name.lower(): value for name, value in headers.items()}


def _renewal(token: AccessToken) -> float:
    return token.got_at + RENEW_AFTER * token.expires_in * 1000


def _origin(url: str) -> str:
    """Scheme, host and port. Misconfigured unless what is sent there stays between us and the resource."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Misconfigured(f"{url} is no URL") from None
    if parts.scheme not in ("http", "https") or (parts.scheme == "http" and not is_loopback(host)):
        raise Misconfigured(f"{url}: a token travels by https alone, or within this machine")
    return f"{parts.scheme}://{host}:{port or (443 if parts.scheme == 'https' else 80)}"
