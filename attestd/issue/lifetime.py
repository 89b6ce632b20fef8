"""How long may this credential live?

One rule for every format: no longer than the policy's time to live, than the posture it rests on, and than
its issuer.
"""

from tpm.errors import PolicyError

LONGEST_TTL = 7 * 24 * 3600
"""Seconds. These are short-lived credentials: whatever a policy says, none outlives a week."""

_SECOND = 1000


def expiry(*, now: int, ttl: int, posture_until: int | None = None, issuer_until: int | None = None) -> int:
    """When the credential ends, in milliseconds since the epoch and on a whole second (all formats count in
    seconds).

    `ttl` is the policy's, in seconds. `posture_until` and `issuer_until` (milliseconds) are the ends of the
    posture's validity and of the issuer's certificate; None where there is no such end. PolicyError `ttl`
    for a time to live that is none, `posture_expired` or `issuer_expired` when nothing would be left to
    live.
    """
    if ttl.__class__ is not int or ttl <= 0:
        raise PolicyError("ttl", f"a time to live is a positive whole number of seconds, not {ttl!r}")
    end = now + min(ttl, LONGEST_TTL) * _SECOND
    for limit, reason in ((posture_until, "posture_expired"), (issuer_until, "issuer_expired")):
        if limit is None:
            continue
        if limit < now + _SECOND:
            raise PolicyError(reason, f"nothing can be issued: what it would rest on ended at {limit} ms")
        end = min(end, limit)
    return end - end % _SECOND
