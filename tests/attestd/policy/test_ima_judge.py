"""Does the policy object to each file that it does not allow, and to nothing else?"""

from dataclasses import replace
from typing import Any

import pytest

from attestd.policy.findings import Finding
from attestd.policy.ima_judge import MAX_FINDINGS, MAX_SHOWN, judge_entry, judge_ima, show_path
from attestd.policy.ima_rules import ImaRules, load_ima
from tests.tpm.ima.kernel import Kernel, digest_field, record
from tests.tpm.ima.test_file_signature import KEYS, pem, sign
from tpm.ima.entry import Entry
from tpm.ima.verify import VerifiedMeasurements, verify_measurements
from tpm.structures.algorithms import SHA256
from tpm.verify.pcrs import VerifiedPcrs


def sha256(content: bytes) -> str:
    return "sha256:" + SHA256.digest(content).hex()


ALLOWED = {b"/init": b"/init", b"/bin/sh": b"/bin/sh", b"usr/bin/packaged": b"/usr/bin/packaged"}
FILES = {
    "good.digests": b"".join(
        sha256(content).encode() + b"  " + path + b"\n" for path, content in ALLOWED.items()
    ),
    "ima.pem": pem(KEYS["rsa"]) + pem(KEYS["ec"]),
}


def rules(**changes: Any) -> ImaRules:
    return load_ima({"required": True, "allow": ["good.digests"], **changes}, FILES)


def good() -> Kernel:
    return Kernel.booted().run(b"/init").run(b"/bin/sh").run(b"/usr/bin/packaged")


def proven(kernel: Kernel) -> VerifiedMeasurements:
    return verify_measurements(kernel.raw(), kernel.quoted)


def found(kernel: Kernel, **changes: Any) -> list[Finding]:
    assert judge_ima(rules(**changes), proven(good())) == ()
    return list(judge_ima(rules(**changes), proven(kernel)))


def test_a_machine_that_ran_only_what_is_allowed_is_accepted() -> None:
    assert found(good()) == []


def test_im_1_an_unknown_file_is_named_with_its_digest() -> None:
    assert found(good().run(b"/tmp/evil")) == [Finding("ima_unknown", "/tmp/evil", (), sha256(b"/tmp/evil"))]


def test_im_1_a_changed_digest_of_a_known_file_is_told_beside_the_expected_one() -> None:
    kernel = good().run(b"/bin/sh", b"trojan").run(b"/usr/bin/packaged", b"trojan")
    assert found(kernel) == [
        Finding("ima_unknown", "/bin/sh", (sha256(b"/bin/sh"),), sha256(b"trojan")),
        Finding("ima_unknown", "/usr/bin/packaged", (sha256(b"/usr/bin/packaged"),), sha256(b"trojan")),
    ]


def test_im_4_a_path_of_any_bytes_is_told_on_one_line() -> None:
    kernel = good().run(b"/tmp/a\nb\\\x1b[31m\xff\xc3\xa9\xe2\x80\xae")
    (finding,) = found(kernel)
    assert finding.subject == "/tmp/a\\nb\\\\\\x1b[31m\\xff\u00e9\\u202e"
    assert show_path(b"/" + b"x" * 4095) == "/" + "x" * (MAX_SHOWN - 2) + "\u2026"


def test_a_digest_counts_under_any_path_or_only_under_its_own() -> None:
    kernel = good().run(b"/tmp/copy", b"/bin/sh")
    assert found(kernel) == []
    assert found(kernel, match="path") == [Finding("ima_unknown", "/tmp/copy", (), sha256(b"/bin/sh"))]


def test_excluded_paths_are_not_judged() -> None:
    kernel = good().run(b"/var/tmp/x").run(b"/var/tmpx")
    told = found(kernel, exclude=["/var/tmp"])
    assert [finding.subject for finding in told] == ["/var/tmpx"]


@pytest.mark.parametrize("name", KEYS)
def test_a_file_that_one_of_the_keys_signed_is_allowed(name: str) -> None:
    digest = SHA256.digest(b"signed")
    kernel = good().signed(b"/opt/x", sign(KEYS[name], digest), b"signed")
    assert found(kernel, keys=["ima.pem"]) == []
    assert [finding.code for finding in found(kernel)] == ["ima_unknown"]
    unsigned = good().signed(b"/opt/x", b"", b"signed")
    assert [finding.code for finding in found(unsigned, keys=["ima.pem"])] == ["ima_unknown"]


@pytest.mark.parametrize(("path", "content"), [(b"/opt/x", b"other"), (b"/bin/sh", b"/bin/sh")])
def test_im_7_a_bad_signature_in_the_name_of_our_key_is_refused(path: bytes, content: bytes) -> None:
    """Also on a file that is allowed by its digest: somebody claims our key."""
    forged = sign(KEYS["rsa"], SHA256.digest(b"signed"))
    told = found(good().signed(path, forged, content), keys=["ima.pem"])
    assert [(finding.code, finding.subject) for finding in told] == [("ima_signature", path.decode())]
    honest = sign(KEYS["rsa"], SHA256.digest(content))
    assert found(good().signed(path, honest, content), keys=["ima.pem"]) == []


def test_a_signature_of_a_distributions_key_neither_helps_nor_harms() -> None:
    foreign = b"\x03\x02\x04" + b"\xde\xad\xbe\xef" + b"\x00\x04" + b"xxxx"
    assert found(good().signed(b"/bin/sh", foreign), keys=["ima.pem"]) == []
    told = found(good().signed(b"/opt/x", foreign), keys=["ima.pem"])
    assert [finding.code for finding in told] == ["ima_unknown"]


def test_im_7_a_sha1_digest_allows_nothing() -> None:
    kernel = good().add(record("ima-ng", digest_field(b"/bin/sh", "sha1"), b"/bin/sh\0"))
    (finding,) = found(kernel)
    assert (finding.code, finding.found and finding.found[:5]) == ("ima_unknown", "sha1:")
    cut = good().add(record("ima-ng", digest_field(b"/bin/sh")[:28], b"/bin/sh\0"))
    assert [one.code for one in found(cut)] == ["ima_unknown"]
    legacy = good().add(record("ima", bytes(range(20)), b"/bin/sh\0"))
    assert [one.code for one in found(legacy)] == ["ima_unknown"]


def test_a_trees_digest_is_none_of_a_file() -> None:
    kernel = good().add(record("ima-ngv2", b"verity:" + digest_field(b"/bin/sh"), b"/bin/sh\0"))
    (finding,) = found(kernel)
    assert (finding.code, finding.found) == ("ima_unknown", "verity:" + sha256(b"/bin/sh"))
    assert found(good().add(record("ima-ngv2", b"ima:" + digest_field(b"/bin/sh"), b"/bin/sh\0"))) == []


def test_im_7_a_key_for_a_keyring_is_allowed_there_and_nowhere_else() -> None:
    keyrings = {".ima": [sha256(b"certificate")]}
    assert found(good().buffer(b".ima", b"certificate"), keyrings=keyrings) == []
    for name, content in (
        (b".ima", b"another"),
        (b".platform", b"certificate"),
        (b"kexec-cmdline", b"/bin/sh"),
    ):
        told = found(good().buffer(name, content), keyrings=keyrings)
        expected = tuple(keyrings.get(name.decode(), ()))
        assert told == [Finding("ima_unknown", name.decode(), expected, sha256(content))]
    assert [one.code for one in found(good().buffer(b".ima", b"certificate"))] == ["ima_unknown"]


def test_a_keyring_under_an_excluded_path_is_judged() -> None:
    told = found(good().buffer(b"/var/tmp/x", b"key"), exclude=["/var/tmp"])
    assert [finding.code for finding in told] == ["ima_unknown"]


def test_a_violation_is_rejected_unless_the_policy_accepts_it() -> None:
    kernel = good().violate(b"/var/log/x")
    assert found(kernel) == [Finding("ima_violation", "/var/log/x", (), "entry 4")]
    assert found(kernel, exclude=["/var/log"]) == found(kernel)
    assert found(kernel, violations="accept") == []


def test_an_entry_for_another_register_is_not_proven() -> None:
    kernel = good().add(record("ima-ng", digest_field(b"/init"), b"/init\0", pcr=11)).run(b"/bin/sh")
    assert found(kernel) == [Finding("ima_register", "/init", ("pcr10",), "pcr11")]


def test_digests_of_older_kernels_are_rejected_unless_the_policy_accepts_them() -> None:
    kernel = Kernel.booted(padded=True).run(b"/init")
    assert [finding.code for finding in found(kernel)] == ["ima_sha1_padded"]
    assert found(kernel, sha1_padded="accept") == []


def test_im_5_a_boot_aggregate_that_the_quote_does_not_prove_is_told() -> None:
    kernel = good()
    pcrs = VerifiedPcrs("sha256", {10: kernel.value})
    told = judge_ima(rules(), verify_measurements(kernel.raw(), pcrs))
    assert [finding.code for finding in told] == ["boot_aggregate"]
    assert judge_ima(rules(), proven(kernel)) == ()


def test_im_5_only_the_lists_first_entry_needs_no_digest_that_is_allowed() -> None:
    aggregate = Kernel.booted().records[0]
    assert list(judge_entry(rules(), Entry.of(0, aggregate))) == []
    assert [one.code for one in judge_entry(rules(), Entry.of(3, aggregate))] == ["ima_unknown"]


def test_an_increment_is_judged_from_where_it_begins() -> None:
    kernel = good()
    known = proven(kernel).mark
    kernel.run(b"/tmp/evil")
    part = verify_measurements(kernel.raw(first=4), kernel.quoted, first=4, known=known)
    assert [finding.subject for finding in judge_ima(rules(), part)] == ["/tmp/evil"]
    fake = kernel.records[0]
    later = Kernel(boot=kernel.boot).add(fake).run(b"/init")
    assert judge_ima(rules(), proven(later)) == ()


def test_what_was_measured_after_the_quote_is_not_judged() -> None:
    kernel = good()
    quoted = kernel.quoted
    kernel.run(b"/tmp/evil")
    assert judge_ima(rules(), verify_measurements(kernel.raw(), quoted)) == ()
    assert judge_ima(rules(), proven(kernel)) != ()


def test_a_thousand_objections_are_told_as_a_hundred_and_a_number() -> None:
    kernel = good()
    for number in range(1000):
        kernel.run(b"/tmp/%d" % number)
    told = found(kernel)
    assert len(told) == MAX_FINDINGS + 1
    assert told[-1] == Finding("ima_more", "ima", (), f"{1000 - MAX_FINDINGS} findings more")


def test_the_rules_decide_and_not_the_list() -> None:
    kernel = good().run(b"/opt/x")
    allowed = replace(rules(), exclude=(b"/opt",))
    assert judge_ima(allowed, proven(kernel)) == ()
    assert [one.subject for one in judge_ima(rules(), proven(kernel))] == ["/opt/x"]
