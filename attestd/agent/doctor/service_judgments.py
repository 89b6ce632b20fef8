"""Is the service there, is it the one that is meant, and do its clock and this one agree?"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from attestd.agent.doctor.check import Check, Unread
from attestd.agent.doctor.service_readings import Answer
from attestd.agent.errors import plain
from attestd.agent.pin import NOT_SHOWN_FIX
from attestd.clock import rfc3339

SKEW_MS = 5000
"""What the service lets pass of what this machine signs."""
_SANE = (1_735_689_600_000, 4_102_444_800_000)
"""2025 to 2100: a clock without a battery starts in 1970, or when its firmware was made."""

_CERTIFICATE = {
    "not_yet_valid": ("its certificate is not valid yet", "see clock; else the service's own clock is wrong"),
    "expired": ("its certificate has expired", "see clock; else renew the service's certificate"),
    "another_name": ("its certificate is for another name", "name the service as its external_url does"),
    "untrusted": ("its certificate is not trusted", "name its CA with --ca FILE or --root-sha256 HEX"),
}


def judge_service(url: str | None, answer: Answer | Unread | None) -> Iterator[Check]:
    """Reached, over a connection that is trusted; attestd, under this very URL."""
    if url is None or answer is None:
        fix = "name it with --server URL, or run `attestd agent join URL`"
        yield Check("server", "warn", "none is known", fix)
        return
    if isinstance(answer, Unread):
        said, fix = _unreached(answer)
        yield Check("server", "fail", said if url in said else f"{url}: {said}", fix)
        return
    secure = urlsplit(url).scheme == "https"
    yield Check(
        "server", "ok", f"{url} answers" + (", over TLS that is trusted" if secure else " on this machine")
    )
    yield _identity(url, answer)


def _unreached(answer: Unread) -> tuple[str, str]:
    if answer.code in _CERTIFICATE:
        said, fix = _CERTIFICATE[answer.code]
        return f"{said}: {plain(answer.why)}", fix
    if answer.code == "not_shown":
        return answer.why, NOT_SHOWN_FIX
    if answer.code == "misconfigured":
        return plain(answer.why), "correct it, or run as root or as the agent"
    return (
        f"does not answer: {plain(answer.why)}",
        "is the address right, the network up, the service running?",
    )


def _identity(url: str, answer: Answer) -> Check:
    name, members = "service", answer.members or {}
    issuer = members.get("issuer")
    if 300 <= answer.status < 400:
        return Check(
            name, "fail", "it answers with a redirect, which is not followed", "name its own address"
        )
    if answer.status >= 500:
        return Check(name, "fail", f"it answers {answer.status}", "look at the service: attestd doctor")
    if answer.status != 200 or not isinstance(issuer, str) or "challenge_endpoint" not in members:
        said = f"what answers {answer.status} there is not attestd"
        return Check(name, "fail", said, "correct the URL, or the proxy before the service")
    if issuer != url:
        said = f"it calls itself {plain(issuer)}, not {url}"
        return Check(name, "fail", said, "name it so: devices and service compare it letter by letter")
    return Check(name, "ok", f"attestd, as {url}")


def judge_clock(now: int, answer: Answer | Unread | None) -> Iterator[Check]:
    """Is the year one that can be, and is the time the service's? `now` in milliseconds."""
    name, said = "clock", rfc3339(now)
    if not _SANE[0] <= now < _SANE[1]:
        fix = "set the clock, and have it kept: timedatectl set-ntp true"
        yield Check(name, "fail", f"{said} cannot be", fix)
        return
    if not isinstance(answer, Answer) or answer.date is None:
        yield Check(name, "ok", f"{said}; no server to compare it with")
        return
    off = skew(answer)
    if abs(off) > SKEW_MS:
        word = "ahead of" if off > 0 else "behind"
        fix = "have both keep the time: timedatectl set-ntp true"
        yield Check(name, "fail", f"{said}, {abs(off) / 1000:.0f} s {word} the service's", fix)
    else:
        yield Check(name, "ok", f"{said}, as the service's within {SKEW_MS // 1000} s")


def skew(answer: Answer) -> int:
    """How far this clock is ahead of the service's, at least, in milliseconds; negative if behind. The header
    has whole seconds, and was written some time between question and answer."""
    date = answer.date or 0
    if answer.asked_at > date + 999:
        return answer.asked_at - (date + 999)
    return min(0, answer.answered_at - date)
