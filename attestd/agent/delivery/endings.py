"""Until when may each delivered file lie there?

Told by the content itself, so that it holds also for what an agent before this one wrote. A key ends with
the last of what is bound to it; what comes beside the credentials (result, bundle) with the last of them; a
sealed key never.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography import x509

from attestd.agent.workload.readings import token_ends

BESIDE = ("result.jwt", "bundle.pem")
"""What is delivered beside the credentials of an agent, and is not named after it."""
SEALED = ".seal.json"

_TOKENS = ("wit.jwt", "attestation.jwt", "jwt")
_BOUND = ("svid.pem", "wit.jwt", "attestation.jwt")
_KEYS = ("key.pem", "key.tss", "wit.key.json")
OF_AGENT = ("svid.pem", *_TOKENS, *_KEYS)
"""How the names of an agent's files end, after its own name and a dot."""


def names_of(agent: str) -> frozenset[str]:
    """Every name under which something of this agent is ever delivered, but for sealed keys."""
    return frozenset({*BESIDE, *(f"{agent}.{suffix}" for suffix in OF_AGENT)})


def live(agent: str, files: Mapping[str, bytes], *, now: int) -> dict[str, bytes]:
    """Those of them that may be there now (milliseconds)."""
    ends = endings(agent, files)
    return {name: content for name, content in files.items() if (end := ends[name]) is None or end > now}


def endings(agent: str, files: Mapping[str, bytes]) -> dict[str, int | None]:
    """By name, in milliseconds; None for what stays. What cannot be read has ended long ago."""
    told = {name: name.removeprefix(f"{agent}.") for name in files}
    ends: dict[str, int | None] = {}
    for name, suffix in told.items():
        if suffix == "svid.pem" or (suffix in _TOKENS and name not in BESIDE):
            ends[name] = _end_of(suffix, files[name])
    last = max((end for end in ends.values() if end is not None), default=0)
    bound = max((ends[name] or 0 for name in ends if told[name] in _BOUND), default=0)
    for name, suffix in told.items():
        if name.endswith(SEALED):
            ends[name] = None
        elif name not in ends:
            ends[name] = bound if suffix in _KEYS else last
    return ends


def _end_of(suffix: str, content: bytes) -> int:
    """Whatever makes it unreadable: the file's owner may have written it, and must not end the agent."""
    try:
        if suffix == "svid.pem":
            leaf = x509.load_pem_x509_certificate(content)
            return int(leaf.not_valid_after_utc.timestamp()) * 1000
        return token_ends(content.decode("ascii").strip())
    except Exception:
        return 0
