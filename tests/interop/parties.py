"""A running service over TLS with everybody whom foreign implementations play: an agent on a machine with a
TPM, a resource, and the users' OpenID Provider.

The agent's credentials and key are files as `attestd agent attest` leaves them for any program; nothing of
ours stands between them and the foreign client.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from attestd.resource.new_key import new_key
from tests.attestd.web.certificates import Authority
from tests.deployment import configure
from tests.interop.javascript import Library, library, openid_provider
from tests.serving import Agent, Serving, free_port
from tpm.swtpm import SoftwareTpm

TOOLS = "https://tools.example.org"
LEDGER = "https://ledger.example.org"
DESK = "desk"
"""The client of the OpenID Provider whose users the service believes; `OTHER` is another one there."""
OTHER = "other"

_POLICY = f"""
name = "interop"
allow_unmeasured = [0, 7]
[pcrs]
0 = ["sha256:{"00" * 32}"]
7 = ["sha256:{"00" * 32}"]
[[grant]]
agent = "planner"
formats = ["x509-svid", "wit-svid", "client-attestation"]
ttl = "10m"
key = "any"
audiences = ["{TOOLS}", "{LEDGER}"]
scopes = ["plan.read", "plan.write"]
authorization_details = ["transfer"]
delegation = {{ issuers = ["PROVIDER"], depth = 1 }}
[[grant]]
agent = "courier"
formats = ["jwt-svid"]
ttl = "10m"
key = "any"
bearer = true
audiences = ["ISSUER", "{TOOLS}"]
scopes = ["plan.read"]
"""
"""Accepts a software TPM that has measured nothing."""


@dataclass(frozen=True)
class Credentials:
    """What one attestation left in a directory for one agent."""

    folder: Path
    agent: str

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.agent}.{suffix}"

    def text(self, suffix: str) -> str:
        return self.path(suffix).read_text().strip()

    @property
    def key(self) -> str:
        """PEM of the private key."""
        return self.text("key.pem")

    @property
    def client_id(self) -> str:
        """The SPIFFE ID in the certificate."""
        (first, *_) = x509.load_pem_x509_certificates(self.path("svid.pem").read_bytes())
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])


@dataclass(frozen=True)
class Parties:
    """Everybody, while the context of `parties_in` is open."""

    service: Serving
    authority: Path
    """PEM of who issued the service's certificate."""
    mtls: str
    """URL of the listener for clients that show a certificate."""
    provider: str
    machine: Agent
    planner: Credentials
    folder: Path
    oauth4webapi: Library
    openid_client: Library

    @property
    def issuer(self) -> str:
        return self.service.url

    @property
    def tools_key(self) -> str:
        """PEM of the key of the resource TOOLS, which is its own client_id."""
        return (self.folder / "tools.pem").read_text()

    def attest(self, name: str, agent: str, *options: str) -> Credentials:
        """Fresh credentials with a new software key."""
        out = self.folder / name
        self.machine.attest(out, "--agent", agent, "--ca", self.authority, *options)
        return Credentials(out, agent)

    def planner_anew(self, name: str) -> Credentials:
        formats = ("x509-svid", "wit-svid", "client-attestation")
        chosen = [word for form in formats for word in ("--format", form)]
        return self.attest(name, "planner", "--key", "software", *chosen)


@contextmanager
def parties_in(folder: Path) -> Iterator[Parties]:
    authority, provider_port = Authority(folder), free_port()
    service = Serving(folder / "service", policies=(), tls=authority.issue("server"))
    mtls_port, issuer = free_port(), f"http://127.0.0.1:{provider_port}"
    _configure(service, folder, provider=issuer, mtls_port=mtls_port)
    with ExitStack() as stack:
        stack.enter_context(openid_provider(provider_port, DESK, OTHER))
        stack.enter_context(service)
        machine = Agent(stack.enter_context(SoftwareTpm()), folder / "state", service.url)
        machine.enroll("--ca", authority.pem)
        parties = Parties(
            service=service,
            authority=authority.pem,
            mtls=f"https://127.0.0.1:{mtls_port}",
            provider=issuer,
            machine=machine,
            planner=Credentials(folder / "credentials", "planner"),
            folder=folder,
            oauth4webapi=stack.enter_context(library("oauth4webapi", authority=authority.pem)),
            openid_client=stack.enter_context(library("openid-client", authority=authority.pem)),
        )
        parties.planner_anew("credentials")
        yield parties


def _configure(service: Serving, folder: Path, *, provider: str, mtls_port: int) -> None:
    """One trusted OpenID Provider, one resource, the second listener, and the policy."""
    configure(service.directory, {"mtls_listen": f'"127.0.0.1:{mtls_port}"'})
    (service.directory / "keys" / "tools.jwks").write_text(new_key(folder / "tools.pem"))
    with (service.directory / "attestd.toml").open("a") as file:
        file.write(f'[[subject_issuer]]\nissuer = "{provider}"\naudience = "{DESK}"\n')
        file.write('jwks = "discovery"\nallow_private = true\n')
        file.write(f'[[resource]]\naudience = "{TOOLS}"\njwks = "file:keys/tools.jwks"\n')
    policy = folder / "interop.toml"
    policy.write_text(_POLICY.replace("PROVIDER", provider).replace("ISSUER", service.url))
    service.operate("policy", "apply", str(policy))
