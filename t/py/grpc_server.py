"""A gRPC server that we did not write, for clients of ours.

  grpc_server.py CERTS NAME [PORT [METHOD]]

Writes `… ready port=N` to stderr. Call answers by the method after the last dot (echo, error, status,
big, slow); ServerCall sends as many requests as the announcement's `count` says, the first after `wait_ms`,
and ends with status 0. With METHOD it sends one request of that name on each such stream instead and keeps it.
T_IDLE_MS in the environment: ends connections without a call after that time. What came is written as JSON lines."""
import concurrent.futures
import os
import signal
import sys
import time

import grpc
from google.protobuf import json_format

import hyperpb as pb


def call(q, context):
    pb.say(call=pb.as_dict(q), connection=context.peer(), peer=[v.decode() for v in context.auth_context().get("x509_common_name", [])],
           headers=sorted(m.key for m in context.invocation_metadata()))
    method = q.method.rsplit(".", 1)[-1]
    if method == "echo":
        return pb.Response(id=q.id, result=q.params)
    if method == "empty":
        return pb.Response(id=q.id)
    if method == "error":
        r = pb.Response(id=q.id)
        r.error.code = -100
        r.error.message = "no"
        json_format.ParseDict({"a": [1, None]}, r.error.data)
        return r
    if method == "big":
        return pb.response(q.id, {"text": "x" * int(q.params.fields["size"].number_value)})
    if method == "slow":
        time.sleep(0.5)
        return pb.Response(id=q.id)
    if method == "_ping":
        return pb.response(q.id, {"version": "python", "params": pb.as_dict(q).get("params")})
    context.abort(grpc.StatusCode.UNKNOWN, "error handling gRPC request: ä 100% \n done")


def server_call(answers, context):
    first = next(answers)
    announced = pb.as_dict(first).get("result", {})
    pb.say(announced=announced)
    if not isinstance(announced.get("name"), str):
        context.abort(grpc.StatusCode.UNKNOWN, "invalid client announcement")
    if len(sys.argv) > 4:
        method = sys.argv[4]
        yield pb.request(method, {"from": "python"}, client=sys.argv[2], ident=method + "(p1)")
        for a in answers:
            pb.say(answer=pb.as_dict(a))
        return
    time.sleep(announced.get("wait_ms", 0) / 1000)
    for i in range(int(announced.get("count", 0))):
        yield pb.request("hd-1.ask", {"n": i}, client="hd-2", ident=f"hd-1.ask({i})")
        pb.say(answer=pb.as_dict(next(answers)))
    pb.say(half_closed=[pb.as_dict(a) for a in answers] if announced.get("drain") else None)


def main():
    certs, name = sys.argv[1:3]
    root, key, chain = pb.files(certs, name)
    idle = [("grpc.max_connection_idle_ms", int(os.environ["T_IDLE_MS"]))] if "T_IDLE_MS" in os.environ else []
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=idle)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Hyper", {
        "Call": grpc.unary_unary_rpc_method_handler(call, pb.Request.FromString, pb.Response.SerializeToString),
        "ServerCall": grpc.stream_stream_rpc_method_handler(server_call, pb.Response.FromString,
                                                            pb.Request.SerializeToString)}),))
    credentials = grpc.ssl_server_credentials([(key, chain)], root, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:" + (sys.argv[3] if len(sys.argv) > 3 else "0"), credentials)
    server.start()
    sys.stderr.write(f"grpc_server info ready port={port}\n")
    sys.stderr.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop(0.2).wait()


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
main()
