"""What failed is told again in the same words, and holds on to nothing of the first time."""

import pytest

from attestd.agent.errors import Misconfigured, NotEnrolled, Refusal, Unreachable
from attestd.agent.running.received import OffClock
from attestd.agent.trouble import told_again, trouble_of
from tpm.errors import DeviceError

PROBLEM = {"code": "posture_rejected", "detail": "Because.", "findings": [{"code": "x"}] * 1000}


def raised(error: Exception) -> Exception:
    """As it is after it went through some frames."""
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        Refusal(403, {"code": "device_banned", "detail": "Because."}, 7, "n"),
        Refusal(400, {"error": "invalid_scope", "error_description": "No."}),
        Unreachable("away", retry_after=5),
        OffClock("early"),
        DeviceError("tpm_refused", "It said no."),
        Misconfigured("wrong"),
        NotEnrolled("not yet"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_words_are_the_same(error: Exception) -> None:
    again = told_again(raised(error))
    assert (type(again), str(again), trouble_of(again)) == (type(error), str(error), trouble_of(error))
    assert again is not error
    assert (again.__traceback__, again.__context__, again.__cause__) == (None, None, None)


def test_findings_are_not_kept() -> None:
    again = told_again(raised(Refusal(403, PROBLEM)))
    assert isinstance(again, Refusal)
    assert again.problem == {"code": "posture_rejected", "detail": "Because."}
