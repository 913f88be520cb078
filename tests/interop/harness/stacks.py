"""The gRPC stacks: how the driver of each is built, and the command that runs it.

A stack whose toolchain is missing is skipped, with the reason. What is built goes into the cache.
"""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
BUILD_S = 900
GO_LINES = ["3.5", "3.6", "3.7"]
# Files of the table whose steps are programs in a driver. All other files are for every stack.
SOME_STACKS = {"clientv3", "jetcd", "connection", "etcdctl", "etcdctl-3.6"}


class Skipped(Exception):
    """A stack that cannot be had on this machine."""


class Stack:
    """A name, those of the SOME_STACKS files that it runs (`only` those?), and the driver's command."""

    def __init__(self, name, files, command, only=False):
        self.name, self.files, self.only, self._command = name, files, only, command

    def runs(self, file):
        return file in self.files or (file not in SOME_STACKS and not self.only)

    def command(self, cache):
        return self._command(cache)


def need(program):
    found = shutil.which(program)
    if not found:
        raise Skipped(f"there is no {program}")
    return found


def run(command, **more):
    """Runs a command; returns why it fails, or None."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_S, **more
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} takes more than {BUILD_S} s"
    if done.returncode == 0:
        return None
    return (done.stdout + done.stderr).strip()[-2000:] or f"{command[0]} ends with {done.returncode}"


def fetch(what, command, **more):
    """Runs a command that needs a package registry, which not every machine reaches."""
    if why := run(command, **more):
        raise Skipped(f"{what} cannot be fetched: {why.splitlines()[-1]}")


def build(command, **more):
    """Compiles a driver. A failure is a mistake in the driver, and no reason to skip it."""
    if why := run(command, **more):
        raise SystemExit(f"interop: {' '.join(map(str, command))}:\n{why}")


def folder(cache, stack, files):
    """A directory in the cache for exactly these sources, and whether its build is complete."""
    checksum = 0
    for file in files:
        checksum = zlib.crc32(file.read_bytes(), checksum)
    at = cache / f"{stack}-{checksum:08x}"
    at.mkdir(parents=True, exist_ok=True)
    return at, at / "complete"


def python(_cache):
    return [sys.executable, HERE / "python" / "driver.py"]


def go(line):
    def command(cache):
        program, modules = cache / f"go-{line}", f"-modfile=v{line}.mod"
        at = {"cwd": HERE / "go", "env": {**os.environ, "CGO_ENABLED": "0"}}
        fetch(f"clientv3 {line}", [need("go"), "mod", "download", modules], **at)
        build(["go", "build", "-trimpath", modules, "-o", program, "."], **at)
        return [program]

    return command


def node(cache):
    need("node")
    source = HERE / "node"
    at, complete = folder(cache, "node", [source / "package-lock.json"])
    if not complete.exists():
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, at)
        fetch("grpc-js", [need("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=at)
        complete.touch()
    return ["env", f"NODE_PATH={at / 'node_modules'}", "node", source / "driver.js"]


def java(cache):
    need("javac")
    project = HERE / "java" / "pom.xml"
    sources = sorted((HERE / "java").glob("*.java"))
    at, complete = folder(cache, "java", [project, *sources])
    if not complete.exists():
        goal = ["dependency:build-classpath", f"-Dmdep.outputFile={at / 'classpath'}"]
        local = f"-Dmaven.repo.local={cache / 'maven'}"
        fetch("jetcd", [need("mvn"), "-q", "-B", local, "-f", project, *goal])
        build(["javac", "-d", at / "classes", "-cp", (at / "classpath").read_text(), *sources])
        complete.touch()
    libraries = (at / "classpath").read_text()
    return ["java", "-cp", f"{at / 'classes'}:{libraries}", "Driver"]


def etcdctl(cache):
    program = cache.parent / "etcd" / "current" / "etcdctl"
    version = subprocess.run([program, "version"], capture_output=True, text=True).stdout if program.exists() else ""
    if not version.startswith("etcdctl version: 3.6."):
        raise Skipped("there is no etcdctl 3.6 in the cache")
    return [sys.executable, HERE / "etcdctl" / "driver.py", program]


def old_etcdctl(cache):
    program = cache.parent / "etcd-venv" / "bin" / "etcdctl"
    if not program.exists():
        raise Skipped("there is no etcdctl 3.5 in the cache")
    return [sys.executable, HERE / "etcdctl" / "driver.py", program]


STACKS = [
    Stack("python", set(), python),
    *(Stack(f"go-{line}", {"clientv3", "connection"}, go(line)) for line in GO_LINES),
    Stack("node", set(), node),
    Stack("java", {"jetcd", "connection"}, java),
    Stack("etcdctl", {"etcdctl", "etcdctl-3.6"}, etcdctl, only=True),
    Stack("old etcdctl", {"etcdctl"}, old_etcdctl, only=True),
]
