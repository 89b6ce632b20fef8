"""Does the trust store trust exactly what lies in it, and notice when that changes?"""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestd.trust import LOOK_AGAIN_MS, TrustStore, read_roots
from tests.attester import public_area
from tests.tpm.verify.authorities import DAY, NOW, Authority, ek_form
from tpm.errors import EvidenceError, PolicyError
from tpm.structures.public import parse_public
from tpm.verify.endorsement import VerifiedEndorsement

T = int(NOW.timestamp() * 1000)
# Genuine names are longer than X.520 allows.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")

VECTORS = Path(__file__).parents[1] / "vectors" / "ek_roots"
ROOT, OTHER = Authority.root("Root"), Authority.root("Other")
MAKER = ROOT.authority("Maker CA")
LEAF = MAKER.endorse()


def pem(*authorities: Authority) -> bytes:
    return b"".join(one.certificate.public_bytes(Encoding.PEM) for one in authorities)


def verify(store: TrustStore, now_ms: int = T, leaf: bytes = LEAF) -> VerifiedEndorsement:
    return store.verify(leaf, [MAKER.der], ek=None, now_ms=now_ms)


def refused(store: TrustStore, now_ms: int = T, leaf: bytes = LEAF) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify(store, now_ms, leaf)
    return caught.value.reason


def unusable(store: TrustStore, now_ms: int = T) -> str:
    with pytest.raises(PolicyError) as caught:
        verify(store, now_ms)
    return caught.value.detail


def cannot_start(directory: Path) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        TrustStore(directory)
    return caught.value


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "root.pem").write_bytes(pem(ROOT))
    return tmp_path


def test_a_root_in_the_directory_vouches(directory: Path) -> None:
    assert verify(TrustStore(directory)).manufacturer == "IFX"


def test_an_empty_store_trusts_nobody(tmp_path: Path) -> None:
    assert refused(TrustStore(tmp_path)) == "ek_chain_untrusted"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("root.der", ROOT.der),
        ("bundle.pem", pem(OTHER, ROOT)),
        ("padded.der", ROOT.der + b"\n"),
        ("noted.txt", b"# what the maker publishes\r\n" + pem(ROOT).replace(b"\n", b"\r\n") + b"\nend\n"),
    ],
)
def test_every_form_of_file_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert verify(TrustStore(tmp_path)).manufacturer == "IFX"


def test_genuine_roots_are_read(tmp_path: Path) -> None:
    genuine = [path for path in (VECTORS / "google-gce").iterdir() if path.suffix != ".json"]
    for path in genuine:
        shutil.copy(path, tmp_path)
    assert len(TrustStore(tmp_path).anchors(T).certificates) == len(genuine) == 5


KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"not a certificate",
        pem(ROOT)[:-20],
        pem(ROOT).replace(b"M", b"*", 1),
        pem(ROOT) + pem(OTHER)[:100],
        pem(ROOT) + KEY,
        pem(ROOT).replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        ROOT.der + b"\x01",
        pem(ROOT, OTHER).replace(b"\nMII", b"\nMIJ", 1),
        pem(ROOT) + b"#" * (1 << 20),
    ],
    ids=[
        "empty",
        "blank",
        "text",
        "cut",
        "damaged",
        "second cut",
        "key",
        "other label",
        "trailing",
        "one bad",
        "big",
    ],
)
def test_a_file_that_is_no_certificate_stops_the_start_and_is_named(directory: Path, content: bytes) -> None:
    (directory / "bad.pem").write_bytes(content)
    assert str(directory / "bad.pem") in cannot_start(directory).detail
    (directory / "bad.pem").unlink()
    assert TrustStore(directory)


def test_a_certificate_that_is_no_authority_stops_the_start(directory: Path) -> None:
    (directory / "leaf.der").write_bytes(LEAF)
    fault = cannot_start(directory)
    assert (fault.reason, "leaf.der" in fault.detail) == ("ek_root_not_ca", True)


def test_a_directory_or_a_pipe_among_the_files_stops_the_start(directory: Path) -> None:
    (directory / "more").mkdir()
    assert "more is not a file" in cannot_start(directory).detail
    (directory / "more").rmdir()
    os.mkfifo(directory / "more")
    assert "more is not a file" in cannot_start(directory).detail
    with pytest.raises(PolicyError):
        read_roots(directory)


def test_names_with_a_dot_in_front_are_left_out(directory: Path) -> None:
    (directory / ".gitkeep").touch()
    (directory / ".new-1234").write_bytes(b"half a cert")
    assert verify(TrustStore(directory))


def test_links_to_certificates_are_followed_and_dangling_ones_named(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "ca.pem"
    (directory / "root.pem").rename(elsewhere)
    (directory / "link.pem").symlink_to(elsewhere)
    assert verify(TrustStore(directory))
    elsewhere.unlink()
    assert "link.pem" in cannot_start(directory).detail


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    assert cannot_start(tmp_path / "none").reason == "ek_roots_missing"


def test_an_expired_root_does_not_stop_the_start_but_vouches_for_nobody(directory: Path) -> None:
    old = Authority.root("Old", not_before=NOW - 20 * DAY, not_after=NOW - DAY)
    (directory / "old.pem").write_bytes(pem(old))
    store = TrustStore(directory)
    assert verify(store)
    with pytest.raises(EvidenceError) as caught:
        store.verify(old.endorse(), [], ek=None, now_ms=T)
    assert caught.value.reason == "ek_issuer_expired"


def test_a_withdrawn_root_stops_the_next_endorsement(directory: Path) -> None:
    store = TrustStore(directory)
    assert verify(store)
    (directory / "root.pem").unlink()
    assert refused(store, T + LOOK_AGAIN_MS) == "ek_chain_untrusted"


def test_a_new_root_vouches_from_the_next_second(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    assert refused(store) == "ek_chain_untrusted"
    (tmp_path / "root.pem").write_bytes(pem(ROOT))
    assert refused(store, T + LOOK_AGAIN_MS - 1) == "ek_chain_untrusted"
    assert verify(store, T + LOOK_AGAIN_MS)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "rewritten in place"])
def test_an_exchanged_file_is_noticed(directory: Path, replaced: bool) -> None:
    store = TrustStore(directory)
    assert verify(store)
    if replaced:
        (directory / ".new").write_bytes(pem(OTHER))
        (directory / ".new").replace(directory / "root.pem")
    else:
        (directory / "root.pem").write_bytes(pem(OTHER))
    assert refused(store, T + LOOK_AGAIN_MS) == "ek_chain_untrusted"


def test_a_clock_that_went_back_looks_again(directory: Path) -> None:
    store = TrustStore(directory)
    assert verify(store, T)
    (directory / "root.pem").unlink()
    assert refused(store, T - 1) == "ek_chain_untrusted"


def test_while_the_store_cannot_be_read_nobody_is_trusted(directory: Path) -> None:
    store = TrustStore(directory)
    assert verify(store)
    (directory / "bad.pem").write_bytes(b"half")
    for moment in (T + 1000, T + 1500, T + 2000, T + 60_000):
        assert "bad.pem" in unusable(store, moment)
    (directory / "bad.pem").unlink()
    assert "bad.pem" in unusable(store, T + 60_500)
    assert verify(store, T + 61_000)


def test_a_store_that_is_gone_trusts_nobody_and_recovers(directory: Path) -> None:
    store = TrustStore(directory)
    assert verify(store)
    directory.rename(directory.with_name("away"))
    assert str(directory) in unusable(store, T + 1000)
    directory.with_name("away").rename(directory)
    assert verify(store, T + 2000)


def test_evidence_seen_before_is_looked_up_and_still_expires(directory: Path) -> None:
    store = TrustStore(directory)
    leaf = MAKER.endorse(ek_form(not_after=NOW + timedelta(hours=1)))
    first = verify(store, T, leaf)
    assert verify(store, T + 1, leaf) is first
    assert refused(store, T + 3_601_000, leaf) == "ek_expired"
    assert refused(store, T - 200 * 86_400_000, leaf) == "ek_not_yet_valid"


def test_what_is_looked_up_is_for_this_key_chain_and_store_only(directory: Path) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    leaf = MAKER.endorse(ek_form(key.public_key()))
    store = TrustStore(directory)
    good, bad = (parse_public(public_area(one, attributes=0x000300B2)) for one in (key, other))
    assert store.verify(leaf, [MAKER.der], ek=good, now_ms=T)
    with pytest.raises(EvidenceError) as caught:
        store.verify(leaf, [MAKER.der], ek=bad, now_ms=T)
    assert caught.value.reason == "ek_key_mismatch"
    with pytest.raises(EvidenceError) as caught:
        store.verify(leaf, [], ek=good, now_ms=T)
    assert caught.value.reason == "ek_chain_untrusted"
    (directory / "root.pem").write_bytes(pem(OTHER))
    with pytest.raises(EvidenceError) as caught:
        store.verify(leaf, [MAKER.der], ek=good, now_ms=T + 1000)
    assert caught.value.reason == "ek_chain_untrusted"


def test_what_is_remembered_is_bounded(directory: Path) -> None:
    store = TrustStore(directory)
    for _ in range(1100):
        verify(store, T, MAKER.endorse())
    assert len(store._known) == 1024
    assert verify(store)
