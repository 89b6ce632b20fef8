"""Does a list of digests allow what its author wrote, and nothing that could be forged?"""

import hashlib

import pytest

from attestd.policy.ima_allow import capture, load_allow_lists
from tests.tpm.ima.kernel import Kernel, digest_field, record
from tpm.errors import PolicyError
from tpm.ima.verify import verify_measurements

SHA256 = hashlib.sha256(b"file").hexdigest()
SHA512 = hashlib.sha512(b"file").hexdigest()


def load(*sources: bytes):  # type: ignore[no-untyped-def]
    return load_allow_lists({f"{number}.digests": source for number, source in enumerate(sources)})


LINES = {
    "ours": (f"sha256:{SHA256}  /usr/bin/demo", f"sha256:{SHA256}", b"/usr/bin/demo"),
    "another hash": (f"sha512:{SHA512}  /usr/bin/demo", f"sha512:{SHA512}", b"/usr/bin/demo"),
    "sha256sum": (f"{SHA256}  /usr/bin/demo", f"sha256:{SHA256}", b"/usr/bin/demo"),
    "sha256sum -b": (f"{SHA256} */usr/bin/demo", f"sha256:{SHA256}", b"/usr/bin/demo"),
    "of a package": (f"{SHA256}  usr/bin/demo", f"sha256:{SHA256}", b"usr/bin/demo"),
    "of find": (f"{SHA256}  ./usr/bin/demo", f"sha256:{SHA256}", b"usr/bin/demo"),
    "sha512sum": (f"{SHA512}  /usr/bin/demo", f"sha512:{SHA512}", b"/usr/bin/demo"),
    "capital": (f"{SHA256.upper()}  /x", f"sha256:{SHA256}", b"/x"),
    "verity": (f"verity:sha256:{SHA256}  /x", f"verity:sha256:{SHA256}", b"/x"),
    "a blank, as the kernel measures it": (f"{SHA256}  /a b", f"sha256:{SHA256}", b"/a_b"),
    "a line break": (f"\\{SHA256}  /a\\nb\\\\c\\rd", f"sha256:{SHA256}", b"/a\nb\\c\rd"),
    "a backslash that escapes nothing": (f"{SHA256}  /a\\nb", f"sha256:{SHA256}", b"/a\\nb"),
}


@pytest.mark.parametrize(("line", "digest", "path"), LINES.values(), ids=LINES.keys())
def test_a_line_allows_one_digest(line: str, digest: str, path: bytes) -> None:
    found = load(f"# a comment\n\n{line}\n".encode())
    assert (found.digests, found.by_path) == ({digest}, {path: (digest,)})


BAD = {
    "md5sums": (b"d41d8cd98f00b204e9800998ecf8427e  usr/bin/demo", "weak_digest"),
    "sha1sum": (b"da39a3ee5e6b4b0d3255bfef95601890afd80709  usr/bin/demo", "weak_digest"),
    "sha1, named": (b"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709  /usr/bin/demo", "weak_digest"),
    "cut": (b"sha256:abcd  /usr/bin/demo", "allow_list_wrong"),
    "no path": (b"sha256:" + SHA256.encode(), "allow_list_wrong"),
    "one blank": (SHA256.encode() + b" /x", "allow_list_wrong"),
    "text": (b"usr/bin/demo", "allow_list_wrong"),
    "an unknown escape": (b"\\" + SHA256.encode() + b"  /a\\x0a", "allow_list_wrong"),
    "comments only": (b"# nothing\n", "list_empty"),
    "empty": (b"", "list_empty"),
}


@pytest.mark.parametrize(("source", "reason"), BAD.values(), ids=BAD.keys())
def test_a_list_that_cannot_be_meant_is_refused_at_its_line(source: bytes, reason: str) -> None:
    good = f"{SHA256}  /x\n".encode()
    assert load(good).digests
    with pytest.raises(PolicyError, match=r"^1\.digests") as caught:
        load(good, source)
    assert caught.value.reason == reason


def test_a_path_may_have_several_digests_and_lists_add_up() -> None:
    found = load(f"{SHA256}  /x\n{SHA512}  /x\n{SHA256}  /x\n".encode(), f"{SHA256}  /y\n".encode())
    assert found.by_path == {b"/x": (f"sha256:{SHA256}", f"sha512:{SHA512}"), b"/y": (f"sha256:{SHA256}",)}


def test_a_captured_machine_is_allowed_by_the_list_that_was_captured() -> None:
    kernel = Kernel.booted().run(b"/init").run(b"/tmp/a\nb\\c\rd").run(b"/\xff").buffer(b".ima", b"key")
    kernel.violate(b"/var/log/x").run(b"/init")
    kernel.add(record("ima-ng", digest_field(b"weak", "sha1"), b"/weak\0"))
    kernel.add(record("ima-ngv2", b"verity:" + digest_field(b"tree"), b"/verity\0"))
    proven = verify_measurements(kernel.raw(), kernel.quoted)
    found = capture(proven.entries(), comment="edge01\nof today")
    assert found.source.startswith(b"# edge01 of today\n")
    assert (found.lines, found.left_out) == (5, (b"/var/log/x", b"/weak"))
    loaded = load(found.source)
    assert loaded.by_path == {
        entry.path: (str(entry.file_digest),)
        for entry in proven.entries()
        if entry.path in (b"/init", b"/tmp/a\nb\\c\rd", b"/\xff", b".ima", b"/verity")
    }
