"""`attestd check` finds each fault that would keep a directory from serving, and says how to mend it."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from attestd.config import load_config
from attestd.issue.jwk import public_jwk
from attestd.store import meta
from attestd.store.store import Store
from tests.attestd.cli.conftest import Run
from tpm.swtpm_ca import make_test_ca

NOW = datetime.now(UTC)


def a_signing_key(directory: Path) -> Path:
    return next((directory / "keys").glob("jwt-*.pem"))


def edit(directory: Path, old: str, new: str) -> None:
    path = directory / "attestd.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def in_store(directory: Path, key: str, value: str) -> None:
    store = Store.open(f"sqlite:{directory}/attestd.db")
    store.write(lambda tx: meta.put(tx, key, value))
    store.close()


def tls_pair(directory: Path, *, until: timedelta, other_key: bool = False, mode: int = 0o600) -> None:
    """A certificate and a key in tls/, which the configuration names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(NOW - timedelta(days=90)).not_valid_after(NOW + until)
    written = ec.generate_private_key(ec.SECP256R1()) if other_key else key
    (directory / "tls").mkdir()
    (directory / "tls/cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    pem = written.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "tls/key.pem").write_bytes(pem)
    (directory / "tls/key.pem").chmod(mode)
    edit(directory, "# certificate =", "certificate =")
    edit(directory, "# key =", "key =")


def key_set(directory: Path, content: str | None, *, after: str = "") -> None:
    """A resource whose keys are to be in keys/tools.jwks, and that file with this content."""
    with (directory / "attestd.toml").open("a", encoding="utf-8") as file:
        file.write(
            f'[[resource]]\naudience = "https://tools.example.org"\njwks = "file:keys/tools.jwks"\n{after}'
        )
    if content is not None:
        (directory / "keys/tools.jwks").write_text(content, encoding="utf-8")
        (directory / "keys/tools.jwks").chmod(0o600)


def public_keys(count: int, **members: str) -> str:
    found = [public_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()) for _ in range(count)]
    return json.dumps({"keys": [{**jwk, "kid": str(i), **members} for i, jwk in enumerate(found)]})


Damage = Callable[[Path], object]

FAULTS: list[tuple[str, Damage, str]] = [
    ("ad-3 key is open", lambda d: a_signing_key(d).chmod(0o644), "chmod 600"),
    ("ad-3 directory of keys is open", lambda d: (d / "keys").chmod(0o755), "chmod 700"),
    ("ad-3 key of another owner", lambda d: os.chown(a_signing_key(d), 12345, -1), "belongs to user 12345"),
    ("key is gone", lambda d: a_signing_key(d).unlink(), "is published, but its file is not in"),
    ("keys are gone", lambda d: shutil.rmtree(d / "keys"), "is not there"),
    ("key is damaged", lambda d: a_signing_key(d).write_bytes(b"x"), "no unencrypted PKCS#8 key"),
    ("keys of another domain", lambda d: edit(d, '"example.org"', '"other.org"'), "is for example.org"),
    ("roots are gone", lambda d: (d / "ek-roots").rmdir(), "the trust store"),
    ("a root is none", lambda d: (d / "ek-roots/a.pem").write_bytes(b"x"), "a.pem"),
    ("database is gone", lambda d: (d / "attestd.db").unlink(), "there is no database"),
    ("database is none", lambda d: (d / "attestd.db").write_bytes(b"x" * 4096), "database does not answer"),
    ("database is newer", lambda d: in_store(d, "schema", "99"), "install the newer attestd"),
    ("clock went back", lambda d: in_store(d, "highest_time", str(2**42)), "correct this machine's clock"),
    ("others can write", lambda d: (d / "attestd.toml").chmod(0o666), "chmod 600"),
    ("tls expired", lambda d: tls_pair(d, until=timedelta(days=-1)), "not today; renew it"),
    ("tls of two", lambda d: tls_pair(d, until=timedelta(days=90), other_key=True), "is not the key of"),
    ("ad-3 tls key open", lambda d: tls_pair(d, until=timedelta(days=90), mode=0o640), "chmod 600"),
    ("keys of a resource are gone", lambda d: key_set(d, None), "tools.jwks: No such file"),
    ("keys of a resource are none", lambda d: key_set(d, "[]"), "tools.jwks"),
    ("no key of a resource", lambda d: key_set(d, '{"keys": []}'), "has no key that can be used"),
    ("oa-3 a resource's private key", lambda d: key_set(d, public_keys(1, d="AA")), "holds a private key"),
    ("tls is gone", lambda d: edit(d, "# certificate =", 'key = "k"\ncertificate ='), "cert.pem"),
]


def test_a_fresh_directory_has_no_fault(attestd: Run, served: Path) -> None:
    checked = attestd("check", "--config", served, "--json")
    assert checked.exit_code == 0, checked.output
    lines = [json.loads(line) for line in checked.stdout.splitlines()]
    assert {line["level"] for line in lines} == {"ok", "warning"}
    assert {line["check"] for line in lines if line["level"] == "warning"} == {"ek-roots", "policies"}


@pytest.mark.parametrize(("damage", "said"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_is_found_and_told_with_what_to_do(
    attestd: Run, served: Path, damage: Damage, said: str
) -> None:
    damage(served.parent)
    checked = attestd("check", "--config", served)
    faults = [line for line in checked.stdout.splitlines() if line.startswith("fault")]
    assert checked.exit_code == 1, checked.output
    assert any(said in line for line in faults), checked.output


def test_checking_changes_nothing(attestd: Run, served: Path) -> None:
    in_store(served.parent, "schema", "0")
    before = sorted(served.parent.rglob("*"))
    assert "`attestd serve` brings it to" in attestd("check", "--config", served).stdout
    assert sorted(served.parent.rglob("*")) == before
    store = Store.open(load_config(served, {}).database)
    assert store.read(lambda tx: meta.get(tx, "schema")) == "0"
    store.close()


def test_a_good_certificate_is_no_fault_and_one_that_ends_soon_a_warning(attestd: Run, served: Path) -> None:
    tls_pair(served.parent, until=timedelta(days=90))
    assert attestd("check", "--config", served).exit_code == 0
    shutil.rmtree(served.parent / "tls")
    edit(served.parent, "\ncertificate =", "\n# certificate =")
    edit(served.parent, "\nkey =", "\n# key =")
    tls_pair(served.parent, until=timedelta(days=3))
    checked = attestd("check", "--config", served)
    assert checked.exit_code == 0
    assert "warning  tls" in checked.stdout


def test_the_keys_of_counterparts_are_counted_and_nothing_is_fetched(attestd: Run, served: Path) -> None:
    issuer = '[[subject_issuer]]\nissuer = "https://login.example.org"\naudience = "attestd"\n'
    key_set(served.parent, public_keys(2), after=f'{issuer}jwks = "discovery"\n')
    checked = attestd("check", "--config", served)
    assert checked.exit_code == 0, checked.output
    assert "https://tools.example.org: 2 keys in" in checked.stdout
    assert "https://login.example.org: keys are fetched from it when they are needed" in checked.stdout


def test_a_second_listener_is_told_with_its_address(attestd: Run, served: Path) -> None:
    tls_pair(served.parent, until=timedelta(days=90))
    edit(served.parent, "# mtls_listen =", "mtls_listen =")
    checked = attestd("check", "--config", served)
    assert checked.exit_code == 0, checked.output
    assert "127.0.0.1:8441 asks for certificates, as https://127.0.0.1:8441" in checked.stdout


def test_a_delegation_for_an_unknown_providers_users_is_warned_of(attestd: Run, served: Path) -> None:
    policy = served.parent / "plant.toml"
    policy.write_text(
        f"""name = "plant"
[pcrs]
7 = ["sha256:{"ab" * 32}"]
[[grant]]
agent = "helper"
formats = ["wit-svid"]
delegation = {{ issuers = ["https://login.example.org"], depth = 1 }}
""",
        encoding="utf-8",
    )
    assert attestd("policy", "apply", policy, "--config", served).exit_code == 0
    said = "plant@1 lets helper act for users of https://login.example.org, which no [[subject_issuer]] names"
    assert said in attestd("check", "--config", served).stdout
    issuer = '[[subject_issuer]]\nissuer = "https://login.example.org"\naudience = "a"\njwks = "discovery"\n'
    with served.open("a", encoding="utf-8") as file:
        file.write(issuer)
    checked = attestd("check", "--config", served)
    assert checked.exit_code == 0, checked.output
    assert "plant@1 lets" not in checked.stdout


def test_ad_6_a_software_tpm_is_told_on_loopback_and_refused_where_others_connect(
    attestd: Run, served: Path
) -> None:
    (served.parent / "ek-roots/a.pem").write_bytes(make_test_ca().root.public_bytes(Encoding.PEM))
    local = attestd("check", "--config", served)
    assert local.exit_code == 0
    assert "vouches for software TPMs; for tests only" in local.stdout
    edit(served.parent, "# behind_proxy = false", "behind_proxy = true")
    exposed = attestd("check", "--config", served)
    assert exposed.exit_code == 1
    assert "ek-roots remove" in exposed.stdout


def test_ad_6_switches_that_weaken_admission_are_warned_of(attestd: Run, served: Path) -> None:
    edit(served.parent, "tofu = false", "tofu = true")
    assert "weakened by tofu" in attestd("check", "--config", served).stdout
