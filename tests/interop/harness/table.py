"""The table: files of steps, each a request and the answer to it.

    put without a key
      KV/Put value: "x"
      InvalidArgument: etcdserver: key is not provided

The first line names the step. The second names the method, with the request behind it. Then come:

    with gzip, hasleader=true, timeout=300ms   compression, metadata, a deadline
    -> create_request { key: "a" }             a message that the client sends on a stream
    <- created: true                           an answer
    meanwhile KV/Put key: "a"                  a unary call while the stream is open; it must succeed
    close                                      the client has no more to send
    cancel                                     the client abandons the stream: the end of the step
    OK, or a code and a text                   the status: the end of the step

A step of etcdctl is `$ ` and its arguments, in one line, and then what it writes.

The client waits for the answers that the table has between two messages. `?` in place of an answer
or a status is filled in by `run --record`. `*` is any answer, and at the end of a text whatever follows.
Lines that begin with # are comments.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from .messages import path

STATUS = re.compile(r"\?$|[A-Z][A-Za-z]+(: |$)")
CODES = [
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
    "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange",
    "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
]  # fmt: skip
ANY = "*"


class TableError(Exception):
    """A table that cannot be read."""


@dataclass
class Step:
    """One step. `lines` are all of its lines but the first, without indentation."""

    file: str
    name: str
    # The blank lines and comments above it.
    before: list
    lines: list = field(default_factory=list)

    @property
    def title(self):
        return f"{self.file}: {self.name}"

    @property
    def typed(self):
        """The part of a driver, or the command, that runs the step; None for a plain call."""
        word, _, rest = self.lines[0].partition(" ")
        return rest if word in ("typed", "etcdctl") else None

    @property
    def method(self):
        return self.lines[0].split(" ", 1)[0]

    @property
    def request(self):
        """The request of a method that takes exactly one."""
        return self.lines[0].partition(" ")[2]

    @property
    def options(self):
        words = [word for line in self.lines if line.startswith("with ") for word in line[5:].split(", ")]
        return dict(word.partition("=")[::2] for word in words)

    @property
    def body(self):
        """The expected events, in order: all lines except comments, the call and its options."""
        return [line for line in self.lines[1:] if not line.startswith(("#", "with "))]

    @property
    def head(self):
        """The call and its options."""
        return [self.lines[0], *(line for line in self.lines if line.startswith("with "))]

    @property
    def transcript(self):
        return [*self.head, *self.body]


class Table:
    """One file."""

    def __init__(self, path):
        self.path = Path(path)
        self.head, self.steps = [], []
        for number, line in enumerate(self.path.read_text().splitlines(), 1):
            self._add(line.rstrip(), number)
        names = [step.name for step in self.steps]
        for step in self.steps:
            if names.count(step.name) > 1:
                raise TableError(f"{self.path}: two steps are named {step.name!r}")
            if not step.lines or not re.match(r"typed |etcdctl |\S+/\S+", step.lines[0]):
                raise TableError(f"{self.path}: {step.name!r} calls nothing")

    def _add(self, line, number):
        if not line or line.startswith("#"):
            self.head.append(line)
        elif not line.startswith(" "):
            self.steps.append(self._step(line))
            self.head = []
        elif not self.steps or self.head:
            raise TableError(f"{self.path}:{number}: belongs to no step")
        else:
            self.steps[-1].lines.append(line.strip())

    def _step(self, line):
        """A new step. A command is its name as well, with a number where it comes again."""
        if not line.startswith("$ "):
            return Step(self.path.name, line, self.head)
        call = f"etcdctl {line[2:]}"
        before = sum(step.lines[0] == call for step in self.steps)
        name = f"{line[2:]} ({before + 1})" if before else line[2:]
        return Step(self.path.name, name, self.head, [call])

    def write(self):
        text = []
        for step in self.steps:
            word, _, command = step.lines[0].partition(" ")
            if word == "etcdctl":
                text += [*step.before, f"$ {command}", *(f"  {line}" for line in step.lines[1:])]
            else:
                text += [*step.before, step.name, *(f"  {line}" for line in step.lines)]
        self.path.write_text("\n".join([*text, *self.head]) + "\n")


def status(code, text, options):
    """A status line. A client words its own deadline as it likes; or it sees first that the server, which
    knows the deadline as well, has reset the stream."""
    name = CODES[code] if 0 <= code < len(CODES) else f"code {code}"
    if "timeout" in options and (name == "DeadlineExceeded" or (name == "Canceled" and "RST_STREAM" in text)):
        name, text = "DeadlineExceeded", ANY
    return f"{name}: {text}" if text else name


def actions(step, protos):
    """The actions of a driver on a stream, in order."""
    method, waits = protos.method(step.method), 0
    for line in [*step.body, "end"]:
        if line.startswith("<- "):
            waits += 1
            continue
        if waits and line != "end" and not STATUS.match(line):
            yield {"await": waits}
        waits = 0
        if line.startswith("-> "):
            yield {"send": protos.request(method, line[3:]).hex()}
        elif line.startswith("meanwhile "):
            name, _, request = line[len("meanwhile ") :].partition(" ")
            data = protos.request(protos.method(name), request)
            yield {"call": path(name), "message": data.hex()}
        elif line in ("close", "cancel"):
            yield {line: True}
        elif line != "end" and not STATUS.match(line):
            raise TableError(f"{step.title}: {line!r} is nothing that a step has")


def actual(step, answers, code, text):
    """The lines of a step as they were answered, to compare with `step.transcript`, and to record.

    `answers` are the texts of all answers in the order of their arrival.
    """
    lines, left = step.head, list(answers)
    ended = code is not None
    for line in step.body:
        if line.startswith("<- "):
            if left:
                lines.append(f"<- {left.pop(0)}")
            elif not ended:
                lines.append("<- nothing came")
        elif line == "cancel" or STATUS.match(line):
            break
        else:
            lines.append(line)
    lines += [f"<- {answer}" for answer in left]
    lines.append(status(code, text, step.options) if ended else "cancel")
    return lines


def record(step, got):
    """Puts the answers into the step. Its comments come first; a pattern that still matches stays."""
    if len(got) == len(step.transcript):
        got = [old if same(old, new) else new for old, new in zip(step.transcript, got)]
    comments = [line for line in step.lines[1:] if line.startswith("#")]
    head = step.head
    step.lines = [*head, *comments, *got[len(head) :]]


def same(expected, got):
    """Compares two lines. A `*` accepts every answer, or any rest of a status text."""
    if expected == f"<- {ANY}" or (expected.endswith(ANY) and STATUS.match(expected)):
        return got.startswith(expected[: -len(ANY)].removesuffix(": "))
    return expected == got


@dataclass
class Deviation:
    """A line of the table that Ordinal answers otherwise on purpose."""

    step: str
    etcd: str
    ordinal: str
    because: str
    used: bool = False

    def concerns(self, step):
        if self.step.endswith(f": {ANY}"):
            return step.file == self.step[: -len(f": {ANY}")] and self.etcd in step.transcript
        return step.title == self.step


def read_deviations(path):
    """The file of deviations: a step, then `etcd`, `ordinal` and `because` lines."""
    found, step, parts = [], None, {}
    for line in Path(path).read_text().splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if not line.startswith(" "):
            step, parts = line, {}
        elif word in ("etcd", "ordinal"):
            parts[word] = rest
        elif word == "because" and len(parts) == 2:
            found.append(Deviation(step, parts["etcd"], parts["ordinal"], rest))
            parts = {}
        else:
            raise TableError(f"{path}: {line!r} is not part of a deviation, or comes too early")
    return found


def apply_deviations(step, deviations):
    """The transcript that Ordinal gives on purpose."""
    lines = step.transcript
    for deviation in deviations:
        if not deviation.concerns(step):
            continue
        if deviation.etcd not in lines:
            raise TableError(f"deviations: {step.title} has no line {deviation.etcd!r}")
        lines[lines.index(deviation.etcd)] = deviation.ordinal
        deviation.used = True
    return lines
