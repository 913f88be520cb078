"""Runs the commands of a plan with an etcdctl and prints its output: one line of JSON a step.

python driver.py ETCDCTL PLAN

A command is etcdctl's arguments. `<<< TEXT` at its end is its input, with \\n for a new line; `$LEASE` is
the lease that was granted last, `$NOW` the revision of the last `get -w json`. A command that goes on for
ever is ended once it has written as many lines as `until N` at its beginning says.
"""

import json
import re
import shlex
import subprocess
import sys
import threading

COMMAND_S = 20

# Patterns of values that differ between servers and runs, in all output formats.
MASKS = [
    (r"http://127\.0\.0\.1:\d+", "URL"),
    (r"127\.0\.0\.1:\d+", "ENDPOINT"),
    # JSON
    (r'("(?:cluster_id|member_id|raft_term|leader|raftIndex|raftTerm|raftAppliedIndex|dbSize|dbSizeInUse'
     r'|dbSizeQuota|hash)":)\d+', r"\1_"),
    (r'("(?:version|storageVersion|name|took)":)"[^"]*"', r"\1_"),
    (r'("(?:ID|id|lease)":)\d{6,}', r"\1_"),
    (r'("ID":)\d+(,"name")', r"\1_\2"),
    (r'("ttl":)\d+', r"\1_"),
    # fields
    (r'^("(?:ClusterID|MemberID|RaftTerm|Leader|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|DBSizeQuota'
     r'|Hash|StorageVersion|Name|ID|Took)" : ).*', r"\1_"),
    (r'^("Version" : )".*', r"\1_"),
    # simple, and tables
    (r"\blease [0-9a-f]{9,}", "lease _"),
    (r"^[0-9a-f]{9,}$", "_"),
    (r"remaining\(\d+s\)", "remaining(_)"),
    (r"took = \S+", "took = _"),
    (r"^[0-9a-f]+, started, [^,]+,", "_, started, _,"),
    (r"\| [0-9a-f]+ \| started \| \S+ \|", "| _ | started | _ |"),
    (r"^ENDPOINT, \d+(, \d+)?$", r"ENDPOINT, _\1"),
    (r"^\| ENDPOINT \| \d+ \| (\d+) \|$", r"| ENDPOINT | _ | \1 |"),
    # The status of an endpoint: id, versions, sizes; whether it leads, and learns; term and indexes.
    (r"^(\|? ?ENDPOINT\b).*\b(true|false)( \||,) (true|false)\3 \d+\3 \d+\3 \d+\3", r"\1\3 _\3 \2\3 \4\3 _\3"),
]  # fmt: skip


def mask(line):
    # The width of a column follows from its contents.
    if line.startswith(("|", "+")):
        line = re.sub(r"-+", "-", re.sub(r" +", " ", line))
    for pattern, replacement in MASKS:
        line = re.sub(pattern, replacement, line)
    return line


class Shell:
    """The commands for one server."""

    def __init__(self, etcdctl, endpoint):
        self.etcdctl, self.endpoint, self.known = etcdctl, endpoint, {}

    def run(self, text):
        text, _, given = text.partition(" <<< ")
        lines = re.match(r"until (\d+) ", text)
        words = shlex.split(text[lines.end() :] if lines else text)
        words = [self.known.get(word, word) for word in words]
        process = subprocess.Popen(
            [self.etcdctl, "--endpoints", self.endpoint, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={},
        )  # fmt: skip
        late = threading.Timer(COMMAND_S, process.kill)
        late.start()
        if lines:
            out = [process.stdout.readline().rstrip("\n") for _ in range(int(lines[1]))]
            process.kill()
            process.communicate()
            code, errors = 0, []
        else:
            out, errors = process.communicate(given.replace("\\n", "\n"))
            out, errors, code = out.splitlines(), errors.splitlines(), process.returncode
        late.cancel()
        self.learn(out)
        # The client's log has times, addresses in memory and lines of its source.
        result = [*out, *(f"stderr: {line}" for line in errors if not line.startswith('{"level":'))]
        return [mask(line) for line in result] + ([f"exit {code}"] if code else [])

    def learn(self, out):
        for line in out:
            if found := re.match(r"lease ([0-9a-f]+) granted", line):
                self.known["$LEASE"] = found[1]
            if found := re.search(r'"revision":(\d+)', line):
                self.known["$NOW"] = found[1]


def main():
    etcdctl, plan = sys.argv[1:]
    shells = {}
    for line in open(plan):
        step = json.loads(line)
        if step["kind"] == "version":
            result = subprocess.run([etcdctl, "version"], capture_output=True, text=True, env={}).stdout
            print(json.dumps({"version": f"etcdctl {result.split()[2]}"}), flush=True)
            continue
        endpoint = step["endpoint"]
        shell = shells.setdefault(endpoint, Shell(etcdctl, endpoint))
        print(json.dumps({"step": step["step"], "lines": shell.run(step["typed"])}), flush=True)


main()
