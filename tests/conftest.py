"""Software TPMs for tests: one of one's own, or one shared by tests that leave it as they found it."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tpm.swtpm import SoftwareTpm

# Before any test loads the TPM library, which reads this once and otherwise prints what it also raises.
os.environ.setdefault("TSS2_LOG", "all+none")

# How long an example takes says nothing on a machine that does other things beside.
settings.register_profile("attestd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("attestd")


@pytest.fixture
def software_tpm() -> Iterator[SoftwareTpm]:
    """A new machine with a P-256 endorsement key and its certificate."""
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture(scope="session")
def shared_tpm() -> Iterator[SoftwareTpm]:
    """One machine for all tests that neither extend its registers nor power it off; RSA and P-256 keys."""
    with SoftwareTpm(ek=("p256", "rsa")) as tpm:
        yield tpm
