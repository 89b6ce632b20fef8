"""A service is trusted by one fingerprint that an operator was told, and by nothing that it says itself."""

import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attestd.agent.errors import Misconfigured, Unreachable
from attestd.agent.pin import authority, fetch_certificate, read_authorities
from attestd.agent.state import State
from attestd.agent.transport import Server
from tests.attestd.web.certificates import Authority, Pair
from tests.serving import Agent, Serving
from tpm.swtpm import SoftwareTpm

BUNDLE = "/.well-known/spiffe/bundle"


def sha256(path: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def pair(maker: Authority) -> Pair:
    """A server's certificate whose file ends with its root."""
    issued = maker.issue("pinned")
    whole = issued.certificate.with_name("whole.pem")
    whole.write_bytes(issued.certificate.read_bytes() + maker.pem.read_bytes())
    return replace(issued, certificate=whole)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("pinned") / "srv", tls=pair) as running:
        yield running


@pytest.mark.parametrize("which", ["root", "leaf"])
def test_the_certificate_with_the_fingerprint_is_trusted_from_then_on(
    secure: Serving, maker: Authority, pair: Pair, tmp_path: Path, which: str
) -> None:
    pinned = maker.pem if which == "root" else pair.certificate.with_name("pinned.pem")
    state = State(tmp_path / "state")
    path = authority(secure.url, state, root_sha256=sha256(pinned))
    assert path == state.ca()
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert Server(secure.url, path).get(BUNDLE)["keys"]
    # Kept: the server is not asked again.
    assert authority("https://127.0.0.1:1", state, root_sha256=sha256(pinned)) == path
    assert authority("https://127.0.0.1:1", state) == path


def test_ag_5_another_fingerprint_trusts_nothing_and_is_told_what_was_shown(
    secure: Serving, maker: Authority, tmp_path: Path
) -> None:
    state = State(tmp_path / "state")
    with pytest.raises(Unreachable, match=sha256(maker.pem)):
        authority(secure.url, state, root_sha256="ab" * 32)
    assert state.ca() is None


def test_ag_5_another_fingerprint_joins_nothing_and_the_line_holds_all_that_is_to_be_compared(
    secure: Serving, maker: Authority, software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    agent = Agent(software_tpm, tmp_path / "state", secure.url)
    told = agent("join", secure.url, "--root-sha256", "ab" * 32, status=3).stderr
    (line,) = [each for each in told.splitlines() if each.startswith("FAIL")]
    assert f"shows no certificate with the SHA-256 {'ab' * 32}, but " in line
    assert sha256(maker.pem) in line
    assert line.endswith("end with its root, or name the root with --ca FILE")
    assert not agent.state.exists()


def test_ag_5_who_shows_a_root_but_has_no_certificate_of_it_is_refused(
    secure: Serving, maker: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    impostor = Authority(tmp_path / "other")
    own = impostor.issue("impostor")
    # The file shows our root behind a certificate that it did not issue.
    own.certificate.write_bytes(own.certificate.read_bytes() + maker.pem.read_bytes())
    with Serving(tmp_path / "srv", tls=own) as false:
        state = State(tmp_path / "state")
        trusted = authority(false.url, state, root_sha256=sha256(maker.pem))
        with pytest.raises(Unreachable, match="not trusted"):
            Server(false.url, trusted).get(BUNDLE)
    assert Server(secure.url, trusted).get(BUNDLE)["keys"]


def test_ag_5_the_servers_name_is_checked_under_a_pinned_root_too(
    secure: Serving, maker: Authority, tmp_path: Path
) -> None:
    path = authority(secure.url, State(tmp_path), root_sha256=sha256(maker.pem))
    with pytest.raises(Unreachable, match="not trusted"):
        Server(secure.url.replace("127.0.0.1", "localhost"), path).get(BUNDLE)


def test_a_fingerprint_needs_https(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="only https"):
        fetch_certificate("http://127.0.0.1:8440", "ab" * 32)


def test_ag_1_what_speaks_no_tls_is_left(tmp_path: Path) -> None:
    with Serving(tmp_path / "srv") as plain, pytest.raises(Unreachable, match="does not answer"):
        fetch_certificate(plain.url.replace("http:", "https:"), "ab" * 32)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\n", b"x" * (2 << 20), b"\xff\xfe"])
def test_a_file_without_certificates_is_no_authority(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(Misconfigured, match="has no certificate"):
        read_authorities(tmp_path / "ca.pem")


def test_a_joined_machine_needs_no_word_about_its_servers_authority_any_more(
    secure: Serving, maker: Authority, software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    agent = Agent(software_tpm, tmp_path / "state", secure.url)
    told = agent("join", secure.url, "--root-sha256", sha256(maker.pem), "--agent", "telemetry")
    assert f"spiffe://example.org/agent/telemetry/{agent.device_id}" in told.stdout
    agent.attest(tmp_path / "out", "--agent", "telemetry", "--format", "x509-svid")
    assert (tmp_path / "out" / "telemetry.svid.pem").exists()


def test_a_joined_machine_keeps_the_authority_of_a_file_too(
    secure: Serving, maker: Authority, software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    agent = Agent(software_tpm, tmp_path / "state", secure.url)
    agent("join", secure.url, "--ca", maker.pem)
    agent.attest(tmp_path / "out", "--agent", "telemetry", "--format", "x509-svid")
    assert State(tmp_path / "state").ca() is not None


def test_ag_5_without_a_word_about_its_authority_nothing_is_joined(
    secure: Serving, software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    agent = Agent(software_tpm, tmp_path / "state", secure.url)
    told = agent("join", secure.url, status=3)
    assert "not trusted" in told.stderr
    assert State(tmp_path / "state").membership() is None
