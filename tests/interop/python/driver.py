"""Sends the calls of a plan through grpc-core and prints every answer: one line of JSON a step.

python driver.py PLAN
"""

import json
import queue
import sys
import threading

import grpc

# The longest time that an answer, or the end of a stream, may take.
WAIT_S = 10
UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
END = object()

channels = {}


def channel(endpoint):
    if endpoint not in channels:
        channels[endpoint] = grpc.insecure_channel(endpoint, options=UNBOUNDED)
    return channels[endpoint]


def options(step):
    given = {"timeout": step["timeout_ms"] / 1000, "metadata": list(step["metadata"].items())}
    if step["gzip"]:
        given["compression"] = grpc.Compression.Gzip
    return given


def unary(step):
    """One request, one answer."""
    method = channel(step["endpoint"]).unary_unary(step["method"])
    try:
        answer, call = method.with_call(bytes.fromhex(step["request"]), **options(step))
        return [answer], call.code().value[0], call.details()
    except grpc.RpcError as error:
        return [], error.code().value[0], error.details()


def stream(step):
    """Any number of answers; with several requests, if the step has them."""
    requests, answers = queue.SimpleQueue(), queue.SimpleQueue()
    on = channel(step["endpoint"])
    if step["kind"] == "server":
        call = on.unary_stream(step["method"])(bytes.fromhex(step["request"]), **options(step))
    else:
        call = on.stream_stream(step["method"])(iter(requests.get, END), **options(step))
    threading.Thread(target=read, args=(call, answers), daemon=True).start()
    got = []
    for action in step["actions"]:
        if "send" in action:
            requests.put(bytes.fromhex(action["send"]))
        elif "call" in action:
            on.unary_unary(action["call"])(bytes.fromhex(action["message"]), timeout=WAIT_S)
        elif "await" in action:
            if not wait(answers, got, action["await"]):
                break
        elif "close" in action:
            requests.put(END)
        elif "cancel" in action:
            break
    else:
        wait(answers, got, sys.maxsize)
    ended = got and got[-1] is END
    call.cancel()
    requests.put(END)
    return (got[:-1], call.code().value[0], call.details()) if ended else (got, None, "")


def read(call, answers):
    try:
        for answer in call:
            answers.put(answer)
    except grpc.RpcError:
        pass
    answers.put(END)


def wait(answers, got, count):
    """Collects this many answers. False if they do not come, or the stream ends, which END stands for."""
    try:
        for _ in range(count):
            got.append(answers.get(timeout=WAIT_S))
            if got[-1] is END:
                return False
        return True
    except queue.Empty:
        return False


def main():
    for line in open(sys.argv[1]):
        step = json.loads(line)
        if step["kind"] == "version":
            print(json.dumps({"version": f"grpcio {grpc.__version__}"}), flush=True)
            continue
        got, code, text = (unary if step["kind"] == "unary" else stream)(step)
        result = {"step": step["step"], "messages": [m.hex() for m in got], "code": code, "text": text}
        print(json.dumps(result), flush=True)


main()
