"""The messages of protocol.md 3.1 in Google's protobuf, from a descriptor built by hand: no generated code,
so that what our own codec writes is read by one that has nothing in common with it."""
import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2

STRING, INT32, MESSAGE = 9, 5, 11
STRUCT = ".google.protobuf.Struct"


def _message(file, name, *fields):
    m = file.message_type.add(name=name)
    for number, (field, kind, type_name) in enumerate(fields, 1):
        f = m.field.add(name=field, number=number, type=kind, label=1)
        if type_name:
            f.type_name = type_name


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="hyper_test.proto", syntax="proto3")
    file.dependency.append("google/protobuf/struct.proto")
    _message(file, "Request", ("method", STRING, ""), ("params", MESSAGE, STRUCT), ("id", STRING, ""),
             ("clientName", STRING, ""))
    _message(file, "Error", ("code", INT32, ""), ("message", STRING, ""), ("data", MESSAGE, STRUCT))
    _message(file, "Response", ("id", STRING, ""), ("result", MESSAGE, STRUCT), ("error", MESSAGE, ".Error"))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return [factory.GetPrototype(pool.FindMessageTypeByName(n)) for n in ("Request", "Response")]


Request, Response = _classes()


def request(method, params=None, client="hd-1", ident=None):
    r = Request(method=method, id=ident or method + "(1)", clientName=client)
    json_format.ParseDict(params or {}, r.params)
    return r


def response(ident, result=None):
    r = Response(id=ident)
    if result is not None:
        json_format.ParseDict(result, r.result)
    return r


def as_dict(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def files(certs, name):
    """(root, key, chain) as bytes"""
    paths = [f"{certs}/root.crt", f"{certs}/{name}.key", f"{certs}/{name}.crt"]
    return [open(p, "rb").read() for p in paths]


def channel(address, certs, name, peer, **options):
    root, key, chain = files(certs, name)
    opts = [("grpc.ssl_target_name_override", peer), ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)] + list(options.items())
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, chain), opts)


def say(**what):
    """One JSON line for the test that reads us."""
    sys.stdout.write(json.dumps(what, sort_keys=True) + "\n")
    sys.stdout.flush()


def code_of(error):
    return [error.code().value[0], error.details()]
