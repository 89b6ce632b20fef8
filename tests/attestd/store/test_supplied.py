"""Is the operator's certificate for a TPM kept as it came, and replaced by a newer one?"""

from dataclasses import replace

from attestd.store import supplied
from attestd.store.store import Store
from attestd.store.supplied import SuppliedCertificate
from tests.attestd.store.records import NOW

ROW = SuppliedCertificate(
    device_id="ab" * 32, certificate=b"leaf", chain=(b"above",), supplied_by="eve", supplied_at=NOW
)


def test_a_certificate_is_found_by_its_device_and_the_last_one_counts(store: Store) -> None:
    assert store.read(lambda tx: supplied.find(tx, ROW.device_id)) is None
    newer = replace(ROW, certificate=b"newer", chain=(), supplied_at=NOW + 1)
    for row in (ROW, newer):
        store.write(lambda tx, row=row: supplied.put(tx, row))
        assert store.read(lambda tx: supplied.find(tx, ROW.device_id)) == row
    assert store.read(lambda tx: supplied.find(tx, "cd" * 32)) is None
