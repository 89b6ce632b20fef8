"""What is said on the socket? The messages of the SPIFFE Workload API, and of the service beside it.

Both are tables here and become protobuf classes when they are imported: the names and numbers are the
standard's (workloadapi.proto), and nothing is generated. They live in a pool of their own, so that another
copy of the standard's messages in the same process does not matter.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import DESCRIPTOR as STRUCT
from grpclib.const import Cardinality

WORKLOAD_API = "SpiffeWorkloadAPI"
AGENT_PACKAGE = "attestd.agent.v1"
ATTESTD_AGENT = f"{AGENT_PACKAGE}.AttestdAgent"

SECURITY_HEADER = ("workload.spiffe.io", "true")
"""What each request carries (SPIFFE Workload Endpoint, section 3): a forged web request cannot."""

Fields = dict[str, str]
"""A field's type by its name, the numbers in that order from 1: `string`, `bytes`, `int64`, a message's name,
`repeated …` and `map …`, whose keys are strings."""

_STANDARD: dict[str, Fields] = {
    "X509SVIDRequest": {},
    "X509SVIDResponse": {
        "svids": "repeated X509SVID",
        "crl": "repeated bytes",
        "federated_bundles": "map bytes",
    },
    "X509SVID": {
        "spiffe_id": "string",
        "x509_svid": "bytes",
        "x509_svid_key": "bytes",
        "bundle": "bytes",
        "hint": "string",
    },
    "X509BundlesRequest": {},
    "X509BundlesResponse": {"crl": "repeated bytes", "bundles": "map bytes"},
    "JWTSVIDRequest": {"audience": "repeated string", "spiffe_id": "string"},
    "JWTSVIDResponse": {"svids": "repeated JWTSVID"},
    "JWTSVID": {"spiffe_id": "string", "svid": "string", "hint": "string"},
    "JWTBundlesRequest": {},
    "JWTBundlesResponse": {"bundles": "map bytes"},
    "ValidateJWTSVIDRequest": {"audience": "string", "svid": "string"},
    "ValidateJWTSVIDResponse": {"spiffe_id": "string", "claims": "google.protobuf.Struct"},
    "WITSVIDRequest": {"spiffe_id": "string"},
    "WITSVIDResponse": {"svids": "repeated WITSVID"},
    "WITSVID": {"spiffe_id": "string", "wit_svid": "string", "wit_svid_key": "string", "hint": "string"},
    "WITBundlesRequest": {},
    "WITBundlesResponse": {"bundles": "map string"},
}

_OURS: dict[str, Fields] = {
    "AccessTokenRequest": {
        "agent": "string",
        "audience": "string",
        "scopes": "repeated string",
        "subject_token": "string",
    },
    "AccessTokenResponse": {
        "access_token": "string",
        "token_type": "string",
        "expires_in": "int64",
        "scope": "string",
    },
    "ProveRequest": {
        "agent": "string",
        "access_token": "string",
        "method": "string",
        "url": "string",
        "nonce": "string",
    },
    "ProveResponse": {"dpop": "string"},
}


class Call(NamedTuple):
    """One method: its path in HTTP/2, whether it answers again and again, and the classes of its messages."""

    path: str
    cardinality: Cardinality
    request: type[Message]
    response: type[Message]

    @property
    def streams(self) -> bool:
        return self.cardinality is Cardinality.UNARY_STREAM


def _file(name: str, package: str, messages: dict[str, Fields]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=[STRUCT.name])
    file.message_type.extend(_message(package, name, fields) for name, fields in messages.items())
    return file


def _message(package: str, name: str, fields: Fields) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for number, (field, written) in enumerate(fields.items(), 1):
        kind, _, of = written.rpartition(" ")
        if kind == "map":
            entry = message.nested_type.add(name=_entry(field))
            entry.field.extend([_field("key", 1, "string", package), _field("value", 2, of, package)])
            entry.options.map_entry = True
            of = f"{name}.{entry.name}"
        message.field.append(_field(field, number, of, package, repeated=bool(kind)))
    return message


def _entry(field: str) -> str:
    """The name that protoc gives the message of a map's entries."""
    return "".join(word.capitalize() for word in field.split("_")) + "Entry"


def _field(name: str, number: int, of: str, package: str, *, repeated: bool = False) -> FieldDescriptorProto:
    field = FieldDescriptorProto(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    scalar = {
        "string": FieldDescriptorProto.TYPE_STRING,
        "bytes": FieldDescriptorProto.TYPE_BYTES,
        "int64": FieldDescriptorProto.TYPE_INT64,
    }.get(of)
    if scalar is not None:
        field.type = scalar
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{of}" if of.startswith("google.") else f".{package}.{of}".replace("..", ".")
    return field


def _classes(pool: DescriptorPool, files: Iterable[FileDescriptorProto]) -> dict[str, type[Message]]:
    pool.AddSerializedFile(STRUCT.serialized_pb)
    classes = {}
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
        for message in pool.FindFileByName(file.name).message_types_by_name.values():
            classes[message.name] = GetMessageClass(message)
    return classes


POOL = DescriptorPool()
_CLASSES = _classes(
    POOL, [_file("workloadapi.proto", "", _STANDARD), _file("attestd/agent.proto", AGENT_PACKAGE, _OURS)]
)


def new(name: str, **fields: Any) -> Any:
    """A message of this name."""
    return _CLASSES[name](**fields)


def _call(service: str, method: str, stem: str, *, streams: bool = False) -> Call:
    cardinality = Cardinality.UNARY_STREAM if streams else Cardinality.UNARY_UNARY
    return Call(f"/{service}/{method}", cardinality, _CLASSES[f"{stem}Request"], _CLASSES[f"{stem}Response"])


FETCH_X509_SVID = _call(WORKLOAD_API, "FetchX509SVID", "X509SVID", streams=True)
FETCH_X509_BUNDLES = _call(WORKLOAD_API, "FetchX509Bundles", "X509Bundles", streams=True)
FETCH_JWT_SVID = _call(WORKLOAD_API, "FetchJWTSVID", "JWTSVID")
FETCH_JWT_BUNDLES = _call(WORKLOAD_API, "FetchJWTBundles", "JWTBundles", streams=True)
VALIDATE_JWT_SVID = _call(WORKLOAD_API, "ValidateJWTSVID", "ValidateJWTSVID")
FETCH_WIT_SVID = _call(WORKLOAD_API, "FetchWITSVID", "WITSVID", streams=True)
FETCH_WIT_BUNDLES = _call(WORKLOAD_API, "FetchWITBundles", "WITBundles", streams=True)
FETCH_ACCESS_TOKEN = _call(ATTESTD_AGENT, "FetchAccessToken", "AccessToken")
PROVE = _call(ATTESTD_AGENT, "Prove", "Prove")
