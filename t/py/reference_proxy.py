"""A proxy and its hyper as protocol.md 7.1 describes the reference's, and nothing of ours: no session or timeline in
the result, one request at a time on a standing stream, one read for the token, any end closes both sides.

  reference_proxy.py CERTS NAME PORT [B_PORT]

With B_PORT it is B as well: it dials its own endpoint for B and joins that to the gRPC server which listens there, as the
reference's B takes the socket that it dialled for an accepted one. What came is written as JSON lines."""
import base64
import concurrent.futures
import os
import queue
import signal
import socket
import sys
import threading

import grpc

import hyperpb as pb

certs, name, port = sys.argv[1:4]
b_port = int(sys.argv[4]) if len(sys.argv) > 4 else None
tokens = {}  # token -> the socket that is parked, None before there is one
streams = {}  # operator -> queue of (request, queue for its answer)
lock = threading.Lock()
endpoint = socket.create_server(("127.0.0.1", 0))


def pump(a, b):
    try:
        while data := a.recv(4096):
            b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def splice(a, b):
    for pair in ((a, b), (b, a)):
        threading.Thread(target=pump, args=pair, daemon=True).start()


def connector(sock):
    sock.settimeout(5)
    token = sock.recv(32)
    sock.settimeout(None)
    pb.say(connector=len(token))
    with lock:
        if token not in tokens:
            sock.close()
            return
        other = tokens[token]
        if other is None:
            tokens[token] = sock
            return
        del tokens[token]
    splice(sock, other)


def accept():
    while True:
        threading.Thread(target=connector, args=(endpoint.accept()[0],), daemon=True).start()


def entry(operator):
    return {"name": operator, "groups": None, "channels": [], "services": [], "certificates": [], "settings": [], "preferences": [],
            "records": None, "properties": None}


def tell_b(to, client, where, token):
    if b_port:
        sock = socket.create_connection(endpoint.getsockname())
        sock.sendall(token)
        splice(sock, socket.create_connection(("127.0.0.1", b_port)))
        return None
    if to not in streams:
        return "no channel can deliver this request"
    params = {"channel": "grpc_server", "client": {"name": client, "entry": entry(client)}, "endpoint": where,
              "token": base64.b64encode(token).decode(), "_client": {"name": name, "entry": entry(name)}}
    answer = queue.Queue()
    ident = f"{to}._connectionRequest({os.urandom(16).hex()})"
    streams[to].put((pb.request(f"{to}._connectionRequest", params, client=name, ident=ident), answer))
    got = answer.get(timeout=10)
    pb.say(confirmed=pb.as_dict(got), same_id=got.id == ident)
    return got.error.message if got.HasField("error") else None


def call(q, context):
    params = pb.as_dict(q).get("params", {})
    pb.say(call=pb.as_dict(q))
    if q.id.rsplit(".", 1)[1].split("(")[0] != "requestConnection":
        context.abort(grpc.StatusCode.UNKNOWN, "error handling gRPC request: no channel can deliver this request")
    token = os.urandom(32)
    tokens[token] = None
    where = "localhost:%d" % endpoint.getsockname()[1]
    error = tell_b(params["to"], q.clientName, where, token)
    if error is None:
        return pb.response(q.id, {"endpoint": where, "token": base64.b64encode(token).decode()})
    r = pb.Response(id=q.id)
    r.error.code = -100
    r.error.message = error
    return r


def server_call(answers, context):
    announced = pb.as_dict(next(answers)).get("result", {})
    pb.say(announced=announced)
    requests = streams[announced["name"]] = queue.Queue()
    while True:
        request, answer = requests.get()
        yield request
        answer.put(next(answers))


def main():
    root, key, chain = pb.files(certs, name)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Hyper", {
        "Call": grpc.unary_unary_rpc_method_handler(call, pb.Request.FromString, pb.Response.SerializeToString),
        "ServerCall": grpc.stream_stream_rpc_method_handler(server_call, pb.Response.FromString,
                                                            pb.Request.SerializeToString)}),))
    server.add_secure_port("127.0.0.1:" + port, grpc.ssl_server_credentials([(key, chain)], root, require_client_auth=True))
    server.start()
    threading.Thread(target=accept, daemon=True).start()
    sys.stderr.write(f"reference_proxy info ready port={port}\n")
    sys.stderr.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
main()
