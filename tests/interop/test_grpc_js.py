"""Does the Workload API hold for @grpc/grpc-js, with a definition of the standard that is not ours?"""

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tests.attestd.agent.workload.domain import workload
from tests.attestd.agent.workload.serving import HOUR, Serving, me, serving
from tests.interop.javascript import Library, Refused, library

INVALID_ARGUMENT, PERMISSION_DENIED, UNAVAILABLE = 3, 7, 14
NO_AUTHORITY = Path("/dev/null")
"""The socket has no TLS."""
A = "https://a.example.org"
TELEMETRY = workload("telemetry", user=[me()], hint="inside")
BUILDER = workload("builder", user=[me()])


@pytest.fixture(scope="module")
def program() -> Iterator[Library]:
    with library("workload-api", authority=NO_AUTHORITY) as made:
        yield made


def once(program: Library, there: Serving, method: str, **task: Any) -> Any:
    return program.call("once", path=str(there.path), method=method, **task)


def first(program: Library, there: Serving, method: str, **task: Any) -> Any:
    program.call("open", name=method, path=str(there.path), method=method, **task)
    try:
        return program.call("next", name=method)
    finally:
        program.call("close", name=method)


def test_it_reads_every_answer_of_the_standard(program: Library) -> None:
    with serving(TELEMETRY, BUILDER) as there:
        told = first(program, there, "FetchX509SVID")["svids"]
        assert [each["spiffe_id"].split("/")[4] for each in told] == ["telemetry", "builder"]
        assert [each["hint"] for each in told] == ["inside", ""]
        leaf = x509.load_der_x509_certificate(b64decode(told[0]["x509_svid"]))
        key = load_der_private_key(b64decode(told[0]["x509_svid_key"]), None)
        assert leaf.public_key() == key.public_key()
        leaf.verify_directly_issued_by(x509.load_der_x509_certificate(b64decode(told[0]["bundle"])))
        bundles = first(program, there, "FetchX509Bundles")["bundles"]
        assert bundles == {"spiffe://example.org": told[0]["bundle"]}
        token = first(program, there, "FetchWITSVID")["svids"][0]["wit_svid"]
        assert jwt.get_unverified_header(token)["typ"] == "wit+jwt"
        assert '"wit-svid"' in first(program, there, "FetchWITBundles")["bundles"]["spiffe://example.org"]
        keys = b64decode(first(program, there, "FetchJWTBundles")["bundles"]["spiffe://example.org"])
        assert b'"jwt-svid"' in keys


def test_it_gets_a_jwt_svid_and_has_it_validated(program: Library) -> None:
    with serving(TELEMETRY) as there:
        svid = once(program, there, "FetchJWTSVID", request={"audience": [A]})["svids"][0]
        found = once(program, there, "ValidateJWTSVID", request={"audience": A, "svid": svid["svid"]})
        assert found["spiffe_id"] == svid["spiffe_id"] == there.shelf.domain.spiffe_id("telemetry")
        assert found["claims"]["fields"]["sub"]["stringValue"] == svid["spiffe_id"]
        with pytest.raises(Refused) as refused:
            once(program, there, "ValidateJWTSVID", request={"audience": "https://x", "svid": svid["svid"]})
        assert refused.value.code == INVALID_ARGUMENT


def test_it_is_told_of_a_rotation_and_of_the_end(program: Library) -> None:
    with serving(TELEMETRY) as there:
        program.call("open", name="x", path=str(there.path), method="FetchX509SVID")
        before = program.call("next", name="x")
        again = there.shelf.domain.holdings(TELEMETRY, until=there.shelf.now() + HOUR)
        there.put(again)
        after = program.call("next", name="x")
        assert before["svids"][0]["x509_svid"] != after["svids"][0]["x509_svid"]
        there.put(there.shelf.domain.holdings(until=0, refused={"telemetry": "posture"}))
        with pytest.raises(Refused) as refused:
            program.call("next", name="x")
        assert refused.value.code == PERMISSION_DENIED
        program.call("close", name="x")


@pytest.mark.parametrize("header", [[], ["false"], ["True"], ["true", "true"], ["true ,true"]])
def test_without_the_security_header_once_it_is_told_so(program: Library, header: list[str]) -> None:
    with serving(TELEMETRY) as there:
        for method in ("FetchX509SVID", "FetchJWTBundles", "FetchWITSVID"):
            with pytest.raises(Refused) as refused:
                first(program, there, method, header=header)
            assert refused.value.code == INVALID_ARGUMENT
        assert first(program, there, "FetchX509SVID")["svids"]


def test_a_program_without_a_rule_is_refused(program: Library) -> None:
    with serving(workload("telemetry", user=["65533"])) as there:
        with pytest.raises(Refused) as refused:
            first(program, there, "FetchX509SVID")
        assert refused.value.code == PERMISSION_DENIED
        with pytest.raises(Refused) as refused:
            once(program, there, "FetchJWTSVID", request={"audience": [A]})
        assert refused.value.code == PERMISSION_DENIED
    with serving(TELEMETRY, holdings=there.shelf.domain.holdings(until=0)) as there:
        with pytest.raises(Refused) as refused:
            first(program, there, "FetchX509SVID")
        assert refused.value.code == UNAVAILABLE
