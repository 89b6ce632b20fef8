"""Whose users are believed, who may ask about tokens, and where clients show certificates: said exactly."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attestd.addresses import is_private, issuer_fault
from attestd.config import Config, load_config
from tpm.errors import PolicyError

Write = Callable[[str], Path]
TLS = '[tls]\ncertificate = "c"\nkey = "k"\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration of these lines and say where."""

    def write(text: str) -> Path:
        path = tmp_path / "attestd.toml"
        path.write_text(f'trust_domain = "example.org"\n{text}', encoding="utf-8")
        return path

    return write


def read(path: Path) -> Config:
    return load_config(path, {})


def refused(path: Path, reason: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_config(path, {})
    assert caught.value.reason == reason
    assert said in caught.value.detail
    assert "\n" not in caught.value.detail


def issuer(**changes: str) -> str:
    """A healthy [[subject_issuer]] with these keys replaced, or left out where the value is empty."""
    lines = {
        "issuer": '"https://login.example.org"',
        "audience": '"attestd"',
        "jwks": '"discovery"',
    } | changes
    return "\n".join(
        ["[[subject_issuer]]", *(f"{key} = {value}" for key, value in lines.items() if value), ""]
    )


def resource(**changes: str) -> str:
    """The same of a [[resource]]."""
    lines = {"audience": '"https://tools.example.org"', "jwks": '"file:tools.jwks"'} | changes
    return "\n".join(["[[resource]]", *(f"{key} = {value}" for key, value in lines.items() if value), ""])


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        (issuer(issuer=""), "config_missing_key", "[[subject_issuer]] 1 issuer is missing"),
        (issuer(audience=""), "config_missing_key", "[[subject_issuer]] 1 audience is missing"),
        (issuer(jwks=""), "config_missing_key", "[[subject_issuer]] 1 jwks is missing"),
        (issuer(isuer='"x"'), "config_unknown_key", "did you mean issuer?"),
        (issuer(issuer="7"), "config_type", "issuer is an integer; it must be text"),
        (issuer(allow_private='"yes"'), "config_type", "true or false"),
        (issuer(audience='""'), "config_value", "audience is empty"),
        (issuer(audience='"two names"'), "config_value", "without spaces and wildcards"),
        (issuer(jwks='"https://login.example.org/jwks"'), "config_value", '"discovery" or "file:PATH"'),
        (issuer(jwks='"keys.jwks"'), "config_value", '"discovery" or "file:PATH"'),
        (issuer(jwks='"file:"'), "config_value", '"discovery" or "file:PATH"'),
        (issuer(jwks='"file:///etc/keys"'), "config_value", '"discovery" or "file:PATH"'),
        (issuer() + issuer(), "config_value", "[[subject_issuer]] 2 issuer is"),
        (
            issuer(issuer='"http://127.0.0.1:8440"', allow_private="true"),
            "config_value",
            "this service itself",
        ),
        ('[subject_issuer]\nissuer = "x"', "config_type", "is a table; it must be a list"),
        ("subject_issuer = [7]", "config_type", "holds an integer; write tables, [[subject_issuer]]"),
        ("[[subject_isuer]]", "config_unknown_key", "did you mean subject_issuer?"),
        (resource(audience=""), "config_missing_key", "[[resource]] 1 audience is missing"),
        (resource(jwks=""), "config_missing_key", "[[resource]] 1 jwks is missing"),
        (resource(jwks='"discovery"'), "config_value", 'write "file:PATH"'),
        (resource(secret='"x"'), "config_unknown_key", "[[resource]] 1 secret"),
        (resource(audience='"https://*.example.org"'), "config_value", "without spaces and wildcards"),
        (resource(client_id='"a b"'), "config_value", "without spaces and wildcards"),
        (resource() + resource(), "config_value", "[[resource]] 2 audience is"),
        (
            resource(client_id='"a"') + resource(client_id='"a"'),
            "config_value",
            "[[resource]] 2 client_id is",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(
    write: Write, text: str, reason: str, said: str
) -> None:
    refused(write(text), reason, said)
    assert len(read(write(issuer() + resource())).subject_issuers) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.org",
        "login.example.org",
        "file:///etc/passwd",
        "https://Login.example.org",
        "https://localhost:80@evil.example",
        "https://login.example.org?a=b",
        "https://login.example.org#a",
        "https://login.example.org:99999",
        "https://[::1",
    ],
)
def test_oa_10_an_issuer_is_one_https_url(write: Write, url: str) -> None:
    refused(write(issuer(issuer=f'"{url}"')), "config_value", "[[subject_issuer]] 1 issuer is")
    assert issuer_fault(url) is not None


def test_an_issuer_is_kept_as_it_is_written(write: Write) -> None:
    url = "https://login.example.org/Tenant/v2.0/"
    assert read(write(issuer(issuer=f'"{url}"'))).subject_issuers[0].issuer == url


PRIVATE = [
    "http://127.0.0.1:9000",
    "http://localhost:9000",
    "http://[::1]:9000",
    "https://10.1.2.3",
    "https://192.168.1.1",
    "https://169.254.169.254",
    "https://[fd00::1]",
    "https://[::ffff:127.0.0.1]",
    "https://100.64.0.1",
    "https://0.0.0.0",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_oa_10_keys_are_fetched_from_a_private_address_only_where_that_is_said(
    write: Write, url: str
) -> None:
    quoted = f'"{url}"'
    refused(write(issuer(issuer=quoted)), "config_value", "set allow_private = true")
    assert read(write(issuer(issuer=quoted, allow_private="true"))).subject_issuers[0].allow_private
    # A file is not fetched, so that there is nothing to allow.
    assert read(write(issuer(issuer=quoted, jwks='"file:a.jwks"'))).subject_issuers[0].issuer == url


@pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700::1111", "login.example.org"])
def test_public_addresses_and_names_are_not_private_by_themselves(host: str) -> None:
    assert not is_private(host)


@pytest.mark.parametrize("listen", ["8441", "127.0.0.1", "127.0.0.1:0", "::1:8441", "http://127.0.0.1:8441"])
def test_where_clients_show_certificates_is_an_address(write: Write, listen: str) -> None:
    refused(write(f'{TLS}mtls_listen = "{listen}"'), "config_value", "[tls] mtls_listen is")


def test_where_clients_show_certificates_needs_a_certificate_of_ours(write: Write) -> None:
    refused(write('[tls]\nmtls_listen = "127.0.0.1:8441"'), "config_missing_key", "certificate and key")
    behind = (
        'external_url = "https://a.example.org"\n[tls]\nbehind_proxy = true\nmtls_listen = "127.0.0.1:8441"'
    )
    refused(write(behind), "config_missing_key", "certificate and key")
    assert read(write(f'{TLS}mtls_listen = "127.0.0.1:8441"')).tls.mtls_listen == "127.0.0.1:8441"


@pytest.mark.parametrize(
    ("listen", "mtls", "free"),
    [
        ("127.0.0.1:8440", "127.0.0.1:8440", False),
        ("0.0.0.0:8440", "127.0.0.1:8440", False),
        ("127.0.0.1:8440", "[::]:8440", False),
        ("127.0.0.1:8440", "127.0.0.2:8440", True),
        ("127.0.0.1:8440", "127.0.0.1:8441", True),
    ],
)
def test_the_two_listeners_have_addresses_of_their_own(
    write: Write, listen: str, mtls: str, free: bool
) -> None:
    text = f'listen = "{listen}"\nexternal_url = "https://a.example.org"\n{TLS}mtls_listen = "{mtls}"'
    if free:
        assert read(write(text)).tls.mtls_listen == mtls
    else:
        refused(write(text), "config_value", "choose another port")


@pytest.mark.parametrize(
    ("external", "mtls", "url"),
    [
        ("https://attest.example.org", "0.0.0.0:8444", "https://attest.example.org:8444"),
        ("https://attest.example.org:8443/a/b", "127.0.0.1:9", "https://attest.example.org:9/a/b"),
        ("https://[::1]:8440", "[::1]:8441", "https://[::1]:8441"),
    ],
)
def test_the_listener_for_certificates_is_known_by_our_name_and_its_port(
    write: Write, external: str, mtls: str, url: str
) -> None:
    config = read(write(f'external_url = "{external}"\n{TLS}mtls_listen = "{mtls}"'))
    assert config.mtls_url == url


@pytest.mark.parametrize(("mtls", "exposed"), [("0.0.0.0:8441", True), ("127.0.0.1:8441", False)])
def test_ad_6_an_open_listener_for_certificates_exposes_the_service(
    write: Write, mtls: str, exposed: bool
) -> None:
    assert read(write(f'{TLS}mtls_listen = "{mtls}"')).exposed is exposed
