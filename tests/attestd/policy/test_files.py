"""The files that a policy names belong to it: they are demanded, and its identity covers them."""

import hashlib

import pytest

from attestd.policy.challenge import wants_logs
from attestd.policy.document import files_of, load_policy, policy_digest
from tests.attestd.policy.documents import HEALTHY
from tpm.errors import PolicyError

IMA = HEALTHY + '[ima]\nrequired = true\nallow = ["debian.digests", "ours.digests"]\n'
DEBIAN = b"sha256:" + b"ab" * 32 + b"  /usr/bin/sh\n"
OURS = b"sha256:" + b"cd" * 32 + b"  /usr/bin/telemetry\n"
FILES = {"debian.digests": DEBIAN, "ours.digests": OURS}


def test_the_identity_of_a_policy_covers_its_files_by_name_and_content() -> None:
    digest = load_policy(IMA.encode(), FILES).digest
    swapped = {"debian.digests": OURS, "ours.digests": DEBIAN}
    assert load_policy(IMA.encode(), swapped).digest != digest
    assert load_policy(IMA.encode(), dict(reversed(FILES.items()))).digest == digest
    assert policy_digest(HEALTHY.encode(), {}) == hashlib.sha256(HEALTHY.encode()).hexdigest()


def test_exactly_the_named_files_are_taken() -> None:
    assert files_of(IMA.encode()) == ("debian.digests", "ours.digests")
    assert files_of(HEALTHY.encode()) == ()
    for files, reason in (({}, "file_missing"), ({**FILES, "more": b""}, "file_unnamed")):
        with pytest.raises(PolicyError) as caught:
            load_policy(IMA.encode(), files)
        assert caught.value.reason == reason


def test_ima_needs_its_register_those_of_its_first_entry_and_its_list() -> None:
    policy = load_policy(IMA.encode(), FILES)
    assert policy.needed() == tuple(range(11))
    plain = load_policy(HEALTHY.encode(), {})
    assert wants_logs([policy, plain]) == (False, True)
    assert wants_logs([plain]) == (False, False)
