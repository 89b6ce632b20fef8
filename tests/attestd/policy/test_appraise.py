"""The verdict is "accepted" only when every demanded check ran and none objected; each objection is named."""

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.policy import appraise as module
from attestd.policy.appraise import Appraisal, Evidence, appraise, missing_registers, required_checks
from attestd.policy.document import Policy
from attestd.policy.findings import Finding, disclosed, from_wire, to_wire
from tests.attestd.policy.documents import GOOD_0, GOOD_7, HEALTHY, OTHER_7, changed, load
from tpm.verify.continuity import Continuity, Kind
from tpm.verify.pcrs import VerifiedPcrs

GOOD = {0: GOOD_0, 7: GOOD_7, 9: "99" * 32}
EVIL = "ee" * 32
ZERO = "00" * 32
ONES = "ff" * 32
SAME = Continuity("same_boot", True)
POLICY = load(HEALTHY)


def judge(
    values: dict[int, str],
    *,
    policy: Policy = POLICY,
    bank: str = "sha256",
    continuity: Continuity = SAME,
    boot_id: str | None = "b",
) -> Appraisal:
    raw = {register: bytes.fromhex(value) for register, value in values.items()}
    pcrs = VerifiedPcrs(bank, MappingProxyType(raw))
    return appraise(policy, Evidence(pcrs=pcrs, continuity=continuity, boot_id=boot_id, now=0))


def test_a_machine_that_matches_is_accepted_and_every_check_is_named() -> None:
    appraisal = judge(GOOD)
    assert appraisal == Appraisal("accepted", (), ("bank", "pcr0", "pcr7", "clock", "reset"))
    assert appraisal.checks == required_checks(POLICY)


def test_any_one_of_the_listed_values_is_good_and_other_registers_are_not_judged() -> None:
    assert judge(GOOD | {7: OTHER_7}).verdict == "accepted"
    assert judge(GOOD | {9: EVIL, 12: EVIL, 23: ZERO}).verdict == "accepted"


PCR7 = (GOOD_7, OTHER_7)
REGISTERS = [
    (GOOD | {0: EVIL}, [Finding("pcr_unexpected", "pcr0", (GOOD_0,), EVIL)]),
    (GOOD | {7: GOOD_0}, [Finding("pcr_unexpected", "pcr7", PCR7, GOOD_0)]),
    (GOOD | {7: ZERO}, [Finding("pcr_unmeasured", "pcr7", PCR7, ZERO)]),
    (GOOD | {7: ONES}, [Finding("pcr_unmeasured", "pcr7", PCR7, ONES)]),
    ({0: GOOD_0, 9: EVIL}, [Finding("pcr_missing", "pcr7", PCR7, None)]),
    ({0: GOOD_0, 7: GOOD_7}, [Finding("pcr_missing", "pcr9", (), None)]),
    (
        {7: EVIL, 0: ZERO},
        [
            Finding("pcr_missing", "pcr9", (), None),
            Finding("pcr_unmeasured", "pcr0", (GOOD_0,), ZERO),
            Finding("pcr_unexpected", "pcr7", PCR7, EVIL),
        ],
    ),
]


@pytest.mark.parametrize(("values", "findings"), REGISTERS)
def test_a_register_that_differs_is_refused_and_named_with_expected_and_found(
    values: dict[int, str], findings: list[Finding]
) -> None:
    appraisal = judge(values)
    assert appraisal.verdict == "refused"
    assert list(appraisal.findings) == findings
    assert judge(GOOD).verdict == "accepted"


@pytest.mark.parametrize("value", [ZERO, ONES])
def test_pc_7_an_unmeasured_register_is_refused_unless_the_policy_lists_and_allows_it(value: str) -> None:
    allowing = load("allow_unmeasured = [0]\n" + changed(f"sha256:{GOOD_0}", f"sha256:{value}"))
    assert [finding.code for finding in judge(GOOD | {0: value}).findings] == ["pcr_unmeasured"]
    assert judge(GOOD | {0: value}, policy=allowing).verdict == "accepted"
    allowed_not_listed = load("allow_unmeasured = [0]\n" + HEALTHY)
    codes = [finding.code for finding in judge(GOOD | {0: value}, policy=allowed_not_listed).findings]
    assert codes == ["pcr_unexpected"]


def test_pc_7_a_fresh_software_tpm_matches_no_policy_that_does_not_say_so() -> None:
    fresh = {register: ONES if 17 <= register <= 22 else ZERO for register in range(24)}
    appraisal = judge(fresh)
    assert appraisal.verdict == "refused"
    assert {finding.code for finding in appraisal.findings} == {"pcr_unmeasured"}


def test_another_bank_is_named_and_none_of_its_registers_is_judged() -> None:
    appraisal = judge({0: GOOD_0, 7: GOOD_7, 9: EVIL}, bank="sha384")
    assert appraisal.verdict == "refused"
    assert appraisal.findings == (Finding("bank_missing", "sha256", ("sha256",), "sha384"),)
    assert appraisal.checks == ("bank", "clock", "reset")


def test_missing_registers_are_those_of_the_policy_and_its_seals() -> None:
    def missing(bank: str, *registers: int) -> list[tuple[str, str]]:
        pcrs = VerifiedPcrs(bank, MappingProxyType(dict.fromkeys(registers, b"\x01" * 32)))
        return [(finding.code, finding.subject) for finding in missing_registers(POLICY, pcrs)]

    assert missing("sha256", 0, 7, 9) == []
    assert missing("sha256", 0, 1, 7, 9, 23) == []
    assert missing("sha256", 1) == [("pcr_missing", "pcr0"), ("pcr_missing", "pcr7"), ("pcr_missing", "pcr9")]
    assert missing("sha512", 0, 7, 9) == [("bank_missing", "sha256")]


CLOCK = [
    ("first", True, "reject", []),
    ("same_boot", True, "reject", []),
    ("restart", True, "reject", []),
    ("reset", True, "reject", []),
    ("restart", False, "reject", ["reset_unexplained"]),
    ("reset", False, "reject", ["reset_unexplained"]),
    ("restart", False, "accept", []),
    ("reset", False, "accept", []),
    ("rollback", True, "reject", ["clock_rollback"]),
    ("rollback", True, "accept", ["clock_rollback"]),
    ("stale", True, "accept", ["clock_rollback"]),
]


@pytest.mark.parametrize(("kind", "explained", "on_reset", "codes"), CLOCK)
def test_a_clock_that_went_back_is_always_refused_and_a_reset_as_the_policy_says(
    kind: Kind, explained: bool, on_reset: str, codes: list[str]
) -> None:
    policy = load(changed('"reject"', f'"{on_reset}"'))
    appraisal = judge(GOOD, policy=policy, continuity=Continuity(kind, explained))
    assert [finding.code for finding in appraisal.findings] == codes
    assert appraisal.verdict == ("refused" if codes else "accepted")


def test_an_unexplained_reset_tells_the_boot_id_that_did_not_change() -> None:
    appraisal = judge(GOOD, continuity=Continuity("reset", False), boot_id="b-1")
    assert appraisal.findings == (Finding("reset_unexplained", "clock", ("a new boot id",), "b-1"),)


def test_qt_13_a_continuity_that_the_appraisal_does_not_know_is_no_verdict() -> None:
    unknown = Continuity("elsewhere", True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="elsewhere"):
        judge(GOOD, continuity=unknown)


@pytest.mark.parametrize("absent", required_checks(POLICY))
def test_qt_13_an_absent_check_refuses(absent: str) -> None:
    ran = [name for name in required_checks(POLICY) if name != absent]
    assert module._verdict(POLICY, (), ran) == "refused"
    assert module._verdict(POLICY, (), required_checks(POLICY)) == "accepted"


@given(
    st.dictionaries(
        st.sampled_from([0, 7, 9, 12]), st.sampled_from([GOOD_0, GOOD_7, OTHER_7, EVIL, ZERO, ONES])
    )
)
def test_accepted_means_exactly_that_every_register_holds_a_listed_value(values: dict[int, str]) -> None:
    good = values.get(0) == GOOD_0 and values.get(7) in PCR7 and 9 in values
    appraisal = judge(values)
    assert (appraisal.verdict == "accepted") == good
    assert bool(appraisal.findings) != good


FINDINGS = (
    Finding("pcr_unexpected", "pcr7", (GOOD_7, OTHER_7), EVIL),
    Finding("clock_rollback", "clock", ("same_boot",), None),
)
BANK = Finding("bank_missing", "sha384", ("sha384",), "sha256")


def test_findings_disclosed_whole_are_as_the_wire_has_them() -> None:
    assert disclosed(FINDINGS, "findings") == [
        {"code": "pcr_unexpected", "subject": "pcr7", "expected": [GOOD_7, OTHER_7], "found": EVIL},
        {"code": "clock_rollback", "subject": "clock", "expected": ["same_boot"], "found": None},
    ]


def test_codes_keep_code_and_subject_only() -> None:
    assert disclosed(FINDINGS, "codes") == [
        {"code": "pcr_unexpected", "subject": "pcr7"},
        {"code": "clock_rollback", "subject": "clock"},
    ]


@pytest.mark.parametrize("disclose", ["none", "", "Findings", "everything"])
def test_nothing_is_disclosed_at_none_and_at_a_word_that_is_not_known(disclose: str) -> None:
    assert disclosed(FINDINGS, disclose) is None


@pytest.mark.parametrize("disclose", ["none", "codes", "findings"])
def test_a_wrong_bank_is_told_at_every_level(disclose: str) -> None:
    assert disclosed((BANK,), disclose) == [to_wire(BANK)]


@pytest.mark.parametrize("finding", [*FINDINGS, BANK])
def test_a_finding_that_was_kept_is_read_back_whole(finding: Finding) -> None:
    assert from_wire(to_wire(finding)) == finding
