"""A route decodes, calls, encodes; a refusal is one problem, one record, and tells no more than it should."""

import gzip
import json
import statistics
import time
from typing import Any

import pytest

from tests.attestd.web.echo_service import DEVICE, Answer, Running
from tests.attestd.web.raw import exchange
from tests.bad_values import BAD_VALUES, NEVER_JSON, replaced, spoilt, with_duplicate, with_unknown, without

DOCUMENT: dict[str, Any] = {"number": 7, "data": "QUJD", "text": "x"}


def check_problem(answer: Answer, code: str) -> None:
    body = answer.json
    assert (body["code"], body["status"]) == (code, answer.status)
    assert body["type"] == f"urn:attestd:problem:{code}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["request_id"] == answer.headers["x-request-id"]


def recorded(service: Running, before: int) -> list[tuple[str, str]]:
    return [(told["code"], told["request_id"]) for told in service.refused()[before:]]


def test_what_was_sent_comes_back_and_nothing_is_recorded(service: Running) -> None:
    before = len(service.refused())
    answer = service.post("/v1/echo", DOCUMENT)
    assert (answer.status, answer.json) == (201, {"number": 7, "data": "QUJD", "length": 1})
    assert answer.headers["content-type"] == "application/json"
    assert service.refused()[before:] == []


# What the body is said to be


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/json-patch+json",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-7",
        "application/json; charset=iso-8859-1",
        "application/json; charset=",
        "application/json;charset=utf-8;charset=utf-8",
        "application/json; x",
        "application/json; x=y",
        "application/json" + "; x" * 1000,
        "application/json, text/plain",
        "application/json, application/json",
        "*/*",
        '"application/json"',
    ],
)
def test_ht_7_another_content_type_is_415(service: Running, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = service.request("POST", "/v1/echo", b"{}", headers)
    check_problem(answer, "unsupported_media_type")
    assert answer.status == 415


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/json ; charset=Utf-8",
    ],
)
def test_ht_7_json_in_utf_8_is_taken_however_it_is_written(service: Running, content_type: str) -> None:
    assert service.post("/v1/echo", {}, {"Content-Type": content_type}).status == 201


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip", "compress", "", "utf-8"]
)
def test_ht_2_an_encoded_body_is_415_whatever_is_in_it(service: Running, coding: str) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * 10_000_000))
    answer = service.post("/v1/echo", bomb, {"Content-Encoding": coding})
    check_problem(answer, "unsupported_media_type")


def test_ht_2_identity_is_no_encoding_and_compressed_bytes_are_no_json(service: Running) -> None:
    assert service.post("/v1/echo", {}, {"Content-Encoding": "identity"}).status == 201
    check_problem(service.post("/v1/echo", gzip.compress(b"{}")), "malformed")


# What is in it


@pytest.mark.parametrize("name", sorted(BAD_VALUES.keys() - {"zero", "one"}))
def test_ht_5_a_bad_number_is_malformed_at_its_pointer(service: Running, name: str) -> None:
    answer = service.post("/v1/large", replaced(DOCUMENT, "/number", BAD_VALUES[name]))
    check_problem(answer, "malformed")
    assert answer.json["pointer"].startswith("/number") or name in NEVER_JSON


@pytest.mark.parametrize("number", [b"0", b"1", b"2147483647", b"-0"])
def test_ht_5_a_good_number_is_taken(service: Running, number: bytes) -> None:
    assert service.post("/v1/echo", replaced(DOCUMENT, "/number", number)).status == 201


@pytest.mark.parametrize(
    "text", ["QU!JD", "QUI", "QUJD=", "QUJ=", "-_-_", "+_+/", "QUI=QUJD", "QUJD\n", " QUJD", "QU\r\nJD"]
)
def test_ht_6_base64_that_is_not_canonical_is_refused_at_its_pointer(service: Running, text: str) -> None:
    answer = service.post("/v1/echo", {**DOCUMENT, "data": text})
    check_problem(answer, "noncanonical")
    assert answer.status == 400
    assert answer.json["pointer"] == "/data"


def test_every_bad_value_of_every_member_is_400_with_one_record_and_never_a_5xx(service: Running) -> None:
    for pointer, name, body in spoilt(DOCUMENT):
        before = len(service.refused())
        answer = service.post("/v1/large", body)
        assert answer.status in (201, 400), (pointer, name)
        if name in NEVER_JSON:
            assert answer.status == 400, (pointer, name)
        if answer.status == 400:
            expected = [(answer.json["code"], answer.headers["x-request-id"])]
            assert recorded(service, before) == expected, (pointer, name)


def test_unknown_and_duplicate_members_are_malformed_and_optional_ones_may_miss(service: Running) -> None:
    for _, body in with_unknown(DOCUMENT):
        answer = service.post("/v1/echo", body)
        check_problem(answer, "malformed")
        assert answer.json["pointer"] == "/unknown_member"
    for pointer, body in with_duplicate(DOCUMENT):
        answer = service.post("/v1/echo", body)
        check_problem(answer, "malformed")
        assert answer.json["pointer"] == pointer
    for _, body in without(DOCUMENT):
        assert service.post("/v1/echo", body).status == 201


@pytest.mark.parametrize(
    "body", [b"", b" ", b"null", b"[]", b'"x"', b"{", b"{}{}", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0"]
)
def test_what_is_no_json_object_is_malformed(service: Running, body: bytes) -> None:
    check_problem(service.post("/v1/echo", body), "malformed")


# Where it is sent


@pytest.mark.parametrize(
    "target",
    [
        "//v1/echo",
        "/v1//echo",
        "/v1/echo/",
        "/v1/echo//",
        "/V1/echo",
        "/v1/Echo",
        "/v1/%65cho",
        "/v1%2fecho",
        "/%2e/v1/echo",
        "/./v1/echo",
        "/v1/../v1/echo",
        "/v1/echo;x",
        "/v1/echo;x=y",
        "/v1/echo%00",
        "/v1/echo%0a",
        "/v1/echo#x",
        "/v1/echo%23",
        "http://x/v1/echo",
        "HTTP://x/v1/echo",
        "/",
        "/static/x",
        "/console",
        "/v1",
    ],
)
def test_ht_8_a_path_has_one_writing(service: Running, target: str) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    reply = exchange(service.port, head.encode() + b"{}", wait=0.15)
    assert reply.statuses == [404]
    assert b'"code":"not_found"' in reply.data
    assert b"Location" not in reply.data


@pytest.mark.parametrize("target", ["x", "*", "x:80", ":80"])
def test_ht_8_a_target_that_is_no_path_is_400(service: Running, target: str) -> None:
    reply = exchange(service.port, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), wait=3)
    assert reply.statuses == [400]


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"]
)
def test_ht_8_a_verb_takes_post_alone(service: Running, method: str) -> None:
    reply = exchange(service.port, f"{method} /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n".encode(), wait=0.15)
    assert reply.statuses == [405]
    assert b"Allow: POST" in reply.data


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_ht_8_a_page_is_only_read(service: Running, method: str) -> None:
    assert service.request(method, "/healthz").status == 405


def test_ht_8_method_overrides_are_not_read(service: Running) -> None:
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        assert service.request("GET", "/v1/echo", headers={name: "POST"}).status == 405
        assert service.post("/healthz", {}, {name: "GET"}).status == 405
    assert service.request("GET", "/v1/echo?_method=POST").status == 405


def test_ht_8_headers_cannot_move_the_path(service: Running) -> None:
    for name in (
        "X-Original-URL",
        "X-Rewrite-URL",
        "Script-Name",
        "Path-Info",
        "X-Forwarded-Prefix",
        "SCRIPT_NAME",
    ):
        assert service.request("GET", "/nothing", headers={name: "/healthz"}).status == 404
        assert service.request("GET", "/healthz", headers={name: "/nothing"}).status == 200


def test_ht_8_head_is_get_without_a_body(service: Running) -> None:
    reply = exchange(service.port, b"HEAD /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", wait=0.2)
    assert reply.statuses == [200]
    assert reply.data.endswith(b"\r\n\r\n")
    length = len(service.request("GET", "/openapi.json").body)
    assert b"Content-Length: %d\r\n" % length in reply.data


# What is told


def test_ht_11_an_unforeseen_error_grants_nothing_tells_nothing_and_is_recorded(service: Running) -> None:
    before = len(service.refused())
    answer = service.post("/v1/echo", {"text": "raise"})
    check_problem(answer, "unavailable")
    assert answer.status == 503
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert service.refused()[before]["cause"] == "internal_verify_error"
    assert "a secret that must not leave" in service.log()


def test_the_store_being_away_is_503_with_a_time_to_retry(service: Running) -> None:
    answer = service.post("/v1/echo", {"text": "store"})
    check_problem(answer, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert b"locked" not in answer.body


def test_a_refusal_that_cannot_be_recorded_is_unavailable(service: Running) -> None:
    check_problem(service.post("/v1/echo", {"text": "unrecordable"}), "unavailable")


def test_findings_and_pointer_reach_the_client(service: Running) -> None:
    answer = service.post("/v1/echo", {"text": "findings"})
    check_problem(answer, "posture_rejected")
    assert answer.json["pointer"] == "/pcrs/sha256/7"
    assert answer.json["findings"] == [
        {"code": "pcr_unexpected", "subject": "pcr7", "expected": ["sha256:00"], "found": "sha256:ff"}
    ]


def test_what_was_recorded_with_the_decision_is_not_recorded_again(service: Running) -> None:
    before = len(service.refused())
    answer = service.post("/v1/echo", {"text": "recorded"})
    check_problem(answer, "device_banned")
    assert service.refused()[before:] == []
    assert [line["device"] for line in service.access(answer.json["request_id"])] == [DEVICE]


def test_ht_11_an_unknown_device_and_a_bad_quote_look_the_same(service: Running) -> None:
    bodies = []
    for text in ("unknown_device", "bad_quote"):
        answer = service.post("/v1/echo", {"text": text})
        check_problem(answer, "attestation_failed")
        bodies.append({k: v for k, v in answer.json.items() if k != "request_id"})
    assert bodies[0] == bodies[1]


def test_ht_11_the_layer_takes_the_same_time_for_both(service: Running) -> None:
    """Welch's t-test on 2 000 timings, interleaved: the rim itself adds no difference."""
    times: dict[str, list[float]] = {"unknown_device": [], "bad_quote": []}
    for _ in range(1000):
        for text, taken in times.items():
            started = time.perf_counter()
            service.post("/v1/echo", {"text": text})
            taken.append(time.perf_counter() - started)
    one, two = (sorted(taken)[50:-50] for taken in times.values())
    spread = (statistics.variance(one) / len(one) + statistics.variance(two) / len(two)) ** 0.5
    assert abs(statistics.fmean(one) - statistics.fmean(two)) < 5 * spread + 20e-6


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/healthz", None),
        ("GET", "/openapi.json", None),
        ("GET", "/nothing", None),
        ("GET", "/v1/echo", None),
        ("POST", "/v1/echo", b"{}"),
        ("POST", "/v1/echo", b"{"),
        ("POST", "/v1/echo", b'{"text":"raise"}'),
    ],
)
def test_ht_11_every_answer_is_unstored_unsniffed_and_unsigned_by_software(
    service: Running, method: str, path: str, body: bytes | None
) -> None:
    answer = service.request(method, path, body, {"Content-Type": "application/json"})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.headers["x-request-id"]) == 16
    assert not {"server", "x-powered-by", "set-cookie", "location"} & answer.headers.keys()
    for word in (b"gunicorn", b"flask", b"werkzeug", b"python"):
        assert word not in answer.body.lower()


def test_a_request_id_is_ours_whatever_the_client_says(service: Running) -> None:
    ids = {
        service.request("GET", "/nothing", headers={"X-Request-Id": "forged"}).headers["x-request-id"]
        for _ in range(20)
    }
    assert len(ids) == 20
    assert "forged" not in ids


# Pages


def test_published_documents_may_be_kept_and_asked_for_again(service: Running) -> None:
    answer = service.request("GET", "/.well-known/jwks.json")
    assert (answer.status, answer.json) == (200, {"keys": []})
    assert answer.headers["cache-control"] == "public, max-age=60"
    tag = answer.headers["etag"]
    for value, status in ((tag, 304), (f'W/{tag}, "x"', 304), ("*", 304), ('"x"', 200)):
        again = service.request("GET", "/.well-known/jwks.json", headers={"If-None-Match": value})
        assert again.status == status
        assert (again.body == b"") == (status == 304)


def test_ad_6_health_names_the_unsafe_modes(service: Running) -> None:
    assert service.request("GET", "/healthz").json == {"status": "ok", "unsafe": []}


def test_a_service_that_is_not_ready_says_what_is_missing(service: Running) -> None:
    assert service.request("GET", "/readyz").json == {
        "status": "ready",
        "checks": {"store": True, "keys": True},
    }
    before = len(service.refused())
    (service.folder / "broken").touch()
    try:
        answer = service.request("GET", "/readyz")
    finally:
        (service.folder / "broken").unlink()
    check_problem(answer, "unavailable")
    assert "store" in answer.json["detail"]
    assert service.refused()[before:] == []


def test_the_interface_is_described_with_its_models_and_authentication(service: Running) -> None:
    document = service.request("GET", "/openapi.json").json
    post = document["paths"]["/v1/echo"]["post"]
    assert "none: it echoes" in post["description"]
    name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert set(document["components"]["schemas"][name]["properties"]) == set(DOCUMENT)
    assert document["components"]["schemas"][name]["additionalProperties"] is False
    assert {"/healthz", "/readyz", "/metrics", "/openapi.json", "/.well-known/jwks.json"} <= document[
        "paths"
    ].keys()


def test_metrics_count_by_our_own_labels_only(service: Running) -> None:
    service.post("/v1/echo", {})
    service.request("GET", "/made/up/path")
    text = service.request("GET", "/metrics").body.decode()
    assert 'attestd_requests_total{code="",route="/v1/echo",status="201"}' in text
    assert 'attestd_requests_total{code="not_found",route="unmatched",status="404"}' in text
    assert 'attestd_request_seconds_bucket{le="0.1",route="/v1/echo"}' in text
    assert "made/up" not in text


def test_each_request_is_one_access_line(service: Running) -> None:
    answer = service.post("/v1/echo", {"number": -1})
    lines = service.access(answer.json["request_id"])
    assert len(lines) == 1
    told = lines[0]
    assert (told["method"], told["path"], told["status"], told["code"]) == (
        "POST",
        "/v1/echo",
        400,
        "malformed",
    )
    assert told["source"] == "127.0.0.1"
    assert told["ms"] > 0
    assert told["device"] is None
    json.dumps(told)
