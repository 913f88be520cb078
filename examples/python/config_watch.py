"""Configuration that reaches a running process: the keys under a prefix, read once and then watched.

    python examples/python/config_watch.py
    kvctl put config/color blue                    (in another terminal)

The read returns its revision, and the watch starts right after that revision: no change is missed, and
none comes twice. This client does not resume a watch by itself when its connection breaks, so
`follow` does, from the last seen revision.
"""

import argparse
import threading

import pyetcd
from pyetcd.exceptions import ConnectionFailedError, RevisionCompactedError


def connect(endpoint):
    host, port = endpoint.rsplit(":", 1)
    return pyetcd.client(host=host, port=int(port), timeout=5)


def follow(endpoint, prefix):
    """Yields the configuration, and again after each change."""
    while True:
        etcd = connect(endpoint)
        read = etcd.get_prefix_response(prefix)
        config = {kv.key.decode(): kv.value.decode() for kv in read.kvs}
        yield dict(config)
        responses, cancel = etcd.watch_prefix_response(
            prefix, start_revision=read.header.revision + 1
        )
        try:
            # A response never splits a transaction, so no consumer sees half a change.
            for response in responses:
                for event in response.events:
                    if isinstance(event, pyetcd.events.DeleteEvent):
                        config.pop(event.key.decode(), None)
                    else:
                        config[event.key.decode()] = event.value.decode()
                yield dict(config)
        except (ConnectionFailedError, RevisionCompactedError):
            continue  # read everything again
        finally:
            cancel()


def demo(endpoint):
    """One thread watches while another one writes."""
    prefix = "examples/python/config/"
    etcd = connect(endpoint)
    etcd.delete_prefix(prefix)
    put = etcd.transactions.put

    def write():
        etcd.put(prefix + "color", "blue")
        both = [put(prefix + "color", "red"), put(prefix + "size", "10")]
        etcd.transaction(compare=[], success=both, failure=[])
        etcd.delete(prefix + "size")
        etcd.put(prefix + "end", "")

    states = follow(endpoint, prefix)
    seen = [next(states)]
    writer = threading.Thread(target=write)
    writer.start()
    for config in states:
        print(config)
        seen.append(config)
        if prefix + "end" in config:
            break
    writer.join()
    halves = [c for c in seen if c.get(prefix + "size") and c[prefix + "color"] != "red"]
    assert not halves, f"half a transaction was seen: {halves}"
    assert seen[-1] == {prefix + "color": "red", prefix + "end": ""}, seen[-1]
    print(f"ok: {len(seen)} states of the configuration, the last as it was written")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint", default="127.0.0.1:2379", help="any member")
    parser.add_argument("--prefix", default="config/")
    parser.add_argument("--demo", action="store_true", help="change some keys, and end")
    args = parser.parse_args()
    if args.demo:
        demo(args.endpoint)
    else:
        for state in follow(args.endpoint, args.prefix):
            print(state, flush=True)
