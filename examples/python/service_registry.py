"""A service registry: a service is listed while it lives, and nothing has to clean up.

    python examples/python/service_registry.py
    python examples/python/service_registry.py register web/1 10.0.0.1:80    (in another terminal)

A service puts its entry with a lease, and keeps the lease alive. A service that exits cleanly revokes
the lease, and its entry goes at once. The lease of a service that crashes expires, and its entry with
it.
"""

import argparse
import threading
import time

import pyetcd

TTL = 3  # seconds


def connect(endpoint):
    host, port = endpoint.rsplit(":", 1)
    return pyetcd.client(host=host, port=int(port), timeout=5)


class Service:
    """The entry of this process."""

    def __init__(self, etcd, prefix, name, address):
        self.lease = etcd.lease(TTL)
        key = prefix + name
        taken, _ = etcd.transaction(
            compare=[etcd.transactions.version(key) == 0],
            success=[etcd.transactions.put(key, address, lease=self.lease)],
            failure=[],
        )
        if not taken:
            self.lease.revoke()
            raise RuntimeError(f"there is a {name} already")
        self._stop = threading.Event()
        self._renewals = threading.Thread(target=self._renew, daemon=True)
        self._renewals.start()

    def _renew(self):
        while not self._stop.wait(TTL / 3):
            if self.lease.refresh()[0].TTL == 0:
                return  # It ended: this process was away for too long.

    def wait(self):
        """Returns when the lease has expired."""
        self._renewals.join()

    def crash(self):
        self._stop.set()
        self._renewals.join()

    def end(self):
        self.crash()
        self.lease.revoke()


def follow(etcd, prefix):
    """Yields the listed services, and again after each change."""
    read = etcd.get_prefix_response(prefix)
    services = {kv.key.decode(): kv.value.decode() for kv in read.kvs}
    yield dict(services)
    events, cancel = etcd.watch_prefix(prefix, start_revision=read.header.revision + 1)
    try:
        for event in events:
            if isinstance(event, pyetcd.events.DeleteEvent):
                services.pop(event.key.decode(), None)
            else:
                services[event.key.decode()] = event.value.decode()
            yield dict(services)
    finally:
        cancel()


def demo(etcd):
    """Registers two services, stops one cleanly, crashes the other, and watches both entries go."""
    prefix = "examples/python/services/"
    etcd.delete_prefix(prefix)
    well = Service(etcd, prefix, "web/1", "10.0.0.1:80")
    badly = Service(etcd, prefix, "web/2", "10.0.0.2:80")
    try:
        Service(etcd, prefix, "web/2", "10.0.0.3:80")
        raise AssertionError("a name was taken twice")
    except RuntimeError:
        pass
    time.sleep(TTL * 1.5)  # longer than the TTL of a lease without renewals

    states = follow(etcd, prefix)
    listed = next(states)
    print(listed)
    assert len(listed) == 2, f"a service that lives is listed: {listed}"
    well.end()
    listed = next(states)
    print(listed)
    assert list(listed) == [prefix + "web/2"], listed

    badly.lease.refresh()
    renewed = time.monotonic()
    badly.crash()
    listed = next(states)
    print(listed)
    assert not listed and time.monotonic() - renewed > TTL - 1, "a lease lasts as long as granted"
    print("ok: one service went at once, one when its lease had ended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint", default="127.0.0.1:2379", help="any member")
    parser.add_argument("--demo", action="store_true", help="register two, see both go, and end")
    actions = parser.add_subparsers(dest="action")
    register = actions.add_parser("register", help="be listed until Ctrl-C")
    register.add_argument("name")
    register.add_argument("address")
    actions.add_parser("follow", help="show who is there, and who comes and goes (the default)")
    args = parser.parse_args()
    client = connect(args.endpoint)
    if args.demo:
        demo(client)
    elif args.action == "register":
        service = Service(client, "services/", args.name, args.address)
        print(f"{args.name} is registered", flush=True)
        try:
            service.wait()
            raise SystemExit("the lease has ended")
        except KeyboardInterrupt:
            service.end()
    else:
        for state in follow(client, "services/"):
            print(state, flush=True)
