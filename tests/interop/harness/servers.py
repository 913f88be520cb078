"""The servers under test. Each starts with an empty store and ends with the run."""

import random
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import grpc

START_S = 60
PORTS = range(12000, 30000)  # below those that the kernel gives to outgoing connections
given_ports = set()


class Server:
    """One process, and the directory of its data."""

    def __init__(self, command_of):
        self._command_of = command_of
        self.scratch = Path(tempfile.mkdtemp(prefix="interop-"))
        self.log = self.scratch / "log"
        self._start()

    def _start(self):
        ports = free_ports(3)
        self.endpoint = f"127.0.0.1:{ports[0]}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self._command_of(self.scratch / "data", ports), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until_ready(self):
        """Waits for the answer to a linearizable read. Another process may have taken a port: starts again."""
        deadline = time.monotonic() + START_S
        read = b"\x0a\x05ready"
        while time.monotonic() < deadline:
            with grpc.insecure_channel(self.endpoint) as channel:
                try:
                    channel.unary_unary("/etcdserverpb.KV/Range")(read, timeout=2, wait_for_ready=True)
                    return
                except grpc.RpcError:
                    time.sleep(0.05)
            if self.process.poll() is not None:
                if "in use" not in self.log.read_text():
                    break
                shutil.rmtree(self.scratch / "data", ignore_errors=True)
                self._start()
        raise SystemExit(f"interop: the server does not start:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        """Ends the process. A panic is an error even where every answer was right."""
        ended = self.process.poll()
        self.process.kill()
        self.process.wait()
        log = self.log.read_text(errors="replace")
        shutil.rmtree(self.scratch)
        if ended is not None or "panicked at" in log:
            return f"the server ended or panicked:\n{log[-3000:]}"
        return None


def free_ports(count):
    found = []
    while len(found) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        # A server that was started just now may not listen yet.
        if port not in given_ports:
            given_ports.add(port)
            found.append(port)
    return found


class Etcd:
    """A real etcd, the reference for every answer."""

    def __init__(self, program):
        self.program = program
        result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        self.version = result.split("etcd Version: ")[1].split()[0]
        self.name = f"etcd {self.version}"

    def start(self):
        def command(data, ports):
            client, peer = (f"http://127.0.0.1:{port}" for port in ports[:2])
            return [
                self.program, "--data-dir", data, "--unsafe-no-fsync",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"default={peer}",
            ]  # fmt: skip

        return Server(command)

    def has(self, options):
        """Whether a step with these options is for this version."""
        since = options.get("since", "0.0")
        return "ordinal" not in options and number(self.version) >= number(since)


def number(version):
    """The line of a version: (3, 6) of "3.6.16"."""
    return tuple(map(int, version.split(".")[:2]))


class Ordinal:
    """A member that is a cluster by itself."""

    name = "Ordinal"

    def __init__(self, binaries):
        self.program = Path(binaries) / "kvd"

    def start(self):
        def command(data, ports):
            client, peer, admin = (f"127.0.0.1:{port}" for port in ports)
            return [
                self.program, "serve", "--ordinal=0", "--data-dir", data,
                "--listen-client-urls", client, "--listen-peer-urls", peer, "--listen-admin", admin,
                "--wal-segment-bytes=4MiB",
            ]  # fmt: skip

        return Server(command)

    def has(self, _options):
        return True
