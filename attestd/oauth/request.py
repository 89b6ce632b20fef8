"""What does one request to the authorization server carry?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from attestd.oauth.errors import OAuthError


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it came in: nothing in it is believed yet."""

    url: str
    """The configured external URL (or the mTLS listener's) with the path: what `htu` and `aud` are compared
    with. Never made of `Host` or a forwarding header."""
    method: str
    parameters: Mapping[str, tuple[str, ...]]
    """Of the form, decoded, in the order given."""
    headers: Mapping[str, str]
    """By lower-case name. A field that came more than once is joined by commas, as WSGI does."""
    now: int
    """Milliseconds since the epoch."""
    request_id: str
    source: str
    certificate: bytes | None = field(default=None, repr=False)
    """DER of the TLS peer's certificate, from the socket of the mTLS listener and from nowhere else: no
    header ever gives one."""

    def one(self, name: str) -> str | None:
        """A parameter that may be given once; one without a value counts as left out (RFC 6749, section
        3.2). OAuthError `invalid_request` when it is given twice."""
        values = self.parameters.get(name, ())
        if len(values) > 1:
            raise OAuthError("invalid_request", f"{name} is given more than once.", cause="parameter_twice")
        return values[0] or None if values else None

    def many(self, name: str) -> tuple[str, ...]:
        """A parameter that may be repeated (`resource`, `audience`), without empty values."""
        return tuple(value for value in self.parameters.get(name, ()) if value)

    def header(self, name: str, *, error: str = "invalid_request") -> str | None:
        """A header that may come once and whose value has no comma (every token and proof is such a one);
        None when it is not there. OAuthError `error` when it came twice, or empty."""
        value = self.headers.get(name)
        if value is None:
            return None
        value = value.strip(" \t")
        if not value or "," in value:
            raise OAuthError(error, f"The header {name} has exactly one value.", cause="header_twice")
        return value
