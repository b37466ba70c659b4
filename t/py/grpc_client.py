"""A gRPC client that we did not write, for a server of ours.

  grpc_client.py CERTS NAME ADDRESS PEER VERB [ARGS…]

Each verb writes JSON lines: {"case":…, …}."""
import concurrent.futures
import json
import os
import sys
import time

import grpc

import hyperpb as pb

RAW = {"request_serializer": bytes, "response_deserializer": bytes}
CALL = {"request_serializer": pb.Request.SerializeToString, "response_deserializer": pb.Response.FromString}
SERVER_CALL = {"request_serializer": pb.Response.SerializeToString, "response_deserializer": pb.Request.FromString}


def call(channel, method, params=None, timeout=20, **kw):
    return channel.unary_unary("/Hyper/Call", **CALL)(pb.request(method, params, **kw), timeout=timeout)


def attempt(case, fn):
    try:
        pb.say(case=case, ok=fn())
    except grpc.RpcError as e:
        pb.say(case=case, status=pb.code_of(e))


def one(channel, method, params="{}", ident=None, client="hd-1"):
    """One call."""
    attempt(method, lambda: pb.as_dict(call(channel, method, json.loads(params), ident=ident, client=client)))


def unary(channel):
    """What /Hyper/Call can say."""
    deep = {"n": 1, "f": 1.5, "t": True, "z": None, "s": "ü\n", "l": [1, "x", {"y": []}], "m": {"k": {}}}
    attempt("echo", lambda: pb.as_dict(call(channel, "hd-2.echo", deep)))
    attempt("list", lambda: pb.as_dict(call(channel, "hd-2.list")))
    attempt("error", lambda: pb.as_dict(call(channel, "hd-2.error", {"a": 1})))
    attempt("status", lambda: pb.as_dict(call(channel, "hd-2.status")))
    big = {"text": "y" * 3000000}
    attempt("3 MB", lambda: call(channel, "hd-2.echo", big).result.fields["text"].string_value == big["text"])
    attempt("3 MB answer", lambda: len(call(channel, "hd-2.big", {"size": 3000000}).result.fields["text"].string_value))
    attempt("answer over the limit", lambda: len(call(channel, "hd-2.big", {"size": 5000000}).id))
    raw = channel.unary_unary("/Hyper/Call", **RAW)
    attempt("request over the limit", lambda: len(raw(bytes(5009926), timeout=20)))
    attempt("malformed", lambda: len(raw(b"\xff\xff\xff", timeout=20)))
    attempt("nested", lambda: len(raw(nested_struct(34000), timeout=20)))
    attempt("unknown method", lambda: len(channel.unary_unary("/Hyper/Nope", **RAW)(b"", timeout=20)))
    attempt("unknown service", lambda: len(channel.unary_unary("/grpc.health.v1.Health/Check", **RAW)(b"", timeout=20)))
    headers = (("x-unknown", "1"), ("x-bin-bin", b"\x00\x01"), ("x-long", "l" * 5000))
    attempt("unknown headers", lambda: channel.unary_unary("/Hyper/Call", **CALL)(
        pb.request("hd-2.echo"), timeout=20, metadata=headers).id)
    attempt("headers over the limit", lambda: channel.unary_unary("/Hyper/Call", **CALL)(
        pb.request("hd-2.echo"), timeout=20, metadata=(("x-long", "l" * 20000),)).id)
    attempt("compressed", lambda: channel.unary_unary("/Hyper/Call", **CALL)(
        pb.request("hd-2.echo", {"a": "b" * 5000}), timeout=20, compression=grpc.Compression.Gzip).id)
    attempt("after all that", lambda: call(channel, "hd-2.echo").id)


def nested_struct(size):
    """A Request whose params are Struct in Struct in …: 34 kB that overflow a recursive decoder's stack."""
    nested = b""
    while len(nested) < size:
        value = b"\x2a" + varint(len(nested)) + nested
        entry = b"\x0a\x01k\x12" + varint(len(value)) + value
        nested = b"\x0a" + varint(len(entry)) + entry
    return b"\x12" + varint(len(nested)) + nested


def hostile(channel):
    """Bytes that are no message of ours, on one connection; then a call that is."""
    raw = channel.unary_unary("/Hyper/Call", **RAW)
    announce = channel.stream_unary("/Hyper/ServerCall", **RAW)
    for case, data in (("nested", nested_struct(34000)), ("nested, 200 kB", nested_struct(200000)), ("malformed", b"\xff" * 9),
                       ("empty", b""), ("over the limit", bytes(5009926))):
        attempt(case, lambda: len(raw(data, timeout=20)))
        attempt(case + ", ServerCall", lambda: len(announce(iter([data]), timeout=20)))
    attempt("after all that", lambda: call(channel, "hd-2._ping").id)


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def many(channel, count="500"):
    """Calls at the same time on one connection, of sizes around frame and window limits."""
    sizes = [0, 1, 16000, 16384, 16400, 65535, 70000, 200000]

    def work(i):
        text = "z" * sizes[i % len(sizes)]
        return call(channel, "hd-2.echo", {"t": text}, ident=f"hd-2.echo({i})").result.fields["t"].string_value == text

    with concurrent.futures.ThreadPoolExecutor(150) as pool:
        attempt("many", lambda: sum(pool.map(work, range(int(count)))))


def stream(channel, announcement, answers="3", delay_ms="0"):
    """ServerCall: announces, answers so many requests after a delay, then half-closes and waits for the end."""
    left = [int(answers)]
    queue = __import__("queue").Queue()
    queue.put(pb.response("1", json.loads(announcement)))
    begin = time.monotonic()
    rpc = channel.stream_stream("/Hyper/ServerCall", **SERVER_CALL)(iter(queue.get, None), timeout=30)
    pb.say(case="opened", ok=True)
    try:
        for q in rpc:
            if delay_ms:
                time.sleep(int(delay_ms) / 1000)
            pb.say(case="request", ok=pb.as_dict(q), ms=int((time.monotonic() - begin) * 1000))
            queue.put(pb.response(q.id, {"got": pb.as_dict(q).get("params")}))
            left[0] -= 1
            if left[0] == 0:
                queue.put(None)
        pb.say(case="end", status=[rpc.code().value[0], rpc.details()])
    except grpc.RpcError as e:
        pb.say(case="end", status=pb.code_of(e))
    finally:
        queue.put(None)


def cancel(channel):
    """A call that the client gives up."""
    queue = __import__("queue").Queue()
    queue.put(pb.response("1", {"name": "hd-1", "wait_ms": 60000}))
    rpc = channel.stream_stream("/Hyper/ServerCall", **SERVER_CALL)(iter(queue.get, None))
    time.sleep(0.3)
    rpc.cancel()
    queue.put(None)
    attempt("after cancel", lambda: call(channel, "hd-2.echo").id)


def main():
    certs, name, address, peer, verb, *args = sys.argv[1:]
    with pb.channel(address, certs, name, peer) as ch:
        try:
            grpc.channel_ready_future(ch).result(timeout=float(os.environ.get("T_READY", "20")))
            pb.say(case="ready", ok=True)
        except grpc.FutureTimeoutError:
            pb.say(case="ready", ok=False)
            return
        {"one": one, "unary": unary, "many": many, "stream": stream, "cancel": cancel, "hostile": hostile}[verb](ch, *args)


main()
