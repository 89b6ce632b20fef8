"""Users' OpenID Providers: whose keys are believed, and what is fetched from where, and from nowhere else."""

import ipaddress
import json
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.clock import now_ms
from attestd.counterparts import SubjectIssuer
from attestd.oauth import fetch
from attestd.oauth.errors import TokenError
from attestd.oauth.fetch import MAX_BYTES, Unfetched, origin_of, permitted
from attestd.oauth.key_sets import (
    AGAIN_MS,
    FRESH_MS,
    MAX_KEYS,
    STALE_MS,
    FetchedKeys,
    FileKeys,
    Keys,
    read_key_set,
)
from attestd.oauth.subject_issuer import DISCOVERY_PATH, SubjectIssuers, discover
from attestd.wire import Problem
from tests.attestd.oauth.agents import compact, public
from tests.attestd.oauth.canary import Canary, Compressed, Redirect, Slow, Status, canary
from tests.attestd.oauth.world import AUDIENCE, ID_TOKEN, LOGIN, Provider, World
from tests.attestd.web.certificates import Authority
from tests.attester import new_key
from tpm.errors import PolicyError, StructureError

NOW = 1_800_000_000_000


@pytest.fixture
def bird() -> Iterator[Canary]:
    with canary() as made:
        yield made


def issuer_at(url: str, *, allow_private: bool = True) -> SubjectIssuer:
    return SubjectIssuer(issuer=url, audience=AUDIENCE, jwks="discovery", allow_private=allow_private)


def publish(bird: Canary, provider: Provider, **document: Any) -> None:
    bird.answers[DISCOVERY_PATH] = {"issuer": bird.url, "jwks_uri": f"{bird.url}/keys", **document}
    bird.answers["/keys"] = provider.key_set()


# --- discovery --------------------------------------------------------------------------------


def test_keys_are_found_where_the_issuer_publishes_them(bird: Canary) -> None:
    provider = Provider(bird.url)
    publish(bird, provider)
    issuers = SubjectIssuers([issuer_at(bird.url)])
    assert bird.hits == []
    for _ in range(3):
        user = issuers.verify(provider.token(), ID_TOKEN, now=now_ms())
        assert (user.issuer, user.subject) == (bird.url, "alice")
    assert bird.hits == [DISCOVERY_PATH, "/keys"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b.answers[DISCOVERY_PATH].update(issuer="https://else.example.org"),
        lambda b: b.answers[DISCOVERY_PATH].update(issuer=b.url + "/"),
        lambda b: b.answers[DISCOVERY_PATH].pop("jwks_uri"),
        lambda b: b.answers[DISCOVERY_PATH].update(jwks_uri=f"http://localhost:{b.port}/keys"),
        lambda b: b.answers[DISCOVERY_PATH].update(jwks_uri=f"http://127.0.0.1:{b.port + 1}/keys"),
        lambda b: b.answers[DISCOVERY_PATH].update(jwks_uri=f"http://127.0.0.1:{b.port}@evil/keys"),
        lambda b: b.answers[DISCOVERY_PATH].update(jwks_uri="file:///etc/passwd"),
        lambda b: b.answers[DISCOVERY_PATH].update(jwks_uri="data:application/json,{}"),
        lambda b: b.answers[DISCOVERY_PATH].update(jwks_uri=["x"]),
        lambda b: b.answers.update({"/keys": Redirect("/elsewhere"), "/elsewhere": {"keys": []}}),
        lambda b: b.answers.update({DISCOVERY_PATH: Redirect("/elsewhere"), "/elsewhere": {}}),
        lambda b: b.answers.update({"/keys": b"x"}),
        lambda b: b.answers.update({"/keys": b'{"keys":[],"keys":[]}'}),
        lambda b: b.answers.update({"/keys": b'{"keys":[' + b" " * MAX_BYTES + b"]}"}),
        lambda b: b.answers.update({"/keys": Compressed(b"x")}),
        lambda b: b.answers.pop("/keys"),
    ],
)
def test_oa_10_an_issuer_that_leads_elsewhere_has_no_keys(
    bird: Canary, spoil: Callable[[Canary], object]
) -> None:
    provider = Provider(bird.url)
    publish(bird, provider)
    spoil(bird)
    issuers = SubjectIssuers([issuer_at(bird.url)])
    with pytest.raises(Problem) as caught:
        issuers.verify(provider.token(), ID_TOKEN, now=now_ms())
    assert (caught.value.code, caught.value.cause) == ("unavailable", "subject_issuer_unreachable")
    assert "/elsewhere" not in bird.hits
    assert set(bird.hits) <= {DISCOVERY_PATH, "/keys"}


def test_oa_10_loopback_is_asked_only_where_the_operator_says_so(bird: Canary) -> None:
    publish(bird, Provider(bird.url))
    for url in (bird.url, f"http://localhost:{bird.port}", f"http://[::ffff:127.0.0.1]:{bird.port}"):
        with pytest.raises((TokenError, StructureError)):
            discover(issuer_at(url, allow_private=False))
    assert bird.hits == []
    assert len(discover(issuer_at(bird.url))) == 1


# --- fetching --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "64:ff9b:1::1",
        "fec0::1",
        "::127.0.0.1",
        "::ffff:0:10.0.0.1",
    ],
)
def test_oa_10_no_private_address_is_permitted(address: str) -> None:
    assert not permitted(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert permitted(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "data:application/json,{}",
        "ftp://login.example.org/",
        "gopher://x/",
        "//x/y",
        "x",
        "",
        "https://",
        "https:///x",
        "https://user@login.example.org/",
        "https://localhost:80@evil.example.org/",
        "https://login.example.org/#x",
        "https://login.example.org:port/",
        "https://login.example.org:70000/",
        "https://login.example.org\\@evil.example.org/",
        "https://login example.org/",
        "https://[::1/",
        "HTTPS\n://login.example.org",
        "https://lögin.example.org/",
    ],
)
def test_oa_10_what_is_no_plain_https_url_is_fetched_from_nowhere(url: str) -> None:
    with pytest.raises(Unfetched):
        origin_of(url)
    with pytest.raises(Unfetched):
        fetch.fetch(url, allow_private=True)


def test_origins_are_compared_whole() -> None:
    assert origin_of("https://a.example.org/x") == origin_of("https://A.example.org:443/y?z")
    assert origin_of("https://a.example.org") != origin_of("https://a.example.org:444")
    assert origin_of("https://a.example.org") != origin_of("http://a.example.org:443")
    assert origin_of("https://a.example.org") != origin_of("https://a.example.org.")


def test_http_is_for_loopback_only(monkeypatch: pytest.MonkeyPatch, bird: Canary) -> None:
    """Even for a name that calls itself loopback and is not."""
    with pytest.raises(Unfetched, match="loopback"):
        fetch.fetch("http://login.example.org/", allow_private=True)
    answers(monkeypatch, [["93.184.216.34"]])
    with pytest.raises(Unfetched, match="loopback"):
        fetch.fetch(f"http://localhost:{bird.port}/", allow_private=True)
    assert bird.hits == []


def answers(monkeypatch: pytest.MonkeyPatch, each: list[list[str]]) -> list[str]:
    """The resolver of the system, answering otherwise every time it is asked."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        found = each[min(len(asked), len(each)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_oa_10_a_name_is_resolved_once_and_one_bad_address_spoils_it(
    monkeypatch: pytest.MonkeyPatch, bird: Canary
) -> None:
    """DNS rebinding: public when it is judged, loopback when it is connected to."""
    asked = answers(monkeypatch, [["192.0.2.1"], ["127.0.0.1"]])
    with pytest.raises(Unfetched, match="allow_private"):
        fetch.fetch(f"https://login.example.org:{bird.port}/")
    assert asked == ["login.example.org"]
    asked = answers(monkeypatch, [["93.184.216.34", "127.0.0.1"]])
    with pytest.raises(Unfetched, match="allow_private"):
        fetch.fetch(f"https://login.example.org:{bird.port}/")
    assert (asked, bird.hits) == (["login.example.org"], [])


def test_oa_10_the_connection_goes_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, [["93.184.216.34"], ["127.0.0.1"]])
    connected: list[Any] = []

    def connect(where: Any, *_: Any) -> socket.socket:
        connected.append(where)
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Unfetched, match="cannot be reached"):
        fetch.fetch("https://login.example.org/")
    assert (asked, connected) == (["login.example.org"], [("93.184.216.34", 443)])


def test_oa_10_only_a_200_is_taken_whatever_document_comes_with_another(bird: Canary) -> None:
    for answer in (Redirect("/x", b"{}"), Status(201, b"{}"), Status(206, b"{}"), Status(404, b"{}")):
        bird.answers["/"] = answer
        with pytest.raises(Unfetched, match="only 200"):
            fetch.fetch(bird.url, allow_private=True)
    bird.answers["/"] = b"{}"
    assert fetch.fetch(bird.url, allow_private=True) == b"{}"
    assert set(bird.hits) == {"/"}


def test_a_document_has_a_largest_size(bird: Canary) -> None:
    bird.answers |= {"/most": b" " * MAX_BYTES, "/more": b" " * (MAX_BYTES + 1)}
    assert len(fetch.fetch(f"{bird.url}/most", allow_private=True)) == MAX_BYTES
    with pytest.raises(Unfetched, match="bytes"):
        fetch.fetch(f"{bird.url}/more", allow_private=True)


def test_a_server_that_drips_is_cut(bird: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SECONDS", 0.4)
    bird.answers["/slow"] = Slow()
    started = time.monotonic()
    with pytest.raises(Unfetched):
        fetch.fetch(f"{bird.url}/slow", allow_private=True)
    assert time.monotonic() - started < 2


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    """The twin: the name that the certificate has."""
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair.certificate, pair.key)
    with canary() as bird:
        bird.server.socket = server_context.wrap_socket(bird.server.socket, server_side=True)
        bird.answers["/"] = {}
        trusted = ssl.create_default_context(cafile=str(authority.pem))
        good = f"https://127.0.0.1:{bird.port}/"
        assert fetch.fetch(good, allow_private=True, context=trusted) == b"{}"
        with pytest.raises(Unfetched, match="SSLCert"):
            fetch.fetch(f"https://localhost:{bird.port}/", allow_private=True, context=trusted)
        with pytest.raises(Unfetched, match="SSLCert"):
            fetch.fetch(good, allow_private=True)
    assert len(bird.hits) == 1


# --- how often --------------------------------------------------------------------------------


class Counted:
    """A source of keys that counts and may fail."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False
        self.provider = Provider(LOGIN)

    def __call__(self) -> Keys:
        self.calls += 1
        if self.fails:
            raise TokenError("discovery", "down")
        return read_key_set(json.dumps(self.provider.key_set()).encode())


def test_tokens_with_unknown_kids_make_nobody_fetch_again_and_again() -> None:
    source = Counted()
    keys = FetchedKeys(source)
    for number in range(100):
        keys.keys(now=NOW + number * 100, missing=True)
    assert source.calls == 1
    keys.keys(now=NOW + AGAIN_MS, missing=True)
    assert source.calls == 2


def test_keys_are_fetched_again_when_they_are_old_and_kept_for_a_while_when_that_fails() -> None:
    source = Counted()
    keys = FetchedKeys(source)
    keys.keys(now=NOW)
    assert source.calls == 1
    keys.keys(now=NOW + FRESH_MS - 1)
    assert source.calls == 1
    source.fails = True
    assert keys.keys(now=NOW + FRESH_MS)
    assert keys.keys(now=NOW + FRESH_MS + 1)
    assert source.calls == 2
    assert keys.keys(now=NOW + STALE_MS - 1)
    with pytest.raises(TokenError, match="keys_unreachable"):
        keys.keys(now=NOW + STALE_MS)
    source.fails = False
    assert keys.keys(now=NOW + STALE_MS + AGAIN_MS)


def test_a_clock_that_went_back_makes_no_key_young_again() -> None:
    source = Counted()
    keys = FetchedKeys(source)
    keys.keys(now=NOW)
    source.fails = True
    with pytest.raises(TokenError, match="keys_unreachable"):
        keys.keys(now=NOW - 1)


def test_a_rotated_key_is_found_by_its_kid(bird: Canary) -> None:
    old, new = Provider(bird.url), Provider(bird.url, kid="login-2")
    publish(bird, old)
    issuers = SubjectIssuers([issuer_at(bird.url)])
    issuers.verify(old.token(), ID_TOKEN, now=now_ms())
    publish(bird, new)
    with pytest.raises(TokenError, match="key_unknown"):
        issuers.verify(new.token(), ID_TOKEN, now=now_ms())
    later = now_ms() + AGAIN_MS
    assert issuers.verify(new.token(), ID_TOKEN, now=later).subject == "alice"
    with pytest.raises(TokenError, match="key_unknown"):
        issuers.verify(old.token(), ID_TOKEN, now=later)


# --- key sets --------------------------------------------------------------------------------


def key_set(*members: dict[str, Any]) -> bytes:
    return json.dumps({"keys": members}).encode()


EC = public(new_key("p256"))
RSA = {**public(new_key("rsa"))}


@pytest.mark.parametrize(
    ("member", "algs"),
    [
        (EC, ("ES256",)),
        (EC | {"alg": "ES256", "use": "sig", "kid": "x", "x5c": ["…"]}, ("ES256",)),
        (RSA, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (RSA | {"alg": "RS256"}, ("RS256",)),
    ],
)
def test_a_key_verifies_what_is_its_own(member: dict[str, Any], algs: tuple[str, ...]) -> None:
    (key,) = read_key_set(key_set(member))
    assert (key.algs, key.kid) == (algs, member.get("kid"))


@pytest.mark.parametrize(
    "member",
    [
        EC | {"use": "enc"},
        EC | {"alg": "ES384"},
        EC | {"alg": "HS256"},
        EC | {"crv": "P-521"},
        EC | {"crv": "secp256k1"},
        EC | {"y": EC["x"]},
        EC | {"kid": 7},
        {"kty": "EC"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": EC["x"]},
        RSA | {"e": "Aw"},
        RSA | {"n": RSA["n"][:170]},
        {"kty": 1},
        {},
    ],
)
def test_a_key_that_cannot_be_used_is_left_out_and_its_neighbour_stays(member: dict[str, Any]) -> None:
    assert read_key_set(key_set(member)) == ()
    assert len(read_key_set(key_set(member, EC))) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[1]}',
        b'{"keys":[],"keys":[]}',
        key_set(EC | {"d": "AAAA"}),
        key_set(RSA | {"p": "AAAA"}),
        key_set(EC | {"kid": "x"}, RSA | {"kid": "x"}),
        key_set(*[EC] * (MAX_KEYS + 1)),
    ],
)
def test_what_is_no_set_of_public_keys_is_refused(raw: bytes) -> None:
    with pytest.raises(StructureError):
        read_key_set(raw)


def test_a_token_without_kid_needs_exactly_one_key_that_fits(tmp_path: Path) -> None:
    provider = Provider(LOGIN)
    path = tmp_path / "keys.jwks"
    path.write_bytes(key_set(public(provider.key), RSA))
    issuers = SubjectIssuers([SubjectIssuer(LOGIN, AUDIENCE, path, False)])
    token = compact(provider.key, {"alg": "ES256"}, payload(provider))
    assert issuers.verify(token, ID_TOKEN, now=now_ms()).subject == "alice"
    path.write_bytes(key_set(public(provider.key), EC, RSA))
    with pytest.raises(TokenError, match="key_unknown"):
        issuers.verify(token, ID_TOKEN, now=now_ms())


def payload(provider: Provider) -> dict[str, Any]:
    now = now_ms() // 1000
    return {
        "iss": provider.issuer,
        "sub": "alice",
        "aud": AUDIENCE,
        "exp": now + 60,
        "jti": secrets.token_hex(4),
    }


@pytest.mark.parametrize("raw", [b"", b"{}", key_set(), key_set({"kty": "oct"}), key_set(EC | {"d": "AAAA"})])
def test_a_file_without_usable_keys_stops_the_start(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "keys.jwks"
    with pytest.raises(PolicyError, match="No such file"):
        FileKeys(path)
    path.write_bytes(raw)
    with pytest.raises(PolicyError, match=r"keys\.jwks"):
        FileKeys(path)
    path.write_bytes(key_set(EC))
    assert len(FileKeys(path).keys(now=NOW)) == 1


# --- through the front door --------------------------------------------------------------------------------


def test_oa_10_no_request_makes_the_service_fetch_anything(tmp_path: Path) -> None:
    with canary() as bird:
        world = World.create(tmp_path / "service")
        agent = world.agent()
        for header in ("jku", "x5u"):
            token = world.login.token(header={header: f"{bird.url}/keys"})
            assert world.exchange(agent, token).status == 400
            assert world.introspect(token).members == {"active": False}
        stranger = Provider(bird.url).token()
        assert world.exchange(agent, stranger).status == 400
        for name in ("request_uri", "jwks_uri", "client_id", "resource", "audience"):
            world.ask(agent, **{name: f"{bird.url}/x"})
        world.post("/oauth/token", {"grant_type": "client_credentials", "client_id": f"{bird.url}/c"})
        assert bird.hits == []
        world.deployment.close()


def discovered(url: str) -> str:
    """The configuration of a provider whose keys are fetched, on loopback."""
    entry = f'issuer = "{url}"\naudience = "{AUDIENCE}"\njwks = "discovery"\nallow_private = true'
    return f"[[subject_issuer]]\n{entry}\n"


def test_a_configured_issuer_is_fetched_from_and_its_failure_is_nobody_elses(tmp_path: Path) -> None:
    with canary() as bird:
        provider = Provider(bird.url)
        publish(bird, provider)
        world = World.create(tmp_path / "service", more=discovered(bird.url))
        policy = (world.deployment.directory / "pcr-policy.toml").read_text()
        world.deployment.apply(
            policy.replace(f'issuers = ["{LOGIN}",', f'issuers = ["{LOGIN}", "{bird.url}",')
        )
        agent = world.agent()
        assert world.exchange(agent, provider.token()).status == 200
        assert bird.hits == [DISCOVERY_PATH, "/keys"]
        assert world.exchange(agent, world.login.token()).status == 200
        world.deployment.close()


def test_an_unreachable_issuer_is_told_as_ours_and_retried_later(tmp_path: Path) -> None:
    with canary() as bird:
        url = bird.url
    world = World.create(tmp_path / "service", more=discovered(url))
    reply = world.exchange(world.agent(), Provider(url).token())
    assert (reply.status, reply.members["code"]) == (503, "unavailable")
    assert reply.headers["Retry-After"] == "30"
    world.deployment.close()
