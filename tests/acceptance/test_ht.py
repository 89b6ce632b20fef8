"""HT: is only well-formed input read, and does no answer or record tell or do more than it should?"""

import json
import logging
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from attestd.web.log import set_up
from tests.attester import Machine, activation_body, b64, enrollment_body, jwk_of, new_key
from tests.deployment import SERVER, Deployment, credential

ENROLL, ACTIVATE = "/v1/enrollments", "/v1/activations"
CHALLENGE, ATTEST = "/v1/challenges", "/v1/attestations"
PATHS = [ENROLL, ACTIVATE, CHALLENGE, ATTEST]


def good_body(plant: Deployment, path: str, machine: Machine) -> dict[str, Any]:
    """A body that this path takes from this machine."""
    match path:
        case "/v1/enrollments":
            return enrollment_body(machine)
        case "/v1/activations":
            begun = plant.expect(201, ENROLL, enrollment_body(machine))
            return dict(activation_body(machine, begun, SERVER))
        case "/v1/challenges":
            return {"device_id": machine.device_id}
    body: dict[str, Any] = plant.round(machine).body()
    return body


# HT-5

NUMBERS = ["true", "1.0", '"1"', "-1", "2", "0", "2147483648", "9223372036854775808", "18446744073709551616"]
NUMBERS += ["1_000", "١", "01", "+1", "1e0", "1E400", "0x1", "NaN", "Infinity", "null", "[1]"]
NUMBERS += ["1" + "0" * 4300]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("member", ["v", "ima_from"])
def test_ht_5_a_number_is_the_number(plant: Deployment, gateway: Machine, member: str, number: str) -> None:
    round_ = plant.round(gateway)
    raw = json.dumps(round_.request | {member: 1}).replace(f'"{member}": 1', f'"{member}": {number}')
    good = {"ima_from": {"2", "0"}}.get(member, set())
    if number in good:
        plant.expect(200, ATTEST, round_.body(raw.encode()))
        return
    told = plant.problem(round_.body(raw.encode()), 400, "malformed")
    assert told["pointer"] in ("/request", f"/request/{member}", f"/request/{member}/0")
    plant.expect(200, ATTEST, round_.body(json.dumps(round_.request | {member: 1}).encode()))


# HT-6

SPELLINGS: dict[str, Callable[[str], str]] = {
    "no padding": lambda text: text.rstrip("=") if text.endswith("=") else text[:-1],
    "more padding": lambda text: text + "=",
    "data behind": lambda text: text + "AAAA" if text.endswith("=") else text + "=AAAA",
    "line end": lambda text: text + "\n",
    "line break": lambda text: text[:8] + "\r\n" + text[8:],
    "space before": lambda text: " " + text,
    "space within": lambda text: text[:4] + " " + text[4:],
    "junk": lambda text: text[:4] + "!" + text[4:],
    "junk and padding": lambda text: text[:4] + "====" + text[4:],
    "NUL": lambda text: text + "\x00",
    "url alphabet": lambda text: "-_-_" + text[4:],
    "mixed alphabets": lambda text: "+_+/" + text[4:],
    "trailing bits": lambda text: with_trailing_bits(text),
    "wide letters": lambda text: "Ａ" + text[1:],
    "one letter": lambda text: text.rstrip("=") + "A" * (5 - len(text.rstrip("=")) % 4),
}


def with_trailing_bits(text: str) -> str:
    """The last letter with a bit set that belongs to no byte."""
    if not text.endswith("="):
        return text + "AB=="
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bare = text.rstrip("=")
    return bare[:-1] + alphabet[alphabet.index(bare[-1]) | 1] + "=" * text.count("=")


MEMBERS = {
    ENROLL: ["ek_public", "ek_certificate", "ak_public"],
    ACTIVATE: ["proof"],
    ATTEST: ["request", "quote/attest", "quote/signature"],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("path", "member"), [(p, m) for p, members in MEMBERS.items() for m in members])
def test_ht_6_base64_has_one_spelling(
    plant: Deployment, gateway: Machine, path: str, member: str, spelling: str
) -> None:
    body = good_body(plant, path, gateway)
    holder, name = (body["quote"], member[6:]) if "/" in member else (body, member)
    wrong = {name: SPELLINGS[spelling](holder[name])}
    bad = {**body, "quote": {**holder, **wrong}} if "/" in member else {**body, **wrong}
    status, told = plant.post(path, bad)
    assert (status, told["code"]) in {(400, "noncanonical"), (400, "malformed")}, told
    assert told["pointer"] == f"/{member}"
    assert plant.audit(request_id=told["request_id"])[0]["code"] == told["code"]
    plant.expect(200 if path == ATTEST else 201, path, body)


# HT-7

TYPES = [None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/cbor"]
TYPES += ["multipart/form-data; boundary=x", "application/json; charset=utf-7", "application/json;x=y"]
TYPES += ["application/json; charset=utf-16", "application/problem+json", "*/*"]
TYPES += ["application/json" + "; x" * 1000]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content_type", TYPES)
def test_ht_7_a_body_is_said_to_be_json(
    plant: Deployment, gateway: Machine, path: str, content_type: str | None
) -> None:
    body = good_body(plant, path, gateway)
    length = plant.audit_length()
    answer = plant.client.post(path, data=json.dumps(body).encode(), content_type=content_type)
    assert (answer.status_code, answer.get_json()["code"]) == (415, "unsupported_media_type")
    assert plant.audit_length() == length + 1
    answer = plant.client.post(path, data=json.dumps(body), content_type="application/json; charset=UTF-8")
    assert answer.status_code in (200, 201)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip", "identity, gzip"])
def test_ht_2_nor_is_it_compressed(plant: Deployment, gateway: Machine, path: str, coding: str) -> None:
    raw = json.dumps(good_body(plant, path, gateway)).encode()
    kept = plant.kept()
    headers = {"Content-Encoding": coding}
    answer = plant.client.post(path, data=raw, content_type="application/json", headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (415, "unsupported_media_type")
    assert plant.kept() == kept
    answer = plant.client.post(path, data=raw, content_type="application/json")
    assert answer.status_code in (200, 201)


@pytest.mark.parametrize("path", PATHS)
def test_ht_1_a_body_over_the_cap_is_413(plant: Deployment, gateway: Machine, path: str) -> None:
    limits = plant.service.config.limits
    cap = limits.attestation_body if path == ATTEST else limits.body
    body = good_body(plant, path, gateway)
    for declared in (cap + 1, 10**12):
        length = {"CONTENT_LENGTH": str(declared)}
        answer = plant.client.post(
            path, data=b"{}", content_type="application/json", environ_overrides=length
        )
        assert (answer.status_code, answer.get_json()["code"]) == (413, "too_large")
    raw = json.dumps(body).encode()
    told = plant.problem(raw + b" " * (cap + 1 - len(raw)), 413, "too_large", path, cause="body_cap")
    assert str(cap) in told["detail"]
    plant.expect(200 if path == ATTEST else 201, path, raw + b" " * 1000)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", PATHS)
def test_ht_8_another_method_is_405(plant: Deployment, path: str, method: str) -> None:
    answer = plant.client.open(path, method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


# HT-9

HOSTILE = ["\r\nX-Injected: 1", "\x1b[31mred\x1b[0m", "\u2028\u2029", '"}\n{"event": "issue"', "\x7f\x80\x9b"]


@pytest.mark.parametrize("text", HOSTILE)
def test_ht_9_what_a_client_writes_breaks_no_line_of_the_audit(
    plant: Deployment, gateway: Machine, text: str
) -> None:
    wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
    bad = [
        (ENROLL, enrollment_body(gateway, hostname=text)),
        (CHALLENGE, {"device_id": text}),
        (CHALLENGE, {text: 1}),
        (ATTEST, plant.round(gateway, boot_id=text).body()),
        (ATTEST, plant.round(gateway, credentials=[{**wanted[0], "agent": text}]).body()),
        (ATTEST, plant.round(gateway, credentials=[{**wanted[0], "key": {text: text}}]).body()),
    ]
    for path, body in bad:
        told = plant.problem(body, 400, "malformed", path)
        assert "\n" not in json.dumps(told)
    shown = plant.operate("audit", "show", "--json").stdout
    lines = shown.split("\n")
    assert len(lines) == plant.audit_length() + plant.count("audit_heads") + 1
    assert all(json.loads(line)["decision"] in ("accepted", "refused") for line in lines[:-1])
    assert shown.replace("\n", "").isascii()
    assert shown.replace("\n", "").isprintable()
    people = plant.operate("audit", "show").stdout
    assert people.replace("\n", "").isprintable()
    plant.attest(gateway, credentials=wanted)


@pytest.mark.parametrize("agent", ["x\tINJECTED", "Mozilla \x1b[2J", '"} {"level": "error"'])
def test_ht_9_nor_of_the_log(plant: Deployment, gateway: Machine, agent: str) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    stream = StringIO()
    set_up(stream)
    try:
        headers = {"User-Agent": agent, "X-Request-Id": agent, "X-Forwarded-For": agent}
        answer = plant.client.post(CHALLENGE, json={"device_id": agent}, headers=headers)
        plant.client.post(CHALLENGE, json={"device_id": gateway.device_id}, headers=headers)
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    assert answer.status_code == 400
    assert agent not in str(answer.headers)
    for line in stream.getvalue().splitlines():
        assert isinstance(json.loads(line), dict)


# HT-11


def told_to(plant: Deployment, body: dict[str, Any]) -> tuple[int, str, dict[str, str], dict[str, Any]]:
    answer = plant.client.post(ATTEST, json=body)
    told = answer.get_json()
    told.pop("request_id")
    headers = {name: value for name, value in answer.headers.items() if name != "X-Request-Id"}
    return answer.status_code, answer.status, headers, told


def test_ht_11_nobody_learns_why_evidence_proves_nothing(plant: Deployment, gateway: Machine) -> None:
    stranger, other = Machine.create(plant.maker), plant.machine()
    banned = plant.machine()
    plant.operate("device", "ban", banned.device_id)
    round_ = plant.round(gateway)
    body = round_.body()
    broken = bytearray(b64decode(body["quote"]["signature"]))
    broken[-1] ^= 1
    lies = {
        "unknown device": plant.round(stranger).body(),
        "another key": replace(round_, machine=gateway.with_new_ak()).body(),
        "another device's key": replace(round_, quoting=lambda _, d, r: other.quote(d, r)).body(),
        "damaged": {**body, "quote": {**body["quote"], "signature": b64(bytes(broken))}},
        "another scheme": replace(round_, machine=gateway.with_new_ak(new_key("rsa"))).body(),
        "another request": replace(round_, quoting=lambda m, d, r: m.quote(d[::-1], r)).body(),
        "no request": replace(round_, quoting=lambda m, d, r: m.quote(b"", r)).body(),
        "another signer": replace(round_, quoting=lambda m, d, r: m.quote(d, r, signer=b"")).body(),
        "another server": replace(round_, request=round_.request | {"server": "http://x.example"}).body(),
        "another nonce": replace(round_, request=round_.request | {"nonce": b64(bytes(32))}).body(),
        "banned, with another key": replace(plant.round(banned), machine=banned.with_new_ak()).body(),
    }
    answers = {name: told_to(plant, lie) for name, lie in lies.items()}
    first = answers["unknown device"]
    assert first[0] == 403
    assert first[3]["code"] == "attestation_failed"
    assert [name for name, answer in answers.items() if answer != first] == []
    plant.expect(200, ATTEST, body)


def test_ht_11_no_answer_tells_of_the_software(plant: Deployment, gateway: Machine) -> None:
    answers = [
        plant.client.post(ATTEST, json={}),
        plant.client.post(ATTEST, json=plant.round(gateway.with_new_ak()).body()),
        plant.client.get("/nothing"),
        plant.client.get("/v1/attestations/../../etc/passwd"),
        plant.client.post(ATTEST, json=plant.round(gateway).body()),
    ]
    for answer in answers:
        headers = {name.lower() for name, _ in answer.headers}
        assert headers & {"server", "x-powered-by", "via"} == set()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        words = ("Traceback", "werkzeug", "Flask", "python", "/attestd/", "sqlite")
        assert not any(word in answer.get_data(as_text=True) for word in words)
    assert [answer.status_code for answer in answers] == [400, 403, 404, 404, 200]


def test_ht_11_an_operator_reads_what_the_device_is_not_told(plant: Deployment, gateway: Machine) -> None:
    lie = plant.round(gateway.with_new_ak()).body()
    told = plant.problem(lie, 403, "attestation_failed")
    shown = plant.listed("audit", "show", "--request", told["request_id"])
    assert [(one["cause"], one["device_id"]) for one in shown] == [("ak_not_of_device", gateway.device_id)]
    assert shown[0]["evidence_sha256"] is not None
    plant.attest(gateway)
