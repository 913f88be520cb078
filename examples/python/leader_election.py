"""Leader election: one of several processes does the work, and another one takes over when it is gone.

    python examples/python/leader_election.py --name a
    python examples/python/leader_election.py --name b     (in another terminal; stop the first)

The leader is the process that has put the one key, with a lease. All other processes watch that key,
and try again when it is gone. A leader that was cut off for longer than its lease may not know yet
that it has lost leadership, so it writes in transactions that hold only while the key is its own.
"""

import argparse
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyetcd

TTL = 5  # seconds


def connect(endpoint):
    host, port = endpoint.rsplit(":", 1)
    return pyetcd.client(host=host, port=int(port), timeout=5)


class Leadership:
    """The leadership of this process. The constructor waits until the process leads."""

    def __init__(self, etcd, key, name):
        self.etcd, self.key = etcd, key
        self.lease = etcd.lease(TTL)
        self.lost = threading.Event()
        self._stop = threading.Event()
        self._renewals = threading.Thread(target=self._renew, daemon=True)
        self._renewals.start()
        while not self._try_to_lead(name):
            pass

    def _try_to_lead(self, name):
        tx = self.etcd.transactions
        leads, (answer,) = self.etcd.transaction(
            compare=[tx.version(self.key) == 0],
            success=[tx.put(self.key, name, lease=self.lease)],
            failure=[tx.get(self.key)],
        )
        if leads:
            # The revision that created the key: unique to this leadership.
            self.since = answer.response_put.header.revision
            return True
        (_, leader), = answer
        # From right after the read: the key may be gone already.
        events, cancel = self.etcd.watch(
            self.key, start_revision=leader.response_header.revision + 1
        )
        for event in events:
            if isinstance(event, pyetcd.events.DeleteEvent):
                cancel()
        return False

    def _renew(self):
        while not self._stop.wait(TTL / 3):
            if self.lease.refresh()[0].TTL == 0:
                self.lost.set()
                return

    def put(self, key, value):
        """Puts a key, if this process still leads; returns whether it did."""
        tx = self.etcd.transactions
        still = [tx.create(self.key) == self.since]
        done, _ = self.etcd.transaction(compare=still, success=[tx.put(key, value)], failure=[])
        return done

    def crash(self):
        self._stop.set()
        self._renewals.join()

    def resign(self):
        self.crash()
        self.lease.revoke()


def demo(endpoint):
    """Three candidates. One resigns, one crashes, one is deposed without noticing."""
    prefix = "examples/python/election/"
    key, work = prefix + "leader", prefix + "work/"
    connect(endpoint).delete_prefix(prefix)

    def candidate(name):
        etcd = connect(endpoint)
        term = Leadership(etcd, key, name)
        print(f"the one that {name} leads since revision {term.since}", flush=True)
        worked = f"{work}{term.since}"
        assert term.put(worked, name), "a leader must be able to write"
        time.sleep(TTL / 10)
        if name == "resigns":
            term.resign()
        elif name == "crashes":
            term.crash()
        else:
            etcd.delete(key)
            assert not term.put(worked, "late"), "a deposed leader has written"
            term.resign()

    with ThreadPoolExecutor() as pool:
        list(pool.map(candidate, ["resigns", "crashes", "is deposed"]))
    versions = [kv.version for kv in connect(endpoint).get_prefix_response(work).kvs]
    assert versions == [1, 1, 1], f"each of them led once, one at a time: {versions}"
    print("ok: three leaders, one at a time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint", default="127.0.0.1:2379", help="any member")
    parser.add_argument("--key", default="election")
    parser.add_argument("--name", default=f"process {os.getpid()}")
    parser.add_argument("--demo", action="store_true", help="let three lead, and end")
    args = parser.parse_args()
    if args.demo:
        demo(args.endpoint)
    else:
        leadership = Leadership(connect(args.endpoint), args.key, args.name)
        print(f"{args.name} leads", flush=True)
        try:
            leadership.lost.wait()
            raise SystemExit("leads no more")
        except KeyboardInterrupt:
            leadership.resign()
