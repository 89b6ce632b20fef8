"""Does the service refuse to start with keys that others could have read or put there?"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from attestd.issue.key_files import ALGORITHMS, KeyFile, create_key, kid_of, read_key_files, write_file
from attestd.issue.keys import create_keys
from tests.attestd.issue.material import NOW, TRUST_DOMAIN
from tpm.errors import PolicyError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_keys(tmp_path / "keys", trust_domain=TRUST_DOMAIN, now=NOW)
    return tmp_path / "keys"


def find(directory: Path, pattern: str) -> Path:
    (path,) = directory.glob(pattern)
    return path


def ca_key(directory: Path) -> Path:
    return next(path for path in directory.glob("x509-*.pem") if not path.name.endswith(".crt.pem"))


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def refused(directory: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        read_key_files(directory)
    assert str(directory) in caught.value.detail
    return caught.value.reason


def test_init_makes_one_key_for_each_use_and_closes_them_to_others(directory: Path) -> None:
    files = read_key_files(directory)
    assert sorted(key.use for key in files.keys) == sorted(ALGORITHMS)
    assert [len(key) for key in files.nonce_keys] == [32]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_keys_are_as_closed_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_keys(tmp_path / "keys", trust_domain=TRUST_DOMAIN, now=NOW)
    finally:
        os.umask(before)
    read_key_files(tmp_path / "keys")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777])
@pytest.mark.parametrize("pattern", ["jwt-*.pem", "x509-*.crt.pem", "nonce.key"])
def test_ad_3_a_key_file_that_is_open_to_others_stops_the_start(
    directory: Path, pattern: str, mode: int
) -> None:
    path = find(directory, pattern)
    path.chmod(mode)
    assert refused(directory) == "key_file_mode"
    path.chmod(0o600)
    read_key_files(directory)
    path.chmod(0o400)
    read_key_files(directory)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o705, 0o711, 0o777, 0o1777])
def test_ad_3_a_directory_of_keys_that_is_open_to_others_stops_the_start(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    assert refused(directory) == "key_file_mode"
    directory.chmod(0o500)
    read_key_files(directory)


@pytest.mark.parametrize("pattern", [".", "ear-*.pem", "nonce.key"])
def test_ad_3_a_key_that_belongs_to_another_user_stops_the_start(
    directory: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_key_files(directory)
    path = directory if pattern == "." else find(directory, pattern)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert refused(directory) == "key_file_owner"


def garbage(directory: Path) -> None:
    find(directory, "wit-*.pem").write_bytes(
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )


def empty(directory: Path) -> None:
    find(directory, "wit-*.pem").write_bytes(b"")


def encrypted(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    closed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    write_file(directory / f"wit-{kid_of(key)}.pem", closed)


def another_key(directory: Path) -> None:
    find(directory, "wit-*.pem").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))


def another_curve(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    write_file(directory / f"wit-{kid_of(key)}.pem", pem(key))


def another_use(directory: Path) -> None:
    """A jwt key may be RSA, a wit key may not."""
    made = create_key(directory, use="jwt", alg="RS256", trust_domain=TRUST_DOMAIN, now=NOW)
    (directory / f"jwt-{made.kid}.pem").rename(directory / f"wit-{made.kid}.pem")


def a_weak_key(directory: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    closed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_file(directory / f"jwt-{kid_of(key)}.pem", closed)


def renamed(directory: Path) -> None:
    find(directory, "wit-*.pem").rename(directory / "wit-old.pem")


def strange(directory: Path) -> None:
    write_file(directory / "server.key", b"hello")


def no_certificate(directory: Path) -> None:
    find(directory, "x509-*.crt.pem").unlink()


def a_certificate_of_another_key(directory: Path) -> None:
    path = find(directory, "x509-*.crt.pem")
    made = create_key(directory, use="x509", alg="ES256", trust_domain=TRUST_DOMAIN, now=NOW)
    path.write_bytes((directory / f"x509-{made.kid}.crt.pem").read_bytes())


def a_certificate_that_is_none(directory: Path) -> None:
    find(directory, "x509-*.crt.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n")


def a_changed_certificate(directory: Path) -> None:
    path = find(directory, "x509-*.crt.pem")
    lines = path.read_bytes().splitlines(keepends=True)
    last = lines[-2]
    path.write_bytes(
        b"".join([*lines[:-2], last[:-6] + (b"A" if last[-6:-5] != b"A" else b"B") + last[-5:], lines[-1]])
    )


def a_short_nonce_key(directory: Path) -> None:
    (directory / "nonce.key").write_bytes(bytes(31))


def no_nonce_key(directory: Path) -> None:
    (directory / "nonce.key").unlink()


def a_link(directory: Path) -> None:
    path = find(directory, "wit-*.pem")
    path.rename(directory.parent / "elsewhere")
    path.symlink_to(directory.parent / "elsewhere")


def a_pipe(directory: Path) -> None:
    path = find(directory, "wit-*.pem")
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("reason", "damage"),
    [
        ("key_file_unreadable", garbage),
        ("key_file_unreadable", empty),
        ("key_file_unreadable", encrypted),
        ("key_file_name", another_key),
        ("key_file_name", another_curve),
        ("key_file_name", another_use),
        ("key_file_name", a_weak_key),
        ("key_file_name", renamed),
        ("key_file_name", strange),
        ("key_file_unreadable", no_certificate),
        ("ca_certificate", a_certificate_of_another_key),
        ("ca_certificate", a_certificate_that_is_none),
        ("ca_certificate", a_changed_certificate),
        ("key_file_unreadable", a_short_nonce_key),
        ("key_missing", no_nonce_key),
        ("key_file_unreadable", a_link),
        ("key_file_unreadable", a_pipe),
    ],
)
def test_a_file_that_is_no_key_of_ours_stops_the_start(
    directory: Path, reason: str, damage: Callable[[Path], None]
) -> None:
    read_key_files(directory)
    damage(directory)
    assert refused(directory) == reason


def test_a_directory_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    assert refused(tmp_path / "keys") == "key_file_unreadable"
    (tmp_path / "keys").write_bytes(b"")
    assert refused(tmp_path / "keys") == "key_file_unreadable"


def test_files_of_other_names_are_left_alone(directory: Path) -> None:
    (directory / "tools.jwks").write_text("{}")
    assert len(read_key_files(directory).keys) == len(ALGORITHMS)


def test_the_previous_nonce_key_comes_second(directory: Path) -> None:
    old = (directory / "nonce.key").read_bytes()
    (directory / "nonce.key").rename(directory / "nonce.previous.key")
    write_file(directory / "nonce.key", bytes(range(32)))
    assert read_key_files(directory).nonce_keys == (bytes(range(32)), old)


def test_the_fingerprint_follows_the_keys_and_not_the_writing_of_their_files(directory: Path) -> None:
    before = read_key_files(directory).fingerprint()
    path = find(directory, "jwt-*.pem")
    path.write_bytes(b"a comment\n" + path.read_bytes())
    assert read_key_files(directory).fingerprint() == before
    create_key(directory, use="jwt", alg="ES256", trust_domain=TRUST_DOMAIN, now=NOW)
    with_key = read_key_files(directory).fingerprint()
    (directory / "nonce.key").write_bytes(bytes(range(32)))
    assert len({before, with_key, read_key_files(directory).fingerprint()}) == 3


@pytest.mark.parametrize("use", ALGORITHMS)
def test_every_use_signs_with_its_algorithms_only(directory: Path, use: str) -> None:
    for alg in ALGORITHMS[use]:
        assert create_key(directory, use=use, alg=alg, trust_domain=TRUST_DOMAIN, now=NOW).use == use
    for alg in ("none", "HS256", "ES384", *({"RS256", "PS256"} - set(ALGORITHMS[use]))):
        with pytest.raises(ValueError, match="cannot sign"):
            create_key(directory, use=use, alg=alg, trust_domain=TRUST_DOMAIN, now=NOW)
    assert len([key for key in read_key_files(directory).keys if key.use == use]) == 1 + len(ALGORITHMS[use])


def test_a_use_that_is_not_known_has_no_keys(directory: Path) -> None:
    with pytest.raises(ValueError, match="cannot sign"):
        create_key(directory, use="tls", alg="ES256", trust_domain=TRUST_DOMAIN, now=NOW)


def test_an_existing_file_is_never_overwritten(directory: Path) -> None:
    path = find(directory, "jwt-*.pem")
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_file(path, b"other")
    with pytest.raises(FileExistsError):
        create_keys(directory, trust_domain=TRUST_DOMAIN, now=NOW)
    assert path.read_bytes() == before
    assert [left.name for left in directory.iterdir() if left.name.endswith(".new")] == []


def test_no_secret_shows_when_keys_are_printed(directory: Path) -> None:
    files = read_key_files(directory)
    shown = repr(files) + repr([KeyFile(key.use, key.kid, key.private_key, None) for key in files.keys])
    assert repr(files.nonce_keys[0]) not in shown
    assert "private" not in shown.lower()
