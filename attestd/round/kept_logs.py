"""What of the logs is remembered, so that the next round of this boot costs less?"""

from attestd.round.case import Case
from attestd.round.judge import Judgement
from attestd.round.logs import Logs
from attestd.store import device_logs
from attestd.store.device_logs import MAX_KEPT, ImaMark
from attestd.store.engine import Transaction


def known_event_log(logs: Logs) -> str | None:
    """The digest by which the device may name its log from now on, if it is kept."""
    if logs.boot is None or (logs.boot.raw is not None and len(logs.boot.raw) > MAX_KEPT):
        return None
    return logs.boot.digest


def keep_logs(tx: Transaction, case: Case, judgement: Judgement, *, now: int) -> None:
    """With an accepted attestation: its log, if it is another than before, and how far its list goes."""
    device_id, boot, ima = case.device.device_id, case.logs.boot, judgement.ima
    whole = None if boot is None or known_event_log(case.logs) is None else boot.raw
    if boot is not None and whole is not None and device_logs.log_digest(tx, device_id) != boot.digest:
        device_logs.keep_log(tx, device_id, sha256=boot.digest, content=whole, now=now)
    if ima is not None and judgement.pcrs is not None:
        clock = case.proven.quote.quote.clock
        mark = ImaMark(
            reset_count=clock.reset_count,
            restart_count=clock.restart_count,
            bank=judgement.pcrs.bank,
            entries=ima.mark.count,
            value=ima.mark.value.hex(),
            padded=ima.mark.padded,
            policy_digest=judgement.policy.document.digest,
        )
        device_logs.keep_ima_mark(tx, device_id, mark, now)
