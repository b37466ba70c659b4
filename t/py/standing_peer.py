"""A standing stream as a program that we did not write keeps it (protocol.md 3.5): announces, answers.

  standing_peer.py CERTS NAME ADDRESS PEER ANNOUNCEMENT

Says a JSON line for the start, each request and the end. What a request's params say is done with it:
{"do": "answer", "after_ms": N} (default), {"do": "wrong id"}, {"do": "never"}, {"do": "error"}, {"do": "garbage"}.
Several requests are served at a time, so that the test sees how many were sent."""
import json
import queue
import sys
import threading

import grpc

import hyperpb as pb

RAW = {"request_serializer": bytes, "response_deserializer": pb.Request.FromString}


def serve(request, out):
    params = pb.as_dict(request).get("params", {})
    do = params.get("do", "answer")
    answer = pb.response(request.id, {"got": params})
    if do == "wrong id":
        answer.id = "hd-2.echo(not asked)"
    elif do == "error":
        answer = pb.Response(id=request.id)
        answer.error.code = 7
        answer.error.message = "as asked"
    elif do == "garbage":
        out.put(b"\xff\xff\xff")
        return
    if do != "never":
        threading.Timer(params.get("after_ms", 0) / 1000, lambda: out.put(answer.SerializeToString())).start()


def main():
    certs, name, address, peer, announcement = sys.argv[1:]
    out = queue.Queue()
    out.put(pb.response("1", json.loads(announcement)).SerializeToString())
    with pb.channel(address, certs, name, peer) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=10)
            rpc = channel.stream_stream("/Hyper/ServerCall", **RAW)(iter(out.get, None))
            sys.stderr.write("peer ready ok=1\n")
            for request in rpc:
                pb.say(case="request", id=request.id, client=request.clientName, params=pb.as_dict(request).get("params", {}))
                serve(request, out)
            pb.say(case="end", status=[rpc.code().value[0], rpc.details()])
        except grpc.FutureTimeoutError:
            pb.say(case="end", status=[-1, "not connected"])
        except grpc.RpcError as e:
            pb.say(case="end", status=pb.code_of(e))
        finally:
            out.put(None)


main()
