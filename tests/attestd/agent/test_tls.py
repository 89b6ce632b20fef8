"""Over TLS the agent believes the server whose authority it was told, and no other."""

from pathlib import Path

import pytest

from attestd.agent.errors import Unreachable
from attestd.agent.state import replace_file
from attestd.agent.transport import Server
from tests.attestd.web.certificates import Authority
from tests.serving import Agent, Serving
from tpm.swtpm import SoftwareTpm


@pytest.fixture
def machine(secure: Serving, software_tpm: SoftwareTpm, tmp_path: Path) -> Agent:
    return Agent(software_tpm, tmp_path / "state", secure.url)


def test_with_the_servers_authority_everything_works(
    machine: Agent, authority: Authority, tmp_path: Path
) -> None:
    assert machine.enroll("--ca", authority.pem).stdout.startswith("active ")
    machine.attest(tmp_path / "out", "--agent", "telemetry", "--format", "x509-svid", "--ca", authority.pem)
    assert (tmp_path / "out" / "telemetry.svid.pem").exists()


def test_ag_5_a_certificate_of_an_unknown_authority_is_refused(machine: Agent, tmp_path: Path) -> None:
    told = machine.enroll(status=3).stderr
    assert "certificate is not trusted" in told
    assert "--ca FILE" in told
    assert len(told.splitlines()) == 1


def test_ag_5_another_authoritys_word_does_not_count(machine: Agent, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    assert "certificate is not trusted" in machine.enroll("--ca", other.pem, status=3).stderr


def test_ag_5_a_file_of_authorities_counts_as_it_is_now(
    secure: Serving, authority: Authority, tmp_path: Path
) -> None:
    trusted, other = tmp_path / "ca.pem", Authority(tmp_path)
    server = Server(secure.url, trusted)
    trusted.write_bytes(authority.pem.read_bytes())
    assert server.get("/.well-known/spiffe/bundle")["keys"]
    replace_file(trusted, other.pem.read_bytes())
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        server.get("/.well-known/spiffe/bundle")
    replace_file(trusted, authority.pem.read_bytes())
    assert server.get("/.well-known/spiffe/bundle")["keys"]


def test_ag_5_a_certificate_for_another_name_is_refused(
    secure: Serving, software_tpm: SoftwareTpm, authority: Authority, tmp_path: Path
) -> None:
    named = Agent(software_tpm, tmp_path / "state", secure.url.replace("127.0.0.1", "localhost"))
    assert "not valid for 'localhost'" in named.enroll("--ca", authority.pem, status=3).stderr


def test_ag_5_plain_http_is_not_spoken_to_a_tls_server(
    secure: Serving, software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    plain = Agent(software_tpm, tmp_path / "state", secure.url.replace("https", "http"))
    assert len(plain.enroll(status=3).stderr.splitlines()) == 1


def test_ag_5_nor_tls_to_a_plain_server(
    serving: Serving, software_tpm: SoftwareTpm, authority: Authority, tmp_path: Path
) -> None:
    secure = Agent(software_tpm, tmp_path / "state", serving.url.replace("http", "https"))
    assert "does not answer" in secure.enroll("--ca", authority.pem, status=3).stderr


def test_a_file_that_holds_no_authority_is_a_usage_error(machine: Agent, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    told = machine.enroll("--ca", tmp_path / "empty.pem", status=2).stderr
    assert "empty.pem has no certificate" in told
