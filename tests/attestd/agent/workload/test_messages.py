"""The table of messages is the standard's, as another package has it."""

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from grpclib.const import Cardinality
from spiffe._proto import workload_pb2

from attestd.agent.workload import messages
from attestd.agent.workload.messages import POOL, Call, new


def described(file: object) -> FileDescriptorProto:
    written = FileDescriptorProto()
    file.CopyToProto(written)  # type: ignore[attr-defined]
    return written


def by_name(file: FileDescriptorProto) -> dict[str, DescriptorProto]:
    return {each.name: each for each in file.message_type}


OURS, THEIRS = described(POOL.FindFileByName("workloadapi.proto")), described(workload_pb2.DESCRIPTOR)
CALLS = [each for each in vars(messages).values() if isinstance(each, Call)]


def test_every_message_that_the_spiffe_package_knows_is_the_same_here() -> None:
    assert (OURS.package, OURS.syntax) == (THEIRS.package, THEIRS.syntax) == ("", "proto3")
    ours = by_name(OURS)
    assert {name: ours[name] for name in by_name(THEIRS)} == by_name(THEIRS)


def test_every_call_that_the_spiffe_package_knows_is_the_same_here() -> None:
    (service,) = THEIRS.service
    told = {
        f"/{service.name}/{each.name}": (each.input_type, each.output_type, each.server_streaming)
        for each in service.method
    }
    here = {
        call.path: (
            f".{call.request.DESCRIPTOR.full_name}",
            f".{call.response.DESCRIPTOR.full_name}",
            call.cardinality is Cardinality.UNARY_STREAM,
        )
        for call in CALLS
    }
    assert {path: here[path] for path in told} == told


def test_the_calls_of_the_wit_profile_have_the_standards_numbers() -> None:
    fields = {
        name: {field.name: field.number for field in message.field}
        for name, message in by_name(OURS).items()
        if name.startswith("WIT")
    }
    assert fields == {
        "WITSVIDRequest": {"spiffe_id": 1},
        "WITSVIDResponse": {"svids": 1},
        "WITSVID": {"spiffe_id": 1, "wit_svid": 2, "wit_svid_key": 3, "hint": 4},
        "WITBundlesRequest": {},
        "WITBundlesResponse": {"bundles": 1},
    }
    raw = new("WITBundlesResponse", bundles={"spiffe://a": "{}"}).SerializeToString()
    assert raw == b"\x0a\x10\x0a\x0aspiffe://a\x12\x02{}"


def test_what_is_ours_is_a_service_of_its_own() -> None:
    ours = [call.path for call in CALLS if "SpiffeWorkloadAPI" not in call.path]
    assert ours == [
        "/attestd.agent.v1.AttestdAgent/FetchAccessToken",
        "/attestd.agent.v1.AttestdAgent/Prove",
    ]
