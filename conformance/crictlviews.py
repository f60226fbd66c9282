"""What crictl shows of a runtime, by command: lines that are the same in every run, as ids, times and counts have no value."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.drivers import Machine
from conformance.nodes import CrictlAt
from tests.support.runtime import Result, wait_for
from tests.support.terminal import Terminal

Lines = list[str]
_TEXT = (
    (re.compile(r"[EIW]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (\S+?):\d+\]"), r"\1:"),
    (re.compile(r"\x1b\[\d+m|(?<=\x1b\[0m)\[\d{4}\]"), ""),
    (re.compile(r"sha256:[0-9a-f]{64}"), "<digest>"),
    (re.compile(r"\b([0-9a-f]{64}|(?=[0-9]*[a-f])[0-9a-f]{12,13})\b"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b(\d+|Less than a|About a) (second|minute)s? ago"), "<age>"),
    (re.compile(r"\b10\.\d+\.\d+\.\d+\b"), "<address>"),
    (re.compile(r"\b\d+(\.\d+)?[kMG]?B\b"), "<size>"),
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_OF_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Endpoint:
    """Where crictl looks. names: what is another text for each endpoint and means nothing."""

    endpoint: str
    place: Path
    machine: Machine
    image: str
    names: tuple[tuple[str, str], ...] = ()


class Viewer:
    """One pod of a runtime with a few containers, and what each command shows of it."""

    def __init__(self, where: Endpoint) -> None:
        self.where = where
        self.crictl = CrictlAt(where.endpoint, where.place, where.machine)
        self.crictl.numbers = itertools.count()  # so that names are the same for both
        self.found: dict[str, Lines] = {}

    def plain(self, text: str) -> str:
        """A text without what is another one in each run."""
        for old, new in self.where.names:
            text = text.replace(old, new)
        for pattern, word in _TEXT:
            text = pattern.sub(word, text)
        return text

    def table(self, result: Result, *, numbers: bool = False) -> Lines:
        """Its rows, their cells one space apart. numbers: without their values."""
        rows = [" ".join(self.plain(line).split()) for line in result.ok().out.splitlines()]
        return [_NUMBER.sub("<number>", row) if numbers else row for row in rows]

    def said(self, result: Result) -> Lines:
        """Its exit status and both outputs."""
        lines = [f"out: {line}" for line in result.out.splitlines()] + [f"err: {line}" for line in result.err.splitlines()]
        return [f"status: {result.rc}", *map(self.plain, lines)]

    def document(self, text: str, *, values: bool = True) -> Lines:
        """The leaves of a JSON document: `path = value`. values: False for their types only."""
        return sorted({f"{path} = {self._value(value, values)}" for path, value in leaves(json.loads(text))})

    def _value(self, value: Any, values: bool) -> str:
        if isinstance(value, str):
            value = self.plain(value)
            if _NUMBER.fullmatch(value) and not (values and len(value) < 4):
                return "<number>"
            return value if values or value.startswith("<") else "<text>"
        return json.dumps(value) if values or isinstance(value, bool) or value is None else "<number>"

    # -- the commands --

    def look(self) -> dict[str, Lines]:
        """All of them, in an order in which each finds what it needs. No pod stays, whatever comes of it."""
        try:
            self._look()
        finally:
            self.crictl.clean_up()
        return self.found

    def _look(self) -> None:
        crictl, image = self.crictl, self.where.image
        pod = crictl.pod(labels={"app": "web"}, annotations={"a": "b"}, port_mappings=[{"container_port": 8080}])
        script = "echo to stdout; echo to stderr >&2; mkdir /www; echo here >/www/x; exec busybox httpd -f -p 8080 -h /www"
        web = crictl.start(pod, image, "sh", "-c", script, labels={"tier": "front"}, annotations={"c": "d"})
        ended = crictl.start(pod, image, "sh", "-c", "exit 7")
        crictl.ended(ended)
        wait_for(lambda: len(crictl.call("logs", web).ok().out.split()) == 2, "its output", 20)
        self.found["pods"] = self.table(crictl.call("pods")) + self.document(crictl.call("pods", "-o", "json").out)
        self.found["ps"] = self.table(crictl.call("ps", "-a")) + self.document(crictl.call("ps", "-a", "-o", "json").out)
        self.found["inspect"] = self.document(crictl.call("inspect", web).ok().out)
        self.found["inspect of one that has ended"] = self.document(crictl.call("inspect", ended).ok().out)
        self.found["inspectp"] = self.document(crictl.call("inspectp", pod[0]).ok().out)
        self.found["logs"] = self.logs(web)
        self.found["exec -it"] = self.terminal(web)
        self.found["exec"] = [line for argv in self.programs(web) for line in self.said(crictl.call("exec", *argv))]
        self.found["attach"] = self.attach(pod)
        self.found["port-forward"] = self.port_forward(pod[0])
        wait_for(lambda: self.is_counted(web), "what it has written, and how fast it uses the processor", 30)
        for name in ("stats", "statsp", "metricsp"):
            self.found[name] = self.numbers(name)
        self.found["events"] = self.events(pod)
        self.found["images"] = self.images()
        crictl.clean_up()
        self.found["rmi"] = [line for _ in range(2) for line in self.said(crictl.call("rmi", image))]
        self.found["rmi"] += self.table(crictl.call("images", "--quiet", image))

    def is_counted(self, web: str) -> bool:
        """Whether statistics are complete: some of them come from looks from time to time."""
        (found,) = json.loads(self.crictl.call("stats", "-o", "json", web).ok().out)["stats"]
        return bool(found["cpu"].get("usageNanoCores") and (found.get("writableLayer") or {}).get("usedBytes"))

    @staticmethod
    def programs(web: str) -> Iterator[tuple[str, ...]]:
        """What exec is asked for: success, failure, a program that is not there; by streams, and at once."""
        for how in ((), ("--sync",)):
            yield (*how, web, "sh", "-c", "echo out; echo err >&2")
            yield (*how, web, "sh", "-c", "exit 3")
            yield (*how, web, "no-such-program")

    def logs(self, web: str) -> Lines:
        """As they are, with times, and the last line alone."""
        found = []
        for flags in ((), ("--timestamps",), ("--tail", "1")):
            found += sorted(self.said(self.crictl.call("logs", *flags, web)))
        return found

    def command(self, *args: str) -> list[str]:
        """An invocation, for who runs it himself."""
        crictl = self.crictl
        return [crictl.program, "--timeout", "30s", "--runtime-endpoint", self.where.endpoint, *args]

    def terminal(self, web: str) -> Lines:
        """A shell that knows its terminal's size, and how it ended."""
        # The size comes when the program already runs.
        script = "until stty size 2>/dev/null | grep -q '33 111'; do sleep 0.1; done; tty; stty size; read x; echo got $x; exit 3"
        argv = self.command("exec", "-it", web, "sh", "-c", script)
        with Terminal(argv, rows=33, columns=111, env=self.where.machine.env) as terminal:
            terminal.expect("33 111", 30)
            terminal.write("word\n")
            status = terminal.wait(30)
            text = terminal.output.decode()
        return [f"status: {status}", *(self.plain(line) for line in text.replace("\r", "").splitlines())]

    def attach(self, pod: tuple[str, Path]) -> Lines:
        """What a container answers to its input, until that ends."""
        script = "while read x; do echo got $x; done; echo over >&2"
        box = self.crictl.start(pod, self.where.image, "sh", "-c", script, stdin=True, stdin_once=True)
        found = self.said(self.crictl.call("attach", "-i", box, stdin="one\ntwo\n"))
        status = self.crictl.ended(box)
        return [*found, f"the container: {status['state']} {status['exitCode']} {status['reason']}"]

    def port_forward(self, pod: str) -> Lines:
        """Two pages by one forward, one from a port where nobody listens, and what it says meanwhile."""
        with socket.create_server((_OF_LOOPBACK, 0)) as one, socket.create_server((_OF_LOOPBACK, 0)) as other:
            ports = [one.getsockname()[1], other.getsockname()[1]]
        argv = self.command("port-forward", pod, f"{ports[0]}:8080", f"{ports[1]}:8081")
        log = self.where.place / "port-forward"
        with log.open("wb") as file:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self.where.machine.env)
        try:
            wait_for(lambda: log.read_text().count("Forwarding from") >= 2, "the ports", 30)
            pages = [self.page(ports[0]) for _ in range(2)]
            refused = self.page(ports[1])
            time.sleep(0.5)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
        text = log.read_text().replace(str(ports[0]), "<here>").replace(str(ports[1]), "<there>")
        return [*(f"page: {page}" for page in (*pages, refused)), *sorted(self.plain(line) for line in text.splitlines())]

    @staticmethod
    def page(port: int) -> str:
        """What comes from a port of this host."""
        try:
            with urllib.request.urlopen(f"http://{_OF_LOOPBACK}:{port}/x", timeout=10) as answer:
                return str(answer.read().decode().strip())
        except OSError as err:
            return f"nothing: {type(err).__name__}"

    def numbers(self, name: str) -> Lines:
        """The heads of the table, and which numbers there are in the document."""
        text = self.crictl.call(name, "-o", "json").ok().out
        document = self.document(text, values=False)
        if name != "metricsp":
            return [self.table(self.crictl.call(name))[0], *document]
        names = {value for path, value in leaves(json.loads(text)) if path.endswith("metrics[].name")}
        return [*document, *(f"metric: {each}" for each in sorted(names))]

    def events(self, pod: tuple[str, Path]) -> Lines:
        """Of a container's life, until it was removed."""
        log = self.where.place / "events"
        with log.open("wb") as file:
            process = subprocess.Popen(self.command("events"), stdout=file, stderr=subprocess.DEVNULL, env=self.where.machine.env)
        try:
            time.sleep(2)  # nothing tells when it has subscribed
            box = self.crictl.start(pod, self.where.image, "sh", "-c", "exit 5")
            self.crictl.ended(box)
            self.crictl.call("rm", box).ok()
            wait_for(lambda: "CONTAINER_DELETED_EVENT" in log.read_text(), "the last event", 20)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
        decoder, text, found = json.JSONDecoder(), log.read_text().strip(), []
        while text:
            event, end = decoder.raw_decode(text)
            text = text[end:].strip()
            states = sorted(one["state"] for one in event["containersStatuses"])
            found.append(f"event: {event['containerEventType']}, containers: {' '.join(states)}")
            found += [line for line in self.document(json.dumps(event), values=False) if "containersStatuses" not in line]
        return list(dict.fromkeys(found))

    def images(self) -> Lines:
        """The list, and what is said of one."""
        crictl, image = self.crictl, self.where.image
        return [
            *self.table(crictl.call("images", image)),
            *self.document(crictl.call("images", "-o", "json", image).ok().out),
            *(f"inspecti: {line}" for line in self.document(crictl.call("inspecti", image).ok().out)),
        ]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths of a document and what is there; lists have no numbers. What is empty is a leaf."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for one in value:
            yield from leaves(one, f"{path}[]")
    else:
        yield path, value


def differences(one: Lines, other: Lines) -> Iterator[tuple[str, str]]:
    """The lines that only one of two views has: (which: `first` or `second`, the line)."""
    yield from (("first", line) for line in one if line not in other)
    yield from (("second", line) for line in other if line not in one)
