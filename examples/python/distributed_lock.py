"""A lock that several processes share, in order of arrival.

    python examples/python/distributed_lock.py --name backup sleep 10
    python examples/python/distributed_lock.py --name backup echo mine       (in another terminal)

A process that wants the lock puts a key of its own under the lock's name, with a lease, and holds the
lock once no older key exists. Each process waits only for the key right before its own, so a release
wakes one waiter. The key of a holder that crashes expires with its lease.
"""

import argparse
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pyetcd

TTL = 5  # seconds


def connect(endpoint):
    host, port = endpoint.rsplit(":", 1)
    return pyetcd.client(host=host, port=int(port), timeout=5)


class Lock:
    """A context manager."""

    def __init__(self, etcd, name):
        self.etcd, self.prefix = etcd, name + "/"

    def __enter__(self):
        self.lease = self.etcd.lease(TTL)
        self._stop = threading.Event()
        self._renewals = threading.Thread(target=self._renew, daemon=True)
        self._renewals.start()
        self.key = f"{self.prefix}{self.lease.id:016x}"
        # The revision that created the key grows from holder to holder, so a resource that the lock
        # guards can refuse a late holder.
        self.since = self.etcd.put(self.key, "", lease=self.lease).header.revision
        while self._wait_for_the_one_before():
            pass
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._renewals.join()
        self.lease.revoke()

    def _wait_for_the_one_before(self):
        """Whether there was one."""
        read = self.etcd.get_prefix_response(self.prefix)
        older = [kv for kv in read.kvs if kv.create_revision < self.since]
        if not older:
            return False
        before = max(older, key=lambda kv: kv.create_revision)
        events, cancel = self.etcd.watch(before.key, start_revision=read.header.revision + 1)
        for event in events:
            if isinstance(event, pyetcd.events.DeleteEvent):
                cancel()
        return True

    def _renew(self):
        while not self._stop.wait(TTL / 3):
            if self.lease.refresh()[0].TTL == 0:
                return

    def is_held(self):
        """A comparison that holds while this process holds the lock, for transactions."""
        return self.etcd.transactions.create(self.key) == self.since


def demo(endpoint):
    """Threads increment a number by reading and then writing it. Without the lock, they would lose
    increments."""
    prefix, tasks, times = "examples/python/lock/", 5, 4
    number = prefix + "number"
    connect(endpoint).delete_prefix(prefix)

    def count(_):
        etcd = connect(endpoint)
        for _ in range(times):
            with Lock(etcd, prefix + "holders") as lock:
                value, _ = etcd.get(number)
                one_more = etcd.transactions.put(number, str(int(value or 0) + 1))
                held = [lock.is_held()]
                done, _ = etcd.transaction(compare=held, success=[one_more], failure=[])
                assert done, "the lock was lost"

    with ThreadPoolExecutor(tasks) as pool:
        list(pool.map(count, range(tasks)))
    value, _ = connect(endpoint).get(number)
    assert int(value) == tasks * times, f"a task counted without the lock: {value}"
    assert not connect(endpoint).get_prefix_response(prefix + "holders/").kvs, "something is left"
    print(f"ok: {tasks} threads counted to {int(value)} together")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint", default="127.0.0.1:2379", help="any member")
    parser.add_argument("--name", default="lock")
    parser.add_argument("--demo", action="store_true", help="let five threads count, and end")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="to run while holding the lock")
    args = parser.parse_args()
    if args.demo:
        demo(args.endpoint)
    else:
        with Lock(connect(args.endpoint), args.name):
            code = subprocess.call(args.command)
        raise SystemExit(code)
