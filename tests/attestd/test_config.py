"""A configuration is read whole and strictly, or refused in one line that says where, what and what to do."""

from pathlib import Path

import pytest

from attestd.config import Config, load_config
from attestd.counterparts import Resource, SubjectIssuer
from tpm.errors import PolicyError

DEVICE = "ab" * 32
COMPLETE = f"""
trust_domain = "plant.example.org"
listen = "0.0.0.0:8443"
external_url = "https://attest.example.org"
database = "postgresql://attestd@db/attestd"
keys = "secret/keys"
workers = 3
[admission]
ek_roots = "/etc/attestd/roots"
ek_allow = ["{DEVICE}"]
auto_admit = true
tofu = true
pending_max = 5
denied_manufacturers = ["IFX", "ST M", "id:00001014"]
denied_firmware = ["000700550000000a"]
pending_age = "1d"
[tls]
certificate = "tls/cert.pem"
key = "tls/key.pem"
behind_proxy = false
mtls_listen = "0.0.0.0:8444"
[limits]
nonce_ttl = "2m"
clock_skew = "3s"
body = 2048
attestation_body = 4096
unproven_per_second = 0
device_per_minute = 7
audit_unproven = 0
[[subject_issuer]]
issuer = "https://login.example.org"
audience = "attestd"
jwks = "discovery"
[[subject_issuer]]
issuer = "http://127.0.0.1:9000/realm"
audience = "https://attest.example.org"
jwks = "file:keys/realm.jwks"
allow_private = true
[[resource]]
audience = "https://tools.example.org"
jwks = "file:/etc/attestd/tools.jwks"
[[resource]]
audience = "https://tools.example.org"
jwks = "file:keys/other.jwks"
client_id = "other"
"""


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Write a configuration and say where."""

    def write(text: str) -> Path:
        path = tmp_path / "attestd.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_one_line_is_a_configuration_and_the_rest_has_safe_defaults(write, tmp_path) -> None:
    config = load_config(write('trust_domain = "example.org"'), {})
    assert config.listen == "127.0.0.1:8440"
    assert config.external_url == "http://127.0.0.1:8440"
    assert config.database == f"sqlite:{tmp_path}/attestd.db"
    assert config.keys == tmp_path / "keys"
    assert config.workers == 1
    assert config.admission.ek_roots == tmp_path / "ek-roots"
    assert config.admission.ek_allow == frozenset()
    assert config.admission.denied_manufacturers == config.admission.denied_firmware == frozenset()
    assert not config.admission.auto_admit
    assert not config.admission.tofu
    assert (config.limits.nonce_ttl, config.limits.clock_skew) == (60, 5)
    assert (config.limits.body, config.limits.attestation_body) == (4 << 20, 32 << 20)
    assert (config.limits.unproven_per_second, config.limits.device_per_minute) == (50, 60)
    assert config.limits.audit_unproven == 10
    assert (config.tls.mtls_listen, config.mtls_url) == (None, None)
    assert (config.subject_issuers, config.resources) == ((), ())
    assert config.unsafe_modes() == ()
    assert not config.exposed


def test_every_key_is_read(write, tmp_path) -> None:
    config = load_config(write(COMPLETE), {})
    assert (config.trust_domain, config.listen) == ("plant.example.org", "0.0.0.0:8443")
    assert config.external_url == "https://attest.example.org"
    assert config.database == "postgresql://attestd@db/attestd"
    assert (config.keys, config.workers) == (tmp_path / "secret/keys", 3)
    admission, tls, limits = config.admission, config.tls, config.limits
    assert admission.ek_roots == Path("/etc/attestd/roots")
    assert admission.ek_allow == {DEVICE}
    assert (admission.auto_admit, admission.tofu) == (True, True)
    assert (admission.pending_max, admission.pending_age) == (5, 86400)
    assert admission.denied_manufacturers == {"IFX", "ST M", "id:00001014"}
    assert admission.denied_firmware == {0x000700550000000A}
    assert (tls.certificate, tls.key) == (tmp_path / "tls/cert.pem", tmp_path / "tls/key.pem")
    assert tls.mtls_listen == "0.0.0.0:8444"
    assert (limits.nonce_ttl, limits.clock_skew) == (120, 3)
    assert (limits.body, limits.attestation_body) == (2048, 4096)
    assert (limits.unproven_per_second, limits.device_per_minute, limits.audit_unproven) == (0, 7, 0)
    assert config.subject_issuers == (
        SubjectIssuer("https://login.example.org", "attestd", "discovery", False),
        SubjectIssuer(
            "http://127.0.0.1:9000/realm",
            "https://attest.example.org",
            tmp_path / "keys/realm.jwks",
            True,
        ),
    )
    tools = "https://tools.example.org"
    assert config.resources == (
        Resource(audience=tools, jwks=Path("/etc/attestd/tools.jwks"), client_id=tools),
        Resource(audience=tools, jwks=tmp_path / "keys/other.jwks", client_id="other"),
    )


def test_paths_are_relative_to_the_file_wherever_it_is_read_from(write, tmp_path, monkeypatch) -> None:
    write('trust_domain = "example.org"')
    monkeypatch.chdir(tmp_path.parent)
    config = load_config(Path(tmp_path.name) / "attestd.toml", {})
    assert config.path == tmp_path / "attestd.toml"
    assert config.keys == tmp_path / "keys"


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ('trust_domian = "example.org"', "config_unknown_key", "did you mean trust_domain?"),
        (
            'trust_domain = "example.org"\n[limits]\nnonce_tll = "1m"',
            "config_unknown_key",
            "[limits] nonce_tll",
        ),
        ('trust_domain = "example.org"\nzzz = 1', "config_unknown_key", "known are admission, database"),
        ('trust_domain = "example.org"\n[limit]\n', "config_unknown_key", "did you mean limits?"),
        ("", "config_missing_key", "trust_domain is missing"),
        ("trust_domain = 7", "config_type", "trust_domain is an integer; it must be text"),
        ('trust_domain = "Example.org"', "config_value", "a trust domain is 1 to 255 lower-case"),
        ('trust_domain = ""', "config_value", "trust_domain is empty"),
        ("trust_domain = ", "config_syntax", "not TOML"),
        ('trust_domain = "a"\ntrust_domain = "b"', "config_syntax", "not TOML"),
    ],
)
def test_what_is_not_known_or_not_well_formed_is_refused(write, text, reason, said) -> None:
    _refused(write(text), reason, said)


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        ('listen = "8440"', "config_value", "HOST:PORT"),
        ('listen = "127.0.0.1:0"', "config_value", "1 to 65535"),
        ('listen = "127.0.0.1:65536"', "config_value", "1 to 65535"),
        ('listen = "::1:8440"', "config_value", "brackets"),
        ('listen = "[::x]:8440"', "config_value", "IPv6"),
        ('external_url = "attest.example.org"', "config_value", "absolute"),
        ('external_url = "https://attest.example.org/"', "config_value", "slash"),
        ('external_url = "https://Attest.example.org"', "config_value", "lower case"),
        ('external_url = "https://me@attest.example.org"', "config_value", "without user"),
        ('external_url = "https://attest.example.org?a"', "config_value", "query"),
        ('external_url = "http://attest.example.org"', "config_value", "use https"),
        ('external_url = "ftp://attest.example.org"', "config_value", "absolute"),
        ('database = "mysql://db"', "config_value", "sqlite:FILE"),
        ('database = "sqlite:"', "config_value", "sqlite:FILE"),
        ('database = "sqlite:///x.db"', "config_value", "sqlite:FILE"),
        ("workers = 2", "config_value", "must be 1 with SQLite"),
        ('workers = "2"', "config_type", "workers is text; it must be an integer"),
        ("[admission]\nauto_admit = 1", "config_type", "true or false"),
        ("[admission]\npending_max = true", "config_type", "an integer"),
        ("[admission]\ndenied_manufacturers = ['Infineon']", "config_value", "its TCG id"),
        ("[admission]\ndenied_manufacturers = ['IFX ']", "config_value", "its TCG id"),
        ("[admission]\ndenied_manufacturers = ['']", "config_value", "its TCG id"),
        ("[admission]\ndenied_firmware = ['1']", "config_value", "16 lower-case hex digits"),
        ("[admission]\ndenied_firmware = [7]", "config_type", "each entry must be text"),
        ("[admission]\nek_allow = [7]", "config_type", "each entry must be text"),
        ("[admission]\nek_allow = ['AB']", "config_value", "64 lower-case hex digits"),
        ('[admission]\nek_allow = "absent.txt"', "file_unreadable", "absent.txt"),
        ('[limits]\nnonce_ttl = "60"', "config_value", "duration"),
        ('[limits]\nnonce_ttl = "2h"', "config_value", "1 to 3600 seconds"),
        ("[limits]\nnonce_ttl = 60", "config_type", "must be text"),
        ("[limits]\nbody = 10", "config_value", "1024 to"),
        ("[limits]\nunproven_per_second = -1", "config_value", "0 to"),
        ('[tls]\ncertificate = "c.pem"', "config_missing_key", "[tls] key is missing"),
        ('[tls]\nkey = "k.pem"', "config_missing_key", "[tls] certificate is missing"),
        ('[tls]\nmtls_listen = "0.0.0.0:8441"', "config_missing_key", "needs [tls] certificate and key"),
        ("tls = 1", "config_type", "a table"),
        ("keys = 2026-11-25", "config_type", "a date or time"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(write, line, reason, said) -> None:
    _refused(write(f'trust_domain = "example.org"\n{line}\n'), reason, said)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.7", "attest.example.org", "[2001:db8::1]"])
def test_ad_6_an_open_address_is_refused_without_tls_or_proxy(write, host) -> None:
    base = f'trust_domain = "example.org"\nlisten = "{host}:8440"\nexternal_url = "https://a.example.org"\n'
    _refused(write(base), "config_exposed", "unencrypted")
    assert load_config(write(base + '[tls]\ncertificate = "c"\nkey = "k"\n'), {}).exposed
    assert load_config(write(base + "[tls]\nbehind_proxy = true\n"), {}).exposed


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_loopback_needs_neither_tls_nor_proxy(write, host) -> None:
    config = load_config(write(f'trust_domain = "example.org"\nlisten = "{host}:8440"\n'), {})
    assert not config.exposed
    assert config.external_url == f"http://{host}:8440"


def test_ad_6_switches_that_weaken_admission_are_told(write) -> None:
    assert load_config(write(COMPLETE), {}).unsafe_modes() == ("tofu", "auto_admit")
    quiet = COMPLETE.replace("auto_admit = true", "").replace("tofu = true", "")
    assert load_config(write(quiet), {}).unsafe_modes() == ()


@pytest.mark.parametrize(
    "listening", ['listen = "0.0.0.0:1"\n[tls]\ncertificate = "c"\nkey = "k"', "[tls]\nbehind_proxy = true"]
)
def test_where_the_address_cannot_be_guessed_it_must_be_said(write, listening) -> None:
    _refused(write(f'trust_domain = "example.org"\n{listening}'), "config_missing_key", "external_url")


def test_with_tls_our_address_is_https(write) -> None:
    text = 'trust_domain = "example.org"\n[tls]\ncertificate = "c"\nkey = "k"'
    assert load_config(write(text), {}).external_url == "https://127.0.0.1:8440"


def test_allowed_devices_may_stand_in_a_file(write, tmp_path) -> None:
    (tmp_path / "allow.txt").write_text(f"# the gateways\n{DEVICE}  # one\n\n{'cd' * 32}\n")
    text = 'trust_domain = "example.org"\n[admission]\nek_allow = "allow.txt"'
    assert load_config(write(text), {}).admission.ek_allow == {DEVICE, "cd" * 32}
    (tmp_path / "allow.txt").write_text("not an identifier\n")
    _refused(write(text), "config_value", "not an identifier")


def test_the_file_is_found_in_the_order_that_is_told(write, tmp_path, monkeypatch) -> None:
    local = write('trust_domain = "local.example"')
    named = tmp_path / "named.toml"
    named.write_text('trust_domain = "named.example"')
    monkeypatch.chdir(tmp_path)
    environ = {"ATTESTD_CONFIG": str(named)}
    assert load_config(None, {}).trust_domain == "local.example"
    assert load_config(None, environ).trust_domain == "named.example"
    assert load_config(local, environ).trust_domain == "local.example"


def test_a_missing_file_says_how_to_make_one(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("attestd.config.SYSTEM_FILE", tmp_path / "absent.toml")
    with pytest.raises(PolicyError) as caught:
        load_config(None, {})
    assert caught.value.reason == "file_unreadable"
    assert "attestd init" in caught.value.detail


@pytest.mark.parametrize("environ", [{}, {"ATTESTD_CONFIG": ""}])
def test_a_named_file_that_is_not_there_is_not_replaced_by_another(
    write, tmp_path, environ, monkeypatch
) -> None:
    write('trust_domain = "example.org"')
    monkeypatch.chdir(tmp_path)
    _refused(tmp_path / "absent.toml", "file_unreadable", "absent.toml")
    assert isinstance(load_config(None, environ), Config)


def test_a_file_that_is_not_text_is_refused(tmp_path) -> None:
    path = tmp_path / "attestd.toml"
    path.write_bytes(b"trust_domain = '\xff'")
    _refused(path, "config_syntax", "UTF-8")


def _refused(path: Path, reason: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_config(path, {})
    assert caught.value.reason == reason
    assert said in caught.value.detail
    assert "\n" not in caught.value.detail
