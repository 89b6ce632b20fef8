"""An open device on the shared machine, and one on a machine of one's own."""

from collections.abc import Iterator

import pytest

from tpm.device.device import Device
from tpm.swtpm import SoftwareTpm


@pytest.fixture
def device(shared_tpm: SoftwareTpm) -> Iterator[Device]:
    """On the shared machine: leave its registers and its state as they are."""
    with Device(shared_tpm.tcti) as opened:
        yield opened


@pytest.fixture
def own_device(software_tpm: SoftwareTpm) -> Iterator[Device]:
    """On the test's own machine."""
    with Device(software_tpm.tcti) as opened:
        yield opened
