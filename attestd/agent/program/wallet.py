"""What has a program been given by this machine's agent, and in which files does it find it?

Names of files are all that its environment tells. A credential's files are there as long as it may be used.
"""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from attestd.agent.workload.client import JwtGiven, WitGiven, X509Given

STEM = "credentials"
"""How the names of generations begin; `credentials.current` leads to the files of one round."""
VARIABLES = {
    "ATTESTD_SVID_FILE": "svid.pem",
    "ATTESTD_KEY_FILE": "key.pem",
    "ATTESTD_BUNDLE_FILE": "bundle.pem",
    "ATTESTD_WIT_FILE": "wit.jwt",
    "ATTESTD_WIT_KEY_FILE": "wit.key.json",
    "ATTESTD_JWT_FILE": "svid.jwt",
}
"""By the variable of the environment, the file that it names."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """The latest of each kind."""

    x509: X509Given | None = None
    wit: WitGiven | None = None
    jwt: JwtGiven | None = None

    @property
    def spiffe_id(self) -> str:
        """Whose they are; empty while there are none."""
        return next((each.spiffe_id for each in (self.x509, self.wit, self.jwt) if each is not None), "")

    def having(self, given: X509Given | WitGiven | JwtGiven) -> Wallet:
        """With this instead of what there was of its kind."""
        match given:
            case X509Given():
                return replace(self, x509=given)
            case WitGiven():
                return replace(self, wit=given)
            case JwtGiven():
                return replace(self, jwt=given)

    def files(self, now: int) -> dict[str, bytes]:
        """The contents by name, of what may be used now (milliseconds)."""
        found: dict[str, bytes] = {}
        if self.x509 is not None and self.x509.expires_at > now:
            found["svid.pem"] = b"".join(_pem("CERTIFICATE", each) for each in self.x509.chain)
            found["key.pem"] = _pem("PRIVATE KEY", self.x509.key)
            found["bundle.pem"] = b"".join(_pem("CERTIFICATE", each) for each in self.x509.authorities)
        if self.wit is not None and self.wit.expires_at > now:
            found["wit.jwt"] = self.wit.text.encode() + b"\n"
            found["wit.key.json"] = self.wit.key.encode() + b"\n"
        if self.jwt is not None and self.jwt.expires_at > now:
            found["svid.jwt"] = self.jwt.text.encode() + b"\n"
        return found

    def due(self, now: int) -> int | None:
        """When the next of them ends (milliseconds)."""
        ends = [each.expires_at for each in (self.x509, self.wit, self.jwt) if each is not None]
        return min((end for end in ends if end > now), default=None)

    def environment(self, folder: Path, socket: Path, now: int) -> Mapping[str, str]:
        """What the program is told, beside what its caller told it."""
        files = self.files(now)
        named = {variable: str(folder / name) for variable, name in VARIABLES.items() if name in files}
        return {
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{quote(str(socket))}",
            "ATTESTD_SPIFFE_ID": self.spiffe_id,
            "ATTESTD_CREDENTIALS": str(folder / f"{STEM}.current"),
            **named,
        }


def _pem(label: str, der: bytes) -> bytes:
    """RFC 7468, in lines of 64 characters."""
    text = encodebytes(der).replace(b"\n", b"")
    lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())
