"""MT: are credentials bound to fit keys, short-lived, unrepeatable, and each good for one thing?"""

import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.clock import now_ms, parse_rfc3339
from tests.attester import Machine, b64, b64url, enrollment_body, jwk_of, new_key, new_round, signing_key
from tests.deployment import SERVER, Deployment, credential, policy_for
from tests.tpm.verify.test_endorsement_strength import roca_modulus
from tpm.errors import PolicyError

ATTEST = "/v1/attestations"
AUDIENCE = "https://a.example.org"
TOKEN = credential("jwt-svid", audience=[AUDIENCE])


def x509_for(key: Any) -> dict[str, Any]:
    return credential("x509-svid", key=jwk_of(key))


def leaf_of(answer: dict[str, Any], place: int = 0) -> x509.Certificate:
    return x509.load_pem_x509_certificate(answer["credentials"][place]["certificate_chain"].encode())


# MT-3

P256, RSA = new_key("p256"), new_key("rsa")
EC_JWK, RSA_JWK = jwk_of(P256), jwk_of(RSA)


def rsa_jwk(modulus: int, exponent: str = "AQAB") -> dict[str, str]:
    raw = modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")
    return {"kty": "RSA", "alg": "PS256", "n": b64url(raw), "e": exponent}


def on(curve: ec.EllipticCurve, name: str) -> dict[str, str]:
    numbers = ec.generate_private_key(curve).public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    return {"kty": "EC", "crv": name, "alg": "ES256", "x": b64url(x), "y": b64url(y)}


N = RSA.public_key().public_numbers().n  # type: ignore[union-attr]
JWKS: dict[str, Any] = {
    "RSA-1024": rsa_jwk(rsa.generate_private_key(65537, 1024).public_key().public_numbers().n),
    "ROCA": rsa_jwk(roca_modulus(2048)),
    "e = 3": rsa_jwk(N, b64url(b"\3")),
    "e = 1": rsa_jwk(N, b64url(b"\1")),
    "even": rsa_jwk(N - 1),
    "a small factor": rsa_jwk((N // 3) * 3 if (N // 3) * 3 % 2 else (N // 3) * 3 - 3),
    "RSA-8192": rsa_jwk((1 << 8191) + 1),
    "RS256": {**RSA_JWK, "alg": "RS256"},
    "leading zero": {**RSA_JWK, "n": b64url(b"\0" + N.to_bytes(256, "big"))},
    "private RSA": {**RSA_JWK, "d": "AQAB"},
    "P-192": on(ec.SECP192R1(), "P-192"),
    "P-192 as P-256": on(ec.SECP192R1(), "P-256"),
    "secp256k1": on(ec.SECP256K1(), "secp256k1"),
    "secp256k1 as P-256": on(ec.SECP256K1(), "P-256"),
    "P-521": {**jwk_of(new_key("p521")), "alg": "ES512"},
    "ES384 of P-256": {**EC_JWK, "alg": "ES384"},
    "no alg": {name: value for name, value in EC_JWK.items() if name != "alg"},
    "no crv": {name: value for name, value in EC_JWK.items() if name != "crv"},
    "kid": {**EC_JWK, "kid": "1"},
    "use": {**EC_JWK, "use": "sig"},
    "x5u": {**EC_JWK, "x5u": "http://169.254.169.254/"},
    "private": {**EC_JWK, "d": EC_JWK["x"]},
    "off the curve": {**EC_JWK, "y": EC_JWK["x"]},
    "infinity": {**EC_JWK, "x": b64url(bytes(32)), "y": b64url(bytes(32))},
    "short x": {**EC_JWK, "x": b64url(b64decode(EC_JWK["x"] + "=", "-_")[1:])},
    "padded": {**EC_JWK, "x": EC_JWK["x"] + "="},
    "standard alphabet": {**EC_JWK, "x": "+/" + EC_JWK["x"][2:]},
    "symmetric": {"kty": "oct", "alg": "HS256", "k": EC_JWK["x"]},
    "Ed25519": {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": EC_JWK["x"]},
    "none": {**EC_JWK, "alg": "none"},
    "a number": {**EC_JWK, "x": 1},
    "empty": {},
}


@pytest.mark.parametrize("kind", JWKS)
@pytest.mark.parametrize("form", ["x509-svid", "wit-svid"])
def test_mt_3_a_key_that_is_no_fit_key_of_its_algorithm_is_malformed(
    plant: Deployment, gateway: Machine, kind: str, form: str
) -> None:
    body = plant.round(gateway, credentials=[credential(form, key=JWKS[kind])]).body()
    status, told = plant.post(ATTEST, body)
    assert (status, told["code"]) in {(400, "malformed"), (400, "noncanonical")}, told
    assert told["pointer"].startswith("/request/credentials/0/key")
    plant.attest(gateway, credentials=[credential(form, key=jwk_of(new_key("p256")))])


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
@pytest.mark.parametrize("form", ["x509-svid", "wit-svid"])
def test_mt_3_fit_keys_are_bound(plant: Deployment, gateway: Machine, kind: str, form: str) -> None:
    key = new_key(kind)
    answer = plant.attest(gateway, credentials=[credential(form, key=jwk_of(key))])
    if form == "x509-svid":
        assert leaf_of(answer).public_key() == key.public_key()
    else:
        claims = jwt.decode(answer["credentials"][0]["token"], options={"verify_signature": False})
        assert claims["cnf"] == {"jwk": jwk_of(key)}


@pytest.mark.parametrize("use", ["x509", "wit", "jwt", "ear", "audit"])
@pytest.mark.parametrize("form", ["x509-svid", "wit-svid"])
def test_mt_3_no_credential_is_bound_to_a_key_of_ours(
    plant: Deployment, gateway: Machine, use: str, form: str
) -> None:
    ours = plant.service.keyring.at(now_ms()).signer(use).private_key
    wanted = [x509_for(new_key("p256")), credential(form, key=jwk_of(ours))]
    body = plant.round(gateway, credentials=wanted).body()
    told = plant.problem(body, 409, "identity_bound", cause="key_reuse")
    assert told["pointer"] == "/credentials/1/key"
    plant.attest(gateway.later(), credentials=wanted[:1])


@pytest.mark.parametrize("resident", [False, True], ids=["in software", "in the TPM"])
def test_mt_3_nor_to_the_key_of_another_device(
    plant: Deployment, gateway: Machine, resident: bool
) -> None:
    other, key = plant.machine(), signing_key()
    asked: dict[str, Any] = {"credentials": [x509_for(key.key)]}
    if resident:
        asked = {"certified": [key], "credentials": [credential("x509-svid", key={"name": key.name.hex()})]}
    plant.attest(other, credentials=[x509_for(key.key)])
    body = plant.round(gateway, **asked).body()
    told = plant.problem(body, 409, "identity_bound", cause="key_reuse", device_id=gateway.device_id)
    assert told["pointer"] == "/credentials/0/key"
    # The same device may use its key again, for every format.
    plant.attest(other.later(), credentials=[x509_for(key.key), credential("wit-svid", key=jwk_of(key.key))])
    # When nothing is bound to it any more, it is free.
    plant.operate("device", "ban", other.device_id)
    plant.attest(gateway.later(), **asked)


# MT-5

TTLS = ['"-1m"', '"0s"', '"0m"', '"1e999"', '"3600"', '"9999y"', '"25h"', '""', '" 5m"']
TTLS += ["nan", "inf", "true", "3600", "600.0", "2027-01-31"]


@pytest.mark.parametrize("ttl", TTLS)
def test_mt_5_a_time_to_live_that_is_none_is_refused_with_its_policy(plant: Deployment, ttl: str) -> None:
    path = plant.directory / "ttl.toml"
    path.write_text(policy_for(Machine.create(None), name="ttl").replace('ttl = "5m"', f"ttl = {ttl}"))
    assert "ttl" in plant.operate("policy", "apply", str(path), status=1).stderr


@pytest.mark.parametrize("member", ["ttl", "exp", "expires_at", "not_after", "lifetime"])
@pytest.mark.parametrize("value", [3600, -1, "9999-12-31T23:59:59Z", "24h", True])
def test_mt_5_a_device_cannot_ask_for_a_longer_life(
    plant: Deployment, gateway: Machine, member: str, value: Any
) -> None:
    wanted = x509_for(new_key("p256"))
    body = plant.round(gateway, credentials=[wanted | {member: value}]).body()
    assert plant.problem(body, 400, "malformed")["pointer"] == f"/request/credentials/0/{member}"
    plant.attest(gateway, credentials=[wanted])


def test_mt_5_a_credential_lives_as_long_as_its_grant_says(plant: Deployment, gateway: Machine) -> None:
    key, now = signing_key(), now_ms()
    resident = credential("wit-svid", "telemetry", key={"name": key.name.hex()})
    body = plant.round(
        gateway,
        now=now,
        certified=[key],
        credentials=[x509_for(new_key("p256")), resident, TOKEN],
    ).body()
    answer = plant.ask(ATTEST, body, now=now)
    ends = [parse_rfc3339(issued["expires_at"]) for issued in answer["credentials"]]
    assert [(now + ttl * 1000) // 1000 * 1000 for ttl in (300, 600, 300)] == ends
    leaf = leaf_of(answer)
    assert leaf.not_valid_after_utc.timestamp() * 1000 == ends[0]
    for place in (1, 2):
        token = answer["credentials"][place]["token"]
        assert jwt.decode(token, options={"verify_signature": False})["exp"] * 1000 == ends[place]
    assert now < parse_rfc3339(answer["renew_after"]) < min(ends)


def test_mt_5_nothing_outlives_the_authority_that_signed_it(deployment: Deployment, machine: Machine) -> None:
    authority = deployment.service.keyring.at(now_ms()).signer("x509").authority
    assert authority is not None
    near = authority.not_after - 60_000
    body = deployment.round(machine, now=near, credentials=[x509_for(new_key("p256")), TOKEN]).body()
    answer = deployment.ask(ATTEST, body, now=near)
    ends = [parse_rfc3339(issued["expires_at"]) for issued in answer["credentials"]]
    assert ends == [authority.not_after, near // 1000 * 1000 + 300_000]
    over = authority.not_after + 1000
    body = deployment.round(machine.later(), now=over, credentials=[x509_for(new_key("p256"))]).body()
    before = deployment.counts()
    with pytest.raises(PolicyError, match="nothing can be issued"):
        deployment.ask(ATTEST, body, now=over)
    assert deployment.counts() == before


# MT-6


def test_mt_6_serials_are_random_and_do_not_come_again_after_a_restart(
    deployment: Deployment, machine: Machine
) -> None:
    serials: list[int] = []
    for clock in range(4):
        wanted = [x509_for(new_key("p256")) for _ in range(16)]
        answer = deployment.attest(machine.later(clock), credentials=wanted)
        serials += [leaf_of(answer, place).serial_number for place in range(16)]
        deployment.restart()
    assert len(set(serials)) == 64
    assert all(0 < serial < 1 << 159 for serial in serials)
    # At least 64 bits are chance: every bit of the upper ones is sometimes set and sometimes not.
    for bit in range(94, 158):
        assert len({serial >> bit & 1 for serial in serials}) == 2
    recorded = {row["credential_id"] for row in deployment.rows("SELECT credential_id FROM credentials")}
    assert recorded == {f"{serial:040x}" for serial in serials}


# MT-7 and MT-8: no token opens anything here yet; each is good for its own kind alone.


def keys_of(deployment: Deployment, path: str, use: str | None = None) -> dict[str, Any]:
    found = deployment.client.get(path).get_json()["keys"]
    return {key["kid"]: key for key in found if "kid" in key and (use is None or key["use"] == use)}


def verified(token: str, keys: dict[str, Any], **options: Any) -> dict[str, Any]:
    """As a relying party does: the key by its kid, the algorithm by the key."""
    jwk = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(token, jwt.PyJWK(jwk), algorithms=[jwk["alg"]], **options)
    return claims


def test_mt_8_each_token_is_of_one_kind_under_keys_of_that_kind(plant: Deployment, gateway: Machine) -> None:
    answer = plant.attest(gateway, credentials=[TOKEN, credential("wit-svid", key=jwk_of(new_key("p256")))])
    svid, wit = (issued["token"] for issued in answer["credentials"])
    tokens = {"JWT": svid, "wit+jwt": wit, "eat+jwt": answer["result"]}
    assert {typ: jwt.get_unverified_header(token)["typ"] for typ, token in tokens.items()} == {
        typ: typ for typ in tokens
    }
    published = keys_of(plant, "/.well-known/jwks.json")
    bundle = {use: keys_of(plant, "/.well-known/spiffe/bundle", use) for use in ("jwt-svid", "wit-svid")}
    assert verified(svid, published, audience=AUDIENCE)["sub"] == answer["credentials"][0]["spiffe_id"]
    assert verified(svid, bundle["jwt-svid"], audience=AUDIENCE)
    assert verified(wit, bundle["wit-svid"])["sub"] == answer["credentials"][1]["spiffe_id"]
    assert verified(answer["result"], published)["sub"] == gateway.device_id
    for audience in ("https://b.example.org", AUDIENCE + "/", "https://a.example.org.evil.example"):
        with pytest.raises(jwt.InvalidAudienceError):
            verified(svid, published, audience=audience)
    for token, keys in ((wit, bundle["jwt-svid"]), (wit, published), (svid, bundle["wit-svid"])):
        with pytest.raises(KeyError):
            verified(token, keys, audience=AUDIENCE)
    with pytest.raises(KeyError):
        verified(answer["result"], bundle["jwt-svid"])


BEARERS: list[Callable[[str], str]] = [
    lambda token: f"Bearer {token}",
    lambda token: f"DPoP {token}",
    lambda token: "Bearer " + ".".join((b64url(b'{"alg":"none"}'), token.split(".")[1], "")),
    lambda token: "Bearer " + "." * 50_000,
]


@pytest.mark.parametrize("header", BEARERS)
def test_mt_7_a_token_in_a_header_opens_nothing(
    plant: Deployment, gateway: Machine, header: Callable[[str], str]
) -> None:
    answer = plant.attest(gateway, credentials=[TOKEN])
    other = plant.machine()
    forged = replace(plant.round(other, credentials=[TOKEN]), machine=gateway.later()).body()
    for token in (answer["credentials"][0]["token"], answer["result"]):
        told = plant.client.post(ATTEST, json=forged, headers={"Authorization": header(token)})
        assert (told.status_code, told.get_json()["code"]) == (403, "attestation_failed")
    plant.attest(other, credentials=[TOKEN])


# MT-9


def test_mt_9_keys_rotate_under_load_without_one_failure(deployment: Deployment) -> None:
    machines = [deployment.machine() for _ in range(2)]
    deployment.apply(policy_for(machines[0]))
    stop, failures, tokens = threading.Event(), [], []

    def work(machine: Machine) -> None:
        client, step = deployment.client.application.test_client(), 0
        while not stop.is_set():
            step += 1
            told = client.post("/v1/challenges", json={"device_id": machine.device_id}).get_json()
            round_ = new_round(machine.later(step), told, SERVER, credentials=[TOKEN])
            answer = client.post(ATTEST, json=round_.body())
            if answer.status_code != 200:
                failures.append(answer.get_json())
            else:
                tokens.append(answer.get_json()["credentials"][0]["token"])

    threads = [threading.Thread(target=work, args=(machine,)) for machine in machines]
    for thread in threads:
        thread.start()
    try:
        old, new = rotate(deployment)
        wait_until(lambda: any(jwt.get_unverified_header(token)["kid"] == new for token in tokens))
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert failures == []
    published = keys_of(deployment, "/.well-known/jwks.json")
    assert {jwt.get_unverified_header(token)["kid"] for token in tokens} == {old, new}
    assert all(verified(token, published, audience=AUDIENCE) for token in tokens)
    # The old one is published as long as something that it signed lives.
    assert "lives" in deployment.operate("keys", "retire", old, status=1).stderr


def rotate(deployment: Deployment) -> tuple[str, str]:
    """Add a key for JWT-SVIDs and let it sign at once; the old kid and the new one."""
    (old,) = [key["kid"] for key in deployment.listed("keys", "list") if key["use"] == "jwt"]
    deployment.operate("keys", "add", "--use", "jwt")
    (new,) = [k["kid"] for k in deployment.listed("keys", "list") if k["use"] == "jwt" and k["kid"] != old]
    assert "less than 300 s" in deployment.operate("keys", "activate", new, status=1).stderr
    deployment.operate("keys", "activate", new, "--now")
    return old, new


def wait_until(holds: Callable[[], bool], seconds: float = 15) -> None:
    waiting = threading.Event()
    for _ in range(int(seconds * 20)):
        if holds():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not come to hold in time")


def test_mt_9_a_key_is_published_before_it_signs_and_a_retired_one_no_more(
    deployment: Deployment, machine: Machine
) -> None:
    old, new = rotate(deployment)
    deployment.restart()
    answer = deployment.attest(machine, credentials=[TOKEN])
    assert jwt.get_unverified_header(answer["credentials"][0]["token"])["kid"] == new
    assert {old, new} <= keys_of(deployment, "/.well-known/jwks.json").keys()
    deployment.operate("keys", "retire", old)
    deployment.restart()
    published = keys_of(deployment, "/.well-known/jwks.json")
    assert (old in published, new in published) == (False, True)


# MT-11


NO_NAMES = ["../billing", "/spire/server", "spire/server", "a/b", "", ".", "..", "billing/", "BILLING"]
NO_NAMES += ["billing\n", "billing ", "b%69lling", "spiffe://example.org/agent/billing", "é", "-billing"]
NO_NAMES += ["billing_x", "a" * 64]


@pytest.mark.parametrize("agent", NO_NAMES)
def test_mt_11_an_agents_name_is_a_name(plant: Deployment, gateway: Machine, agent: str) -> None:
    wanted = x509_for(new_key("p256"))
    body = plant.round(gateway, credentials=[wanted | {"agent": agent}]).body()
    assert plant.problem(body, 400, "malformed")["pointer"] == "/request/credentials/0/agent"
    plant.attest(gateway, credentials=[wanted])


@pytest.mark.parametrize("agent", ["spire", "admin", "server", "telemetry2", "b" * 63, "0"])
def test_mt_11_one_that_is_not_granted_is_not_entitled(
    plant: Deployment, gateway: Machine, agent: str
) -> None:
    wanted = x509_for(new_key("p256"))
    body = plant.round(gateway, credentials=[wanted, wanted | {"agent": agent}]).body()
    told = plant.problem(body, 403, "not_entitled", cause="grant_missing")
    assert told["pointer"] == "/credentials/1"
    plant.attest(gateway.later(), credentials=[wanted])


@pytest.mark.parametrize("member", ["spiffe_id", "sub", "id", "device_id", "trust_domain"])
def test_mt_11_nobody_asks_for_an_id(plant: Deployment, gateway: Machine, member: str) -> None:
    other = plant.machine()
    value = f"spiffe://example.org/agent/billing/{other.device_id}"
    wanted = x509_for(new_key("p256"))
    body = plant.round(gateway, credentials=[wanted | {member: value}]).body()
    assert plant.problem(body, 400, "malformed")["pointer"] == f"/request/credentials/0/{member}"
    (issued,) = plant.attest(gateway, credentials=[wanted])["credentials"]
    assert issued["spiffe_id"] == f"spiffe://example.org/agent/billing/{gateway.device_id}"


@pytest.mark.parametrize(
    "template",
    [
        "spiffe://other.example/agent/{device_id}",
        "spiffe://{trust_domain}/spire/server/{device_id}",
        "spiffe://{trust_domain}/spire/agent/{device_id}",
        "spiffe://{trust_domain}/agent",
        "spiffe://{trust_domain}/../{device_id}",
        "spiffe://{trust_domain}.evil.example/{device_id}",
        "https://{trust_domain}/{device_id}",
        "spiffe://{trust_domain}/{device_id}?x",
        "spiffe://{trust_domain}/{hostname}/{device_id}",
    ],
)
def test_mt_11_nor_does_a_policy_give_a_reserved_or_foreign_one(plant: Deployment, template: str) -> None:
    path = plant.directory / "ids.toml"
    text = policy_for(Machine.create(None), name="ids")
    path.write_text(text.replace('ttl = "10m"', f'ttl = "10m"\nspiffe_id = "{template}"'))
    assert "spiffe_id" in plant.operate("policy", "apply", str(path), status=1).stderr


def test_mt_11_a_label_leads_nowhere_that_is_reserved(deployment: Deployment) -> None:
    machine = deployment.machine()
    text = policy_for(machine).replace(
        'ttl = "5m"', 'ttl = "5m"\nspiffe_id = "spiffe://{trust_domain}/{label:site}/{device_id}"'
    )
    deployment.apply(text)
    wanted = x509_for(new_key("p256"))
    for step, (label, cause) in enumerate([(None, "placeholder_missing"), ("spire", "id_reserved")]):
        if label is not None:
            deployment.operate("device", "label", machine.device_id, f"site={label}")
        body = deployment.round(machine.later(step), credentials=[wanted]).body()
        told = deployment.problem(body, 403, "not_entitled", cause=cause)
        assert told["pointer"] == "/credentials/0/agent"
    deployment.operate("device", "label", machine.device_id, "site=plant-1")
    (issued,) = deployment.attest(machine.later(9), credentials=[wanted])["credentials"]
    assert issued["spiffe_id"] == f"spiffe://example.org/plant-1/{machine.device_id}"


# MT-12


def test_mt_12_what_a_leaf_signs_is_nobodys_certificate(
    plant: Deployment, gateway: Machine, tmp_path: Path
) -> None:
    key = new_key("p256")
    leaf = leaf_of(plant.attest(gateway, credentials=[x509_for(key)]))
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (False, False, True)
    below = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(leaf.subject)
        .public_key(new_key("p256").public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=1))
        .not_valid_after(datetime.now(UTC) + timedelta(minutes=1))
        .sign(key, hashes.SHA256())
    )
    bundle = plant.client.get("/.well-known/spiffe/bundle").get_json()["keys"]
    (bundled,) = [key for key in bundle if key["use"] == "x509-svid"]
    root = x509.load_der_x509_certificate(b64decode(bundled["x5c"][0]))
    files = {"root": root, "leaf": leaf, "below": below}
    for name, certificate in files.items():
        (tmp_path / name).write_bytes(certificate.public_bytes(Encoding.PEM))

    def verify(name: str) -> bool:
        command = ["openssl", "verify", "-CAfile", "root", "-untrusted", "leaf", name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0

    assert verify("leaf")
    assert not verify("below")


def test_mt_12_nor_does_a_credential_of_ours_vouch_for_a_tpm(plant: Deployment, gateway: Machine) -> None:
    key = new_key("p256")
    leaf = leaf_of(plant.attest(gateway, credentials=[x509_for(key)]))
    machine = Machine.create(plant.maker)
    body = enrollment_body(machine, ek_certificate=b64(leaf.public_bytes(Encoding.DER)))
    plant.problem(body, 403, "enrollment_refused", "/v1/enrollments", cause="ek_cert_profile")
    own = enrollment_body(replace(machine, ek=key), ek_certificate=b64(leaf.public_bytes(Encoding.DER)))
    status, told = plant.post("/v1/enrollments", own)
    assert (status, told["code"]) == (403, "enrollment_refused")
    plant.enroll(machine)
