"""How did this machine boot, and what does it get for it? One attestation, from bytes to credentials.

    claim   1  well formed: request, quote, keys                         structures              400
    prove   2  nonce ours, AK's signature, extraData = SHA-256(request)  verify → VerifiedQuote  403
    logs    3  not expired, not too fast; logs readable, known if named  eventlog                409, 429, 400
    intent  4  nonce spent and intent recorded                           store, one transaction  409
            5  banned, pending, root withdrawn?                                                  403
    judge   6  registers, certified keys, logs replayed → facts          verify, eventlog, ima   403
            7  newer than what was judged before; policy                 policy → findings       409, 403
    grant   8  entitled to all that was asked                                                    403
    mint    9  credentials and sealed keys                               issue, seal
    outcome 10 issue and audit recorded, if all is still as judged       store, one transaction  409
"""

from typing import Any

from attestd.clock import rfc3339
from attestd.grant import entitle
from attestd.policy.challenge import challenge_selection, wants_logs
from attestd.protocol import AttestationBody, ChallengeBody
from attestd.round.case import Case
from attestd.round.claim import read_claim
from attestd.round.intent import open_case
from attestd.round.judge import Judgement, judge
from attestd.round.kept_logs import known_event_log
from attestd.round.logs import read_logs
from attestd.round.mint import Minted, mint
from attestd.round.outcome import issue_case, refuse_case
from attestd.round.prove import check_fresh, prove
from attestd.service import Service
from attestd.wire import Problem, b64encode


def challenge(service: Service, body: ChallengeBody, *, now: int, request_id: str) -> dict[str, Any]:
    """Answer 201: a nonce for this device and the registers to quote. Writes nothing; the same for who exists
    and who does not."""
    policies = service.store.read(service.policies.active)
    event_log, ima_log = wants_logs(policies.documents)
    return {
        "nonce": b64encode(service.nonces.issue(body.device_id, now=now)),
        "expires_at": rfc3339(now + service.config.limits.nonce_ttl * 1000),
        "pcr_selection": [
            {"bank": bank, "pcrs": list(registers)}
            for bank, registers in challenge_selection(policies.documents)
        ],
        "event_log": event_log,
        "ima_log": ima_log,
    }


def attest(service: Service, body: AttestationBody, *, now: int, request_id: str) -> dict[str, Any]:
    """Answer 200: the attestation result and everything that was asked for; or a Problem, and nothing."""
    claim = read_claim(body)  # 1
    proven = prove(service, claim)  # 2
    check_fresh(service, proven, now=now)  # 3
    logs = read_logs(service, claim, proven)  # 3
    case = open_case(service, claim, proven, logs, now=now, request_id=request_id)  # 4, 5
    judgement: Judgement | None = None
    try:
        judgement = judge(case, service.logs, now=now)  # 6
        judgement.require_acceptance()  # 7
        entitlement = entitle(  # 8
            judgement.policy.document,
            claim,
            case.device,
            keys=judgement.keys,
            trust_domain=service.config.trust_domain,
            ours=service.keyring.at(now),
        )
        minted = mint(service, case, judgement, entitlement, now=now)  # 9
    except Problem as problem:
        refuse_case(service, case, judgement, problem, now=now)
        raise
    versions = issue_case(service, case, judgement, minted, now=now)  # 10
    return _answer(case, judgement, minted, versions)


def _answer(case: Case, judgement: Judgement, minted: Minted, versions: tuple[int, ...]) -> dict[str, Any]:
    policy = judgement.policy
    return {
        "attestation_id": case.attestation_id,
        "verdict": "accepted",
        "policy": {"name": policy.document.name, "version": policy.version, "digest": policy.document.digest},
        "result": minted.result,
        "credentials": [credential.told() for credential in minted.credentials],
        "sealed_keys": [
            sealed.told(version) for sealed, version in zip(minted.sealed_keys, versions, strict=True)
        ],
        "renew_after": rfc3339(minted.renew_after),
        "known_event_log": known_event_log(case.logs),
        "ima_next": None if judgement.ima is None else judgement.ima.mark.count,
    }
