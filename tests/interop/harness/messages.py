"""Requests from text, and answers as text.

A request is written in protobuf's text format with etcd's field names. Two macros keep large requests
short: `fill("x", 3)` is "xxx", and `many 3 { key: "k%d" }` repeats its body with %d counting from 0.

An answer is printed in the same format. `_` stands for a value that the server chooses freely (ids,
terms, sizes, hashes): the field must be set, and its value is not compared.
"""

import itertools
import re
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.descriptor import FieldDescriptor
from grpc_tools import protoc

# Values that differ from server to server. Each is printed as `_`.
MASKED = {
    "etcdserverpb.HashKVResponse.hash",
    "etcdserverpb.LeaseTimeToLiveResponse.TTL",
    "etcdserverpb.Member.ID",
    "etcdserverpb.Member.clientURLs",
    "etcdserverpb.Member.name",
    "etcdserverpb.Member.peerURLs",
    "etcdserverpb.StatusResponse.dbSize",
    "etcdserverpb.StatusResponse.dbSizeInUse",
    "etcdserverpb.StatusResponse.dbSizeQuota",
    "etcdserverpb.StatusResponse.leader",
    "etcdserverpb.StatusResponse.raftAppliedIndex",
    "etcdserverpb.StatusResponse.raftIndex",
    "etcdserverpb.StatusResponse.raftTerm",
    "etcdserverpb.StatusResponse.storageVersion",
    "etcdserverpb.StatusResponse.version",
}
# Lists without an order: etcd iterates over a map, or sorts by the time that is left.
UNORDERED = {"etcdserverpb.LeaseTimeToLiveResponse.keys", "etcdserverpb.LeaseLeasesResponse.leases"}
# The server divides these answers as it likes. They are merged before they are compared.
MERGED = {"etcdserverpb.RangeStreamResponse"}
# Ids of this size are the server's choice; a test chooses smaller ones.
CHOSEN_LEASE_ID_MIN = 1 << 32
SHORT_ENOUGH_BYTES = 200
MANY_MIN = 4


class Protos:
    """The messages and methods of all .proto files."""

    def __init__(self, folders):
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "descriptors"
            files = [path for folder in folders for path in sorted(Path(folder).glob("*.proto"))]
            arguments = ["protoc", *(f"-I{folder}" for folder in folders), "--include_imports"]
            arguments += [f"--descriptor_set_out={output}", *map(str, files)]
            if protoc.main(arguments) != 0:
                raise SystemExit("interop: protoc fails")
            described = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
        self.pool = descriptor_pool.DescriptorPool()
        for file in described.file:
            self.pool.Add(file)

    def method(self, name):
        """The method that a step names, as "KV/Put" or in full; None if there is no such method."""
        service, method = name.split("/")
        try:
            found = self.pool.FindServiceByName(full_service(service))
        except KeyError:
            return None
        return found.methods_by_name.get(method)

    def request(self, method, text):
        """The bytes of a request."""
        word, _, digits = text.partition(" ")
        if word == "hex":
            return bytes.fromhex(digits)
        if method is None:
            return b""
        message = message_factory.GetMessageClass(method.input_type)()
        text_format.Parse(expand(text), message)
        return message.SerializeToString()

    def answers(self, method, many):
        """The texts of all answers to one call."""
        if method is None:
            return [f"hex {data.hex()}" for data in many]
        message = message_factory.GetMessageClass(method.output_type)
        try:
            parsed = [message.FromString(data) for data in many]
        except Exception as error:  # protobuf raises a DecodeError of several modules
            return [f"not a {method.output_type.full_name}: {error}"]
        if method.output_type.full_name in MERGED and parsed:
            for later in parsed[1:]:
                parsed[0].MergeFrom(later)
            parsed = parsed[:1]
        return [show(answer) for answer in parsed]


def full_service(service):
    return service if "." in service else f"etcdserverpb.{service}"


def path(name):
    """The path of a method in HTTP/2."""
    service, method = name.split("/")
    return f"/{full_service(service)}/{method}"


def expand(text):
    text = re.sub(r'fill\("(.)", (\d+)\)', lambda m: f'"{m[1] * int(m[2])}"', text)
    while found := re.search(r"many (\d+) \{", text):
        end, depth = found.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        body = text[found.end() : end - 1]
        repeated = " ".join(body.replace("%d", str(i)) for i in range(int(found[1])))
        text = text[: found.start()] + repeated + text[end:]
    return text


def show(message):
    if message.DESCRIPTOR.full_name == "etcdserverpb.ResponseHeader":
        return show_header(message)
    parts = (part for field, value in message.ListFields() for part in show_field(message, field, value))
    return " ".join(collapse(parts))


def collapse(parts):
    """Writes more than a few equal parts in a row as `many`."""
    for part, equal in itertools.groupby(parts):
        count = len(list(equal))
        yield from [part] * count if count < MANY_MIN else [f"many {count} {{ {part} }}"]


def show_header(header):
    """`_` stands for the three ids of a complete header."""
    set_ids = [name for name in ("cluster_id", "member_id", "raft_term") if getattr(header, name)]
    parts = ["_"] if len(set_ids) == 3 else [f"{name}: _" for name in set_ids]
    if header.revision:
        parts.append(f"revision: {header.revision}")
    return " ".join(parts)


def show_field(message, field, value):
    values = list(value) if field.is_repeated else [value]
    if field.full_name in UNORDERED:
        values.sort(key=lambda one: one if isinstance(one, bytes) else one.ID)
    for one in values:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = show(one)
            yield f"{field.name} {{ {inner} }}" if inner else f"{field.name} {{ }}"
        else:
            yield f"{field.name}: {show_value(message, field, one)}"


def show_value(message, field, value):
    if field.full_name in MASKED and not (field.name == "TTL" and value < 0):
        return "_"
    if field.name == "ID" and value >= CHOSEN_LEASE_ID_MIN:
        return "_"
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
        return show_text(value if isinstance(value, bytes) else value.encode())
    return str(value)


def show_text(data):
    if len(data) > SHORT_ENOUGH_BYTES and data == data[:1] * len(data):
        return f'fill("{data[:1].decode()}", {len(data)})'
    plain = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n"}
    return '"' + "".join(plain.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data) + '"'
