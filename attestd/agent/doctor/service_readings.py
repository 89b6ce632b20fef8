"""What does the service say of itself, to a machine that trusts it as the operator said?

One published document is fetched, and nothing is kept: also a certificate that is known by its fingerprint
is taken for this one look.
"""

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attestd.addresses import url_fault
from attestd.agent.doctor.check import Unread, made
from attestd.agent.errors import Misconfigured, plain
from attestd.agent.pin import NotShown, fetch_certificate, fingerprint, read_authorities
from attestd.agent.settings import Settings
from attestd.agent.state import State
from attestd.agent.transport import ANSWER_LIMIT, BoundedConnection, reached, trusting

PATH = "/.well-known/openid-configuration"
PATIENCE_SECONDS = 10.0
# OpenSSL's X509_V_ERR_…
_CERTIFICATE_FAULTS = {9: "not_yet_valid", 10: "expired", 62: "another_name", 64: "another_name"}


@dataclass(frozen=True, slots=True)
class Answer:
    """`members` are None for what is no JSON object; `date` is what the server's Date header says, None
    without one. `asked_at` and `answered_at` are this machine's time around it. Milliseconds."""

    url: str
    status: int
    members: Mapping[str, Any] | None
    date: int | None
    asked_at: int
    answered_at: int


def read_service(
    url: str, settings: Settings, *, now: Callable[[], int], patience: float = PATIENCE_SECONDS
) -> Answer | Unread:
    """What is published at this URL. Unread "no_answer", "misconfigured", "untrusted", "not_yet_valid",
    "expired", "another_name", "not_shown"."""
    try:
        return _fetch(url, settings, now, patience)
    except ssl.SSLCertVerificationError as error:
        return Unread(_CERTIFICATE_FAULTS.get(error.verify_code, "untrusted"), plain(error.verify_message))
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        return Unread("no_answer", plain(error) or type(error).__name__)
    except NotShown as error:
        # Whole: these are fingerprints, to be compared.
        return Unread("not_shown", error.found)
    except Exception as error:
        return _told(error)


def _told(error: Exception) -> Unread:
    def again() -> None:
        raise error

    return made(again) or Unread("internal", plain(error))


def _fetch(url: str, settings: Settings, now: Callable[[], int], patience: float) -> Answer:
    if (fault := url_fault(url)) is not None:
        raise Misconfigured(f"{url}: {fault}")
    parts = urlsplit(url)
    context = _trusting(url, settings) if parts.scheme == "https" else None
    with reached(url, context, patience=patience) as connected:
        connection = BoundedConnection(parts.hostname or "", parts.port, context)
        connection.sock = connected
        asked_at = now()
        connection.request("GET", parts.path + PATH, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        answered_at = now()
        raw = answer.read(ANSWER_LIMIT)
    date = _milliseconds(answer.headers.get("Date"))
    return Answer(url, answer.status, _members(raw), date, asked_at, answered_at)


def _trusting(url: str, settings: Settings) -> ssl.SSLContext:
    """As the agent trusts: the file, or the certificate of the fingerprint, or what was kept, or the
    system's authorities. Misconfigured, Unreachable."""
    pem, kept = None, _kept(settings.state)
    if settings.ca is not None:
        pem = read_authorities(settings.ca)
    elif kept is not None:
        pem = read_authorities(kept)
    if settings.root_sha256 is not None and (pem is None or fingerprint(pem) != settings.root_sha256):
        pem = fetch_certificate(url, settings.root_sha256)
    return trusting(pem=None if pem is None else pem.decode("ascii"))


def _kept(state: Path) -> Path | None:
    try:
        return State(state).ca()
    except PermissionError:
        raise Misconfigured(f"{state} may not be read, where it is kept whom to trust") from None


def _members(raw: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _milliseconds(date: str | None) -> int | None:
    with suppress(ValueError, TypeError, OverflowError):
        if date is not None:
            return int(parsedate_to_datetime(date).timestamp()) * 1000
    return None
