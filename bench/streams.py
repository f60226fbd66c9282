"""Measure streams of CRI endpoints side by side: `build/venv/bin/python bench/streams.py --help`, as root.

It needs `make cri`, and Go for containerd and for the client, which is Kubernetes' own (`conformance/streamclient.go`, SPDY/3.1).
In each round ocirtd, and containerd 2 with runc, take one sample of everything; who begins turns:

- out: `--mib` MiB from a program's standard output
- in: the same to its standard input
- forward: the same from a port of the pod
- command: /bin/true, from the call of Exec to the client's end
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / floor) for floor in ("api", "images", "cni", "shim", "cri"))]

from bench.criendpoints import Endpoint, Pod, build, containerd, ocirtd  # noqa: E402
from bench.report import percentile, table, verdict  # noqa: E402
from bench.run import machine  # noqa: E402
from conformance import goprograms  # noqa: E402
from conformance.drivers import Machine  # noqa: E402
from conformance.test_streams import MODULES  # noqa: E402
from ocirt_api.cri import api_pb2 as cri  # noqa: E402
from tests.support.isolation import Isolation  # noqa: E402

BUDGET = 1.0  # of containerd's time
MIB = 1 << 20
CHUNK = 1 << 18
PORT = 7001
PATIENCE = 60.0


def client() -> Path:
    """The program of streamclient.go."""
    text = (ROOT / "conformance" / "streamclient.go").read_text()
    return goprograms.build("streamclient", MODULES, ["."], go="1.26", files={"main.go": text}) / "streamclient"


class Sampler:
    """What is measured of one pod."""

    def __init__(self, program: Path, pod: Pod, mib: int) -> None:
        self.program = program
        self.pod = pod
        self.size = mib * MIB

    def url(self, *command: str, **wanted: bool) -> str:
        """Where a command is had."""
        return str(self.pod.endpoint.calls.Exec(cri.ExecRequest(container_id=self.pod.containers[-1], cmd=command, **wanted)).url)

    def run(self, url: str, *words: str, source: int | None = None, told: int | None = subprocess.DEVNULL) -> bytes:
        """The client, to its end; what it wrote to `told`, if that is a pipe."""
        given = subprocess.DEVNULL if source is None else source
        argv = [str(self.program), "command", "spdy", url, *words]
        return subprocess.run(argv, stdin=given, stdout=told, check=True, timeout=PATIENCE * 5).stdout or b""

    def out(self) -> None:
        """From standard output."""
        self.run(self.url("head", "-c", str(self.size), "/dev/zero", stdout=True), "stdout")

    def into(self) -> None:
        """To standard input."""
        url = self.url("wc", "-c", stdin=True, stdout=True)
        with subprocess.Popen(["head", "-c", str(self.size), "/dev/zero"], stdout=subprocess.PIPE) as source:
            assert source.stdout is not None
            came = int(self.run(url, "stdin", "stdout", source=source.stdout.fileno(), told=subprocess.PIPE))
            assert came == self.size, f"{self.pod.endpoint.name}: {came} bytes of {self.size} came"

    def forward(self) -> None:
        """From a port. The server and the client are there when the time begins; see `main`."""
        with socket.create_connection(("127.0.0.1", self.local), PATIENCE) as sock:
            left = self.size
            while left:
                came = len(sock.recv(CHUNK))
                assert came, f"{left} bytes did not come"
                left -= came

    def command(self) -> None:
        """A command that does nothing."""
        self.run(self.url("/bin/true", stdout=True), "stdout")

    def __enter__(self) -> Sampler:
        serve = f"while :; do nc -l -p {PORT} -e head -c {self.size} /dev/zero; done"
        pipe = subprocess.PIPE
        argv = [str(self.program), "command", "spdy", self.url("sh", "-c", serve, stdout=True), "stdout"]
        self._server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.wait()
        where = str(self.pod.endpoint.calls.PortForward(cri.PortForwardRequest(pod_sandbox_id=self.pod.id, port=[PORT])).url)
        self._forwarder = subprocess.Popen(
            [str(self.program), "forward", "spdy", where, str(PORT)], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
        )
        assert self._forwarder.stdout is not None
        self.local = int(self._forwarder.stdout.readline())
        return self

    def wait(self) -> None:
        """Until somebody listens at the port."""
        until = time.monotonic() + PATIENCE
        request = cri.ExecSyncRequest(container_id=self.pod.containers[-1], cmd=["cat", "/proc/net/tcp", "/proc/net/tcp6"])
        while f":{PORT:04X} ".encode() not in self.pod.endpoint.calls.ExecSync(request).stdout:
            assert time.monotonic() < until
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        for process in (self._forwarder, self._server):
            process.kill()
            process.wait()


def measure(samplers: dict[str, Sampler], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds, by what and by endpoint."""
    found: dict[str, dict[str, list[float]]] = {}
    names = list(samplers)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            sampler = samplers[name]
            actions: dict[str, Callable[[], None]] = {
                "out": sampler.out,
                "in": sampler.into,
                "forward": sampler.forward,
                "command": sampler.command,
            }
            for what, action in actions.items():
                if what == "forward":
                    sampler.wait()
                begin = time.perf_counter()
                action()
                found.setdefault(what, {}).setdefault(name, []).append(time.perf_counter() - begin)
    return found


def report(found: dict[str, dict[str, list[float]]]) -> str:
    """All figures, and each ratio with its budget."""
    rows, ratios = [], []
    for what, samples in found.items():
        for name, values in samples.items():
            figures = (min(values), statistics.median(values), percentile(values, 99))
            rows.append([what, name, str(len(values)), *(f"{value * 1000:.1f}" for value in figures)])
        if len(samples) > 1:
            ratio = statistics.median(samples["ocirtd"]) / statistics.median(samples["containerd"])
            ratios.append([what, f"{ratio:.3f}", *verdict(ratio, BUDGET)])
    return table(["ms", "", "n", "min", "median", "p99"], rows) + "\n\n" + table(["", "ratio", "budget", ""], ratios)


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="samples of everything (default 5)")
    parser.add_argument("--mib", type=int, default=1024, help="MiB of one sample (default 1024)")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("bench/streams.py needs root")
    program = client()
    build()  # while there is a network
    isolation = Isolation()
    place = Machine(Path(tempfile.mkdtemp(prefix="ocirt-")), isolation.token, isolation.cgroup_parent)
    endpoints: list[Endpoint] = []
    samplers: dict[str, Sampler] = {}
    try:
        for make in (containerd, ocirtd):
            endpoints.append(make(place))
        for endpoint in endpoints:
            pod = endpoint.describe(host_network=False)
            pod.start()
            samplers[endpoint.name] = Sampler(program, pod, options.mib).__enter__()
        found = measure(samplers, options.rounds)
    finally:
        for sampler in samplers.values():
            sampler.__exit__()
            sampler.pod.end()
        for endpoint in endpoints:
            endpoint.stop()
        place.remove()
        isolation.leave()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {options.rounds} rounds of {options.mib} MiB\n\n{report(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
