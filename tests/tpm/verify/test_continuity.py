"""Is what happened since the last belief told rightly?"""

from typing import Any

import pytest

from tests.tpm import forge
from tests.tpm.machine import machine, values_of
from tpm.verify.continuity import Baseline, Boot, Continuity, boot_of, judge_continuity
from tpm.verify.quote import VerifiedQuote, verify_quote

FIRMWARE = 0x2019102300163636
BASELINE = Baseline(
    reset_count=7, restart_count=3, clock=250_000, firmware_version=FIRMWARE, boot_id="boot-a", safe=True
)


def quoted(resets: int, restarts: int, clock: int, safe: int = 1) -> VerifiedQuote:
    sender = machine()
    quote, signature = sender.quote(
        (("sha256", (7,)),), values_of("sha256", (7,)), clock=(clock, resets, restarts, safe)
    )
    return verify_quote(
        quote, signature, ak=sender.ak, expected_extra_data=forge.NONCE, expected_signers=sender.signers
    )


CASES: dict[str, tuple[tuple[int, int, int], str]] = {
    "the same boot, later": ((7, 3, 250_001), "same_boot"),
    "the same boot, in the same millisecond": ((7, 3, 250_000), "same_boot"),
    "the same boot, one millisecond earlier": ((7, 3, 249_999), "stale"),
    "the same boot, at the clock's start": ((7, 3, 0), "stale"),
    "a restart": ((7, 4, 250_500), "restart"),
    "many restarts": ((7, 2**32 - 1, 250_500), "restart"),
    "a restart back": ((7, 2, 250_500), "stale"),
    "a restart back, whatever the clock": ((7, 0, 2**64 - 1), "stale"),
    "a reset": ((8, 0, 250_500), "reset"),
    "a reset with as many restarts": ((8, 3, 250_500), "reset"),
    "many resets": ((2**32 - 1, 0, 250_500), "reset"),
    "a reset back": ((6, 3, 250_500), "rollback"),
    "a cleared TPM": ((0, 0, 100), "rollback"),
    "a reset back, all else ahead": ((6, 9, 2**64 - 1), "rollback"),
}


@pytest.mark.parametrize("case", CASES)
def test_counters_tell_what_happened(case: str) -> None:
    counters, kind = CASES[case]
    assert judge_continuity(BASELINE, quoted(*counters), "boot-b").kind == kind


@pytest.mark.parametrize("counters", [(8, 0, 250_500), (7, 4, 250_500)])
def test_only_a_new_boot_id_explains_a_new_boot(counters: tuple[int, int, int]) -> None:
    quote = quoted(*counters)
    assert judge_continuity(BASELINE, quote, "boot-b").explained
    assert not judge_continuity(BASELINE, quote, "boot-a").explained
    assert not judge_continuity(BASELINE, quote, None).explained


def test_a_first_boot_id_explains_as_a_new_one_does() -> None:
    silent = Baseline(**{name: getattr(BASELINE, name) for name in Baseline.__slots__} | {"boot_id": None})
    assert judge_continuity(silent, quoted(8, 0, 300_000), "boot-a") == Continuity("reset", True)
    assert judge_continuity(silent, quoted(8, 0, 300_000), None) == Continuity("reset", False)


@pytest.mark.parametrize("boot_id", [None, "boot-a", "boot-b"])
@pytest.mark.parametrize(
    "case", [name for name, (_, kind) in CASES.items() if kind not in ("restart", "reset")]
)
def test_nothing_else_needs_an_explanation(case: str, boot_id: str | None) -> None:
    counters, kind = CASES[case]
    assert judge_continuity(BASELINE, quoted(*counters), boot_id) == Continuity(kind, True)  # type: ignore[arg-type]


@pytest.mark.parametrize("counters", [(0, 0, 0), (7, 3, 250_000), (2**32 - 1, 2**32 - 1, 2**64 - 1)])
def test_a_machine_without_a_past_is_the_first_time(counters: Any) -> None:
    assert judge_continuity(None, quoted(*counters), None) == Continuity("first", True)


def test_an_unsafe_clock_is_recorded_and_not_judged() -> None:
    quote = quoted(7, 3, 250_001, safe=0)
    assert quote.quote.clock.safe is False
    assert judge_continuity(BASELINE, quote, None).kind == "same_boot"


def test_a_boot_is_named_by_both_counters() -> None:
    assert boot_of(quoted(7, 3, 1)) == Boot(7, 3) == boot_of(quoted(7, 3, 2))
    assert boot_of(quoted(7, 4, 1)) != Boot(7, 3) != boot_of(quoted(8, 3, 1))
