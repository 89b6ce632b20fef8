"""What the service gives is read as a stranger's: one thing changed, and nothing of it is held."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.agent.attest import Part, Wanted
from attestd.agent.errors import Unreachable
from attestd.agent.holdings import Bundle
from attestd.agent.machine import Machine
from attestd.agent.running.bundle import claims_of, fetch_bundle, header_of, orphaned, read_bundle
from attestd.agent.running.received import CLOCK_MS, LONGEST_MS, OffClock, read_part
from attestd.clock import now_ms
from attestd.issue.authority import create_authority, serial_number
from tests.attestd.agent.delivery.delivered import another_version, spelled
from tests.attestd.agent.running.simulated import workload
from tests.attestd.agent.tools import Tools
from tests.serving import Agent, Serving
from tpm.swtpm import SoftwareTpm

AUDIENCES = ("https://a.example.org", "https://b.example.org")
FORMATS = ("x509-svid", "wit-svid", "jwt-svid")
Told = dict[str, Any]


@pytest.fixture(scope="module")
def machine(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine for all: what it was given is only read."""
    with SoftwareTpm() as tpm:
        made = Agent(tpm, tmp_path_factory.mktemp("machine") / "state", serving.url)
        made.enroll()
        yield Machine.enrolled(tpm.tcti, made.state)


@pytest.fixture(scope="module")
def bundle(machine: Machine) -> Bundle:
    return fetch_bundle(machine.server, None)[0]


@pytest.fixture(scope="module")
def part(machine: Machine) -> Part:
    return machine.attest(Wanted("builder", FORMATS, "software", AUDIENCES, ())).parts[0]


BUILDER = workload("builder", *FORMATS, audiences=AUDIENCES)


def read(part: Part, bundle: Bundle, *, now: int | None = None) -> Any:
    return read_part(part, BUILDER, bundle, result="r.r.r", now=now_ms() if now is None else now)


@pytest.mark.parametrize("added", ["\r\nX-Admin: yes", "\x1b[2J", " ", "\n", ".e30", "=", "~"], ids=repr)
@pytest.mark.parametrize("form", ["wit-svid", "jwt-svid"])
def test_ag_1_a_token_is_three_parts_of_base64url_and_nothing_else(
    part: Part, bundle: Bundle, form: str, added: str
) -> None:
    assert read(part, bundle)
    told = tuple(
        each | {"token": each["token"] + added} if each["format"] == form else each
        for each in part.credentials
    )
    with pytest.raises(Unreachable, match="is it attestd"):
        read(replace(part, credentials=told), bundle)


@pytest.mark.parametrize("result", ["r.r.r\r\nX: y", "r.r", "", None, "r.r.r\x1b"])
def test_ag_1_a_result_that_is_no_token_is_refused(part: Part, bundle: Bundle, result: object) -> None:
    with pytest.raises(Unreachable, match="is it attestd"):
        read_part(part, BUILDER, bundle, result=result, now=now_ms())


def changed(part: Part, form: str, **members: Any) -> Part:
    credentials = tuple({**each, **members} if each["format"] == form else each for each in part.credentials)
    return replace(part, credentials=credentials)


def told(part: Part, form: str) -> Mapping[str, Any]:
    return next(each for each in part.credentials if each["format"] == form)


def token(part: Part, form: str, *, header: Told | None = None, **claims: Any) -> Part:
    """The same token with other claims; its signature is nobody's, and is not what is looked at."""
    text = told(part, form)["token"]
    parts = [dict(header_of(text)) | (header or {}), dict(claims_of(text)) | claims]
    spelled = [urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts]
    return changed(part, form, token=".".join([*spelled, text.split(".")[2]]))


def named(part: Part, form: str, identity: str) -> Part:
    """The same token of another identity, and told so."""
    return changed(token(part, form, sub=identity), form, spiffe_id=identity)


def test_what_was_asked_for_is_held_with_its_key(part: Part, bundle: Bundle) -> None:
    held = read(part, bundle)
    assert held.x509.spiffe_id == held.wit.spiffe_id == held.jwt.spiffe_id
    assert json.loads(held.wit.key)["d"]
    assert (held.jwt.audiences, len(held.x509.chain)) == (AUDIENCES, 1)
    assert {"result.jwt", "bundle.pem", "builder.svid.pem", "builder.key.pem"} <= held.files.keys()
    assert not orphaned([held], bundle, now=now_ms())


def test_a_key_in_the_tpm_is_not_in_what_is_held(machine: Machine, bundle: Bundle) -> None:
    received = machine.attest(Wanted("telemetry", ("x509-svid", "wit-svid"), "tpm", (), ()))
    wanted = workload("telemetry", "x509-svid", "wit-svid", key="tpm")
    held = read_part(received.parts[0], wanted, bundle, result="r.r.r", now=now_ms())
    assert held.x509 is not None
    assert held.wit is not None
    assert (held.x509.key, held.wit.key) == (None, None)


def test_times_are_this_machines_to_judge(part: Part, bundle: Bundle) -> None:
    ends = read(part, bundle).x509.expires_at
    assert read(part, bundle, now=ends - 5000)
    assert read(part, bundle, now=now_ms() - CLOCK_MS + 40_000)
    for now in (ends, now_ms() - CLOCK_MS - 40_000):
        with pytest.raises(OffClock, match="set it"):
            read(part, bundle, now=now)


ELSEWHERE = "spiffe://elsewhere.example.org/agent/builder/x"
BAD_TOKENS: dict[str, Callable[[Part, str], Part]] = {
    "of another identity": lambda part, form: token(part, form, sub="spiffe://example.org/agent/x"),
    "of another trust domain": lambda part, form: named(part, form, ELSEWHERE),
    "under a key that is not in the bundle": lambda part, form: token(part, form, header={"kid": "other"}),
    "without an end": lambda part, form: token(part, form, exp=None),
    "with an end that is no number": lambda part, form: token(part, form, exp="tomorrow"),
    "with an end that is no whole number": lambda part, form: token(part, form, exp=now_ms() / 1000 + 60),
    "with an end that is true": lambda part, form: token(part, form, exp=True),
    "for a month": lambda part, form: token(part, form, exp=now_ms() // 1000 + LONGEST_MS // 1000 + 60),
    "that has ended": lambda part, form: token(part, form, exp=now_ms() // 1000 - 1),
    "of two parts": lambda part, form: changed(part, form, token="a.b"),
    "that is no token": lambda part, form: changed(part, form, token=7),
    "that is not ASCII": lambda part, form: changed(part, form, token="é.é.é"),
    "of an identity that is none": lambda part, form: named(part, form, "https://example.org/agent"),
    "of a trust domain itself": lambda part, form: named(part, form, "spiffe://example.org"),
    "without an identity": lambda part, form: changed(part, form, spiffe_id=None),
}


@pytest.mark.parametrize("form", ["jwt-svid", "wit-svid"])
@pytest.mark.parametrize("what", BAD_TOKENS)
def test_ag_1_a_token_that_is_not_ours_is_not_held(part: Part, bundle: Bundle, form: str, what: str) -> None:
    with pytest.raises(Unreachable):
        read(BAD_TOKENS[what](part, form), bundle)


def test_ag_1_a_bearer_token_for_others_than_were_named_is_not_held(part: Part, bundle: Bundle) -> None:
    assert read(token(part, "jwt-svid", aud=list(reversed(AUDIENCES))), bundle)
    for audience in ("https://c.example.org", [*AUDIENCES, "https://c.example.org"], [AUDIENCES[0]], [], 7):
        with pytest.raises(Unreachable):
            read(token(part, "jwt-svid", aud=audience), bundle)


def test_ag_1_a_token_for_another_key_is_not_held(part: Part, bundle: Bundle) -> None:
    for key in ({"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}, {"jkt": "x"}, None):
        with pytest.raises(Unreachable):
            read(token(part, "wit-svid", cnf=key), bundle)


@pytest.mark.parametrize("what", ["[" * 200_000, '{"exp":Infinity}', '{"exp":1' + "0" * 400 + "}"])
@pytest.mark.parametrize("form", FORMATS[1:])
def test_ag_1_a_token_that_no_parser_takes_is_told_as_no_answer(
    part: Part, bundle: Bundle, form: str, what: str
) -> None:
    with pytest.raises(Unreachable, match="is it attestd"):
        read(changed(part, form, token=spelled(what).decode()), bundle)


# --- client attestations --------------------------------------------------------------------------


def attested(part: Part, **claims: Any) -> Part:
    """With a client attestation too, which says what the WIT-SVID does but for this."""
    like = told(token(part, "wit-svid", **claims), "wit-svid")
    return replace(part, credentials=(*part.credentials, {**like, "format": "client-attestation"}))


def test_a_client_attestation_is_delivered_as_it_was_given(
    part: Part, bundle: Bundle, tools: Tools, caller: Agent
) -> None:
    given = attested(part)
    assert (
        read(given, bundle).files["builder.attestation.jwt"].decode().strip()
        == given.credentials[-1]["token"]
    )
    wanted = workload("planner", "client-attestation", key="tpm")
    machine = Machine.enrolled(caller.tpm.tcti, caller.state)
    (genuine,) = machine.attest(Wanted("planner", wanted.formats, "tpm", (), ())).parts
    held = read_part(genuine, wanted, fetch_bundle(machine.server, None)[0], result="r.r.r", now=now_ms())
    assert "planner.attestation.jwt" in held.files


BAD_ATTESTATIONS: dict[str, Callable[[Part], Part]] = {
    "with an end that is infinite": lambda part: attested(part, exp=float("inf")),
    "with an end of 400 digits": lambda part: attested(part, exp=10**400),
    "with an end that is no whole number": lambda part: attested(part, exp=now_ms() / 1000 + 60),
    "for a month": lambda part: attested(part, exp=now_ms() // 1000 + LONGEST_MS // 1000 + 60),
    "of another identity": lambda part: attested(part, sub="spiffe://example.org/agent/x"),
    "of another trust domain": lambda part: attested(part, sub=ELSEWHERE),
    "for another key": lambda part: attested(part, cnf={"jwk": {"x": "AA", "y": "AA"}}),
    "for no key": lambda part: attested(part, cnf=None),
    "nested without end": lambda part: changed(
        attested(part), "client-attestation", token=spelled("[" * 200_000).decode()
    ),
}


@pytest.mark.parametrize("what", BAD_ATTESTATIONS)
def test_ag_1_a_client_attestation_that_is_not_ours_is_not_delivered(
    part: Part, bundle: Bundle, what: str
) -> None:
    with pytest.raises(Unreachable, match="is it attestd"):
        read(BAD_ATTESTATIONS[what](part), bundle)


def test_ag_1_a_client_attestation_that_has_ended_is_told_as_the_clocks_trouble(
    part: Part, bundle: Bundle
) -> None:
    with pytest.raises(OffClock, match="set it"):
        read(attested(part, iat=now_ms() // 1000 - 600, exp=now_ms() // 1000 - 1), bundle)


# --- certificates ---------------------------------------------------------------------------------


class Maker:
    """An authority of its own, which signs what the service would not."""

    def __init__(self, part: Part) -> None:
        self.genuine = x509.load_pem_x509_certificate(told(part, "x509-svid")["certificate_chain"].encode())
        self.identity = told(part, "x509-svid")["spiffe_id"]
        self.key = ec.generate_private_key(ec.SECP256R1())
        number = serial_number(b"\1" * 20)
        self.root = create_authority(
            self.key, trust_domain="example.org", kid="maker", serial=number, now=now_ms()
        )

    def bundle(self, genuine: Bundle) -> Bundle:
        return replace(genuine, authorities=(self.root.public_bytes(Encoding.DER),))

    def chain(
        self,
        *,
        key: Any = None,
        uris: tuple[str, ...] | None = None,
        life: timedelta = timedelta(minutes=5),
        ca: bool = False,
    ) -> str:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris or (self.identity,)]
        start = self.genuine.not_valid_before_utc
        usage = self.genuine.extensions.get_extension_for_class(x509.KeyUsage)
        purposes = self.genuine.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.root.subject)
            .subject_name(x509.Name([]))
            .public_key(key or self.genuine.public_key())
            .serial_number(7)
            .not_valid_before(start)
            .not_valid_after(start + life)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage.value, critical=True)
            .add_extension(purposes.value, critical=False)
            .add_extension(issuer, critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.fixture
def maker(part: Part) -> Maker:
    return Maker(part)


def test_a_certificate_of_an_authority_of_the_bundle_is_held(
    part: Part, bundle: Bundle, maker: Maker
) -> None:
    held = read(changed(part, "x509-svid", certificate_chain=maker.chain()), maker.bundle(bundle))
    assert held.x509.spiffe_id == maker.identity


OTHER_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
BAD_CERTIFICATES: dict[str, Callable[[Maker], str]] = {
    "for another key": lambda maker: maker.chain(key=OTHER_KEY),
    "of another identity": lambda maker: maker.chain(uris=("spiffe://example.org/agent/x",)),
    "of two identities": lambda maker: maker.chain(uris=(maker.identity, "spiffe://example.org/agent/x")),
    "of the same identity twice": lambda maker: maker.chain(uris=(maker.identity, maker.identity)),
    "for a month": lambda maker: maker.chain(life=timedelta(days=31)),
    "that has ended": lambda maker: maker.chain(life=timedelta(seconds=29)),
    "that may sign others": lambda maker: maker.chain(ca=True),
    "that is an authority": lambda maker: maker.root.public_bytes(Encoding.PEM).decode(),
    "that is none": lambda maker: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "that is empty": lambda maker: "",
    "of another version": lambda maker: another_version(maker.chain().encode()).decode(),
}


@pytest.mark.parametrize("what", BAD_CERTIFICATES)
def test_ag_1_a_certificate_that_is_not_ours_is_not_held(
    part: Part, bundle: Bundle, maker: Maker, what: str
) -> None:
    chain = BAD_CERTIFICATES[what](maker)
    with pytest.raises(Unreachable):
        read(changed(part, "x509-svid", certificate_chain=chain), maker.bundle(bundle))


def test_ag_1_a_certificate_of_a_stranger_is_not_held(part: Part, bundle: Bundle, maker: Maker) -> None:
    with pytest.raises(Unreachable, match="no authority of the bundle"):
        read(changed(part, "x509-svid", certificate_chain=maker.chain()), bundle)
    with pytest.raises(Unreachable, match="no authority of the bundle"):
        read(part, maker.bundle(bundle))


# --- bundles --------------------------------------------------------------------------------------


def test_a_bundle_is_read_with_its_wish(serving: Serving, bundle: Bundle) -> None:
    found, hint = read_bundle(serving.get("/.well-known/spiffe/bundle"))
    assert (found, hint) == (bundle, 60)
    assert (found.trust_domain, len(json.loads(found.jwt_keys)["keys"])) == ("example.org", 1)


def in_another_version(x5c: str) -> str:
    lines = another_version(f"-\n{x5c}\n-".encode()).decode().splitlines()
    return "".join(lines[1:-1])


BAD_BUNDLES: dict[str, Callable[[Told], Told]] = {
    "without keys": lambda told: told | {"keys": []},
    "without a list": lambda told: told | {"keys": {"x": 1}},
    "without authorities": lambda told: told | {"keys": told["keys"][1:]},
    "with an authority of another version": lambda told: (
        told | {"keys": [told["keys"][0] | {"x5c": [in_another_version(told["keys"][0]["x5c"][0])]}]}
    ),
    "with an authority that is none": lambda told: told | {"keys": [told["keys"][0] | {"x5c": ["AAAA"]}]},
    "with a key without a name": lambda told: (
        told | {"keys": [{k: v for k, v in key.items() if k != "kid"} for key in told["keys"]]}
    ),
    "with a sequence that is text": lambda told: told | {"spiffe_sequence": "1"},
    "with a wish beyond all numbers": lambda told: told | {"spiffe_refresh_hint": 10**30},
    "with a wish below zero": lambda told: told | {"spiffe_refresh_hint": -1},
}


@pytest.mark.parametrize("what", BAD_BUNDLES)
def test_ag_1_a_bundle_that_is_none_is_not_taken(serving: Serving, what: str) -> None:
    with pytest.raises(Unreachable, match="bundle cannot be read"):
        read_bundle(BAD_BUNDLES[what](serving.get("/.well-known/spiffe/bundle")))
