"""Where does what is served on the socket come from?

From whoever keeps this machine's credentials. What is asked of it here is no more than this.
"""

from typing import Protocol

from attestd.agent.holdings import Holdings, JwtSvid
from attestd.agent.token import AccessToken, Asked


class Source(Protocol):
    """Each call may raise Refusal, Unreachable, DeviceError or Misconfigured."""

    @property
    def holdings(self) -> Holdings:
        """The present picture."""

    async def changed(self, seen: Holdings) -> Holdings:
        """The present picture as soon as it is another one than `seen`."""

    async def jwt_svid(self, agent: str, audiences: tuple[str, ...]) -> JwtSvid:
        """A token for exactly these audiences."""

    async def access_token(self, asked: Asked) -> AccessToken:
        """A token bound to a key in the TPM."""

    async def proof(self, agent: str, access_token: str, method: str, url: str, nonce: str | None) -> str:
        """The DPoP proof for one request with such a token."""
