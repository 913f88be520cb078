"""Sends the requests of the table through every stack, and compares the answers.

    run BINARIES CACHE             Ordinal, with the deviations in the file of that name
    run --etcd ETCD CACHE          a real etcd: the table must be true
    run --record ETCD CACHE        a real etcd: records its answers in the table
    ... --stacks a,b --files c,d   only some of them
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from . import table
from .messages import Protos, path
from .servers import Etcd, Ordinal
from .stacks import STACKS, Skipped

HERE = Path(__file__).resolve().parent.parent
# A plan ends sooner, by the bounds of its single steps; this ends a driver that hangs.
DRIVER_S = 300
CALL_MS = 10_000


def absolute(path):
    return Path(path).absolute()


def arguments():
    parse = argparse.ArgumentParser(prog="run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parse.add_argument("server", type=absolute, help="a directory of binaries, or the program of an etcd")
    parse.add_argument("cache", type=absolute)
    parse.add_argument("--etcd", action="store_true")
    parse.add_argument("--record", action="store_true")
    parse.add_argument("--stacks", type=lambda names: names.split(","))
    parse.add_argument("--files", type=lambda names: names.split(","))
    given = parse.parse_args()
    given.server = Etcd(given.server) if given.etcd or given.record else Ordinal(given.server)
    return given


class Run:
    """One run: the table, the server, and the differences so far."""

    def __init__(self, given):
        self.server, self.record = given.server, given.record
        self.cache = given.cache / "interop"
        self.protos = Protos([HERE.parent.parent / "proto", HERE])
        self.tables = [table.Table(file) for file in sorted((HERE / "table").iterdir())]
        if given.files:
            self.tables = [one for one in self.tables if one.path.name in given.files]
        self.stacks = [one for one in STACKS if not given.stacks or one.name in given.stacks]
        ordinal = isinstance(self.server, Ordinal)
        self.deviations = table.read_deviations(HERE / "deviations") if ordinal else []
        self.recorded = set()
        self.failures = []
        self.report = []

    def steps(self, one, stack):
        """The steps of one file that this server and this stack have."""
        if not stack.runs(one.path.name):
            return []
        return [step for step in one.steps if self.server.has(step.options)]

    def stack(self, stack):
        """Runs all files through one stack, each on a server of its own."""
        try:
            command = stack.command(self.cache)
        except Skipped as why:
            print(f"interop: SKIPPED {stack.name}: {why}", flush=True)
            return
        chosen = [(one, self.steps(one, stack)) for one in self.tables]
        chosen = [(one, steps) for one, steps in chosen if steps]
        servers = [self.server.start() for _ in chosen]
        try:
            for server in servers:
                server.wait_until_ready()
            plan = [json.dumps({"kind": "version"})]
            for (_, steps), server in zip(chosen, servers):
                plan += [self.plan(step, server) for step in steps]
            answers = self.drive(stack, command, plan)
        finally:
            ends = [server.stop() for server in servers]
        self.failures += [f"{stack.name}: {end}" for end in ends if end]
        differ = sum(not self.check(stack, step, answers) for _, steps in chosen for step in steps)
        self.report.append((stack.name, answers.get("version", "?"), len(plan) - 1, differ))

    def plan(self, step, server):
        """One line of a plan."""
        line = {"step": step.title, "endpoint": server.endpoint}
        if step.typed:
            return json.dumps({**line, "kind": "typed", "typed": step.typed})
        method, options = self.protos.method(step.method), step.options
        known = {"gzip", "timeout", "since", "ordinal", "bidi"}
        line |= {
            "method": path(step.method),
            "metadata": {name: value for name, value in options.items() if name not in known},
            "gzip": "gzip" in options,
            "timeout_ms": int(options.get("timeout", f"{CALL_MS}ms").removesuffix("ms")),
        }
        if "bidi" in options or (method and method.client_streaming):
            line |= {"kind": "bidi"}
        else:
            kind = "server" if method and method.server_streaming else "unary"
            line |= {"kind": kind, "request": self.protos.request(method, step.request).hex()}
        if line["kind"] != "unary":
            line["actions"] = list(table.actions(step, self.protos))
        return json.dumps(line)

    def drive(self, stack, command, plan):
        """The driver's answers, by step."""
        with tempfile.NamedTemporaryFile("w", prefix="interop-plan-") as file:
            file.write("\n".join(plan) + "\n")
            file.flush()
            try:
                done = subprocess.run(
                    [*map(str, command), file.name],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DRIVER_S,
                )  # fmt: skip
                output, said = done.stdout, f"ended with {done.returncode}: {done.stderr[-2000:]}"
                failed = done.returncode != 0
            except subprocess.TimeoutExpired as late:
                output, failed = (late.stdout or b"").decode(), True
                said = f"takes more than {DRIVER_S} s"
        if failed:
            self.failures.append(f"{stack.name}: the driver {said}")
        answers = {}
        # A driver that was ended may have begun a line.
        for line in output.split("\n")[:-1]:
            result = json.loads(line)
            answers[result.get("step", "version")] = result if "step" in result else result["version"]
        return answers

    def check(self, stack, step, answers):
        """Compares one step, or records it; returns whether the answer is right."""
        result = answers.get(step.title)
        if result is None:
            got = ["the driver gave no answer"]
        elif step.typed:
            got = [step.lines[0], *(f"<- {line}".rstrip() for line in result["lines"])]
        else:
            messages = [bytes.fromhex(data) for data in result["messages"]]
            texts = self.protos.answers(self.protos.method(step.method), messages)
            got = table.actual(step, texts, result["code"], result["text"])
        if self.record and result is not None and step.title not in self.recorded:
            self.recorded.add(step.title)
            table.record(step, got)
        expected = table.apply_deviations(step, self.deviations)
        if len(expected) == len(got) and all(map(table.same, expected, got)):
            return True
        lines = [f"{stack.name}: {step.title}", *(f"    expected  {line}" for line in expected if line not in got)]
        lines += [f"    got       {line}" for line in got if line not in expected]
        self.failures.append("\n".join(lines))
        return False

    def finish(self):
        """Prints the report; returns whether there is no failure."""
        if self.record:
            for one in self.tables:
                one.write()
        names = {one.path.name for one in self.tables}
        for deviation in self.deviations:
            if not deviation.used and deviation.step.split(":")[0] in names:
                self.failures.append(f"deviations: {deviation.step}: this deviation is not used")
        for failure in self.failures:
            print(f"interop: DIFFERS {failure}")
        print(f"interop: asked {self.server.name}")
        rows = [("stack", "library", "requests", "differences"), *self.report]
        widths = [max(len(str(row[column])) for row in rows) for column in range(4)]
        for row in rows:
            print("  " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths)).rstrip())
        asked, differ = (sum(row[column] for row in self.report) for column in (2, 3))
        print(f"interop: {asked - differ} passed, {differ} failed")
        return not self.failures and bool(asked)


def main():
    given = arguments()
    run = Run(given)
    run.cache.mkdir(parents=True, exist_ok=True)
    for stack in run.stacks:
        run.stack(stack)
    return 0 if run.finish() else 1


try:
    sys.exit(main())
except table.TableError as error:
    sys.exit(f"interop: {error}")
