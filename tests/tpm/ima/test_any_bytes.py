"""Does every list of any bytes end soon, with entries that keep its bytes or with an error of ours?

The long run is the fuzzer's (`scripts/fuzz`); this is a short one of the same checks, and the costs.
"""

import time
import tracemalloc

import pytest

from scripts.fuzz.harness import run
from scripts.fuzz.ima import targets
from tests.tpm.ima.kernel import FORMS, Kernel, digest_field, record
from tpm.errors import StructureError
from tpm.ima.measurements import read_records
from tpm.ima.summary import summarise
from tpm.ima.verify import verify_measurements

ROUNDS = 4000
TARGETS = {target.name: target for target in targets()}


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_read_exactly_or_refused(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        target.parse(seed)
    faults = [(fault.what, fault.raw.hex()) for fault in run(target, rounds=ROUNDS, seed=1)]
    assert faults == []


DEAR = {
    "line breaks": b"10 " + b"ab" * 20 + b" ima-ng sha256:" + b"ab" * 32 + b" /" + b"\n" * 1_000_000,
    "blanks": b"10 " + b"ab" * 20 + b" ima-modsig sha256:" + b"ab" * 32 + b" " * 1_000_000,
    "one endless line": b"10 " + b"a" * 2_000_000,
    "lines that fit nothing": (b"10 " + b"ab" * 20 + b" ima-ng sha256:" + b"ab" * 32 + b" /x\n") * 20_000,
    "fields without end": b"10 " + b"ab" * 20 + b" " + b"d-ng|" * 100_000 + b" x\n",
    "digits": b"10 " + b"ab" * 20 + b" iuid|n-ng " + b"9" * 1_000_000 + b" x\n",
}


@pytest.mark.parametrize("raw", DEAR.values(), ids=DEAR.keys())
def test_no_list_is_dear_to_refuse(raw: bytes) -> None:
    begin = time.process_time()
    answer = summarise(raw, {})
    assert not answer.valid
    assert len(answer.detail or "") < 500
    assert time.process_time() - begin < 1


def test_paths_with_line_breaks_cost_no_more_than_their_bound() -> None:
    """Each of 400 paths with 32 line breaks is tried 33 times; then the list must come in its binary form."""
    kernel = Kernel.booted()
    for number in range(400):
        kernel.run(b"/%d" % number + b"\n" * 32 + b"x" * 3000)
    begin = time.process_time()
    with pytest.raises(StructureError):
        list(read_records(kernel.raw("ascii")))
    assert time.process_time() - begin < 1
    assert verify_measurements(kernel.raw("binary"), kernel.quoted).covered == 401


@pytest.mark.parametrize("form", FORMS)
def test_a_long_list_is_verified_in_little_memory(form: str) -> None:
    kernel = Kernel.booted()
    for number in range(4_000):
        kernel.add(record("ima-ng", digest_field(b"%d" % number), b"/usr/lib/%d\0" % number))
    raw, quoted = kernel.raw(form), kernel.quoted
    tracemalloc.start()
    try:
        proven = verify_measurements(raw, quoted)
        assert sum(1 for _ in proven.entries()) == 4_001
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024
    finally:
        tracemalloc.stop()
