"""Measure CRI endpoints side by side: `build/venv/bin/python bench/cri.py --help`, as root.

It needs `make`, and Go for containerd.

ocirtd, and containerd 2 with runc, each with its own directories and the same image, network list and log folder, asked by the
same client (grpcio). In each round each takes one sample of everything; who begins turns from round to round:

- pod: RunPodSandbox + CreateContainer + StartContainer of a pod with a network (bridge, host-local, portmap)
- host pod: the same in the host's network
- end: StopContainer(0) + StopPodSandbox + RemovePodSandbox
- exec: ExecSync of /bin/true in a running container
- stats: ListContainerStats with all pods that `--pods` says
- cycles: whole lives of pods, four at a time, in a second
- memory: PSS of shims and daemons a pod, with `--pods` pods, one ExecSync in each; memory of 3: with three containers in each
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / floor) for floor in ("api", "images", "cni", "shim", "cri"))]

from bench.criendpoints import Endpoint, build, containerd, ocirtd  # noqa: E402
from bench.report import percentile, table  # noqa: E402
from bench.run import machine  # noqa: E402
from conformance.drivers import Machine  # noqa: E402
from tests.support.isolation import Isolation  # noqa: E402

# DESIGN's table: the largest ratio to containerd; of cycles the smallest.
BUDGETS = {
    "pod": 0.12,
    "host pod": 0.15,
    "end": 0.12,
    "exec": 0.15,
    "stats": 0.15,
    "cycles": 8.0,
    "memory": 0.35,
    "memory of 3": 0.8,
}
AT_A_TIME = 4


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="samples of pods, ends and execs (default 30)")
    parser.add_argument("--pods", type=int, default=150, help="how many pods run for stats and memory; 0: none (default 150)")
    parser.add_argument("--cycles", type=float, default=10, help="seconds for each measurement of cycles; 0: none (default 10)")
    parser.add_argument("--only", default="containerd,ocirtd", help="which endpoints (default: both)")
    return parser.parse_args()


def timed(action: Callable[[], object]) -> float:
    """How long it takes, in milliseconds."""
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) * 1000


class Samples:
    """Milliseconds (or what a row is in), by row and endpoint."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, endpoint: str, value: float) -> None:
        """One more sample."""
        self.taken.setdefault(row, {}).setdefault(endpoint, []).append(value)


def rounds(endpoints: list[Endpoint], number: int, samples: Samples) -> None:
    """Pods, execs and ends. The first two rounds are not counted: caches fill."""
    for turn in range(-2, number):
        at = turn % len(endpoints)
        for endpoint in endpoints[at:] + endpoints[:at]:
            for row, host in (("pod", False), ("host pod", True)):
                made = endpoint.describe(host_network=host)
                found = [(row, timed(lambda made=made: made.start()))]  # type: ignore[misc]
                found.append(("exec", timed(lambda made=made: made.execute("/bin/true"))))  # type: ignore[misc]
                found.append(("end", timed(lambda made=made: made.end())))  # type: ignore[misc]
                if turn >= 0:
                    for name, value in found:
                        samples.add(name, endpoint.name, value)


def cycles(endpoint: Endpoint, seconds: float) -> float:
    """Whole lives of pods a second, four at a time. Raises what a call raises."""
    done, failed, until = [0] * AT_A_TIME, [], time.monotonic() + seconds

    def work(at: int) -> None:
        try:
            while time.monotonic() < until:
                pod = endpoint.describe(host_network=False)
                pod.start()
                pod.end()
                done[at] += 1
        except Exception as err:  # noqa: BLE001  (told by the thread that waits)
            failed.append(err)

    begin = time.monotonic()
    threads = [threading.Thread(target=work, args=(at,)) for at in range(AT_A_TIME)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sum(done) / (time.monotonic() - begin)


def crowd(endpoint: Endpoint, number: int, samples: Samples) -> None:
    """Statistics and memory with so many pods; then memory with more containers in each."""
    before = endpoint.memory()
    pods = [endpoint.describe(host_network=True) for _ in range(number)]
    for pod in pods:
        pod.start()
        pod.execute("/bin/true")
    time.sleep(1)
    samples.add("memory", endpoint.name, (endpoint.memory() - before) / number)
    for _ in range(10):
        samples.add("stats", endpoint.name, timed(lambda: endpoint.stats(number)))
    for pod in pods:
        for _ in range(2):
            pod.add()
            pod.execute("/bin/true")
    time.sleep(1)
    samples.add("memory of 3", endpoint.name, (endpoint.memory() - before) / number)
    for pod in pods:
        pod.end()


def report(samples: Samples, ours: str = "ocirtd", peer: str = "containerd") -> str:
    """All figures, and each ratio with its budget."""
    rows, ratios = [], []
    for row, endpoints in samples.taken.items():
        for name, values in endpoints.items():
            figures = (min(values), statistics.median(values), percentile(values, 99))
            rows.append([row, name, str(len(values)), *(f"{value:.2f}" for value in figures)])
        if ours in endpoints and peer in endpoints:
            ratio = statistics.median(endpoints[ours]) / statistics.median(endpoints[peer])
            most = row == "cycles"
            met = ratio >= BUDGETS[row] if most else ratio <= BUDGETS[row]
            ratios.append([row, f"{ratio:.3f}", f"{'≥' if most else '≤'} {BUDGETS[row]:g}", "met" if met else "MISSED"])
    head = ["ms (cycles: a second, memory: MiB a pod)", "", "n", "min", "median", "p99"]
    return table(head, rows) + ("\n\n" + table(["", "ratio", "budget", ""], ratios) if ratios else "")


def main() -> int:
    """Measure, print."""
    options = arguments()
    if os.geteuid():
        sys.exit("bench/cri.py needs root")
    if "containerd" in options.only:
        build()  # while there is a network
    isolation = Isolation()
    place = Machine(Path(tempfile.mkdtemp(prefix="ocirt-")), isolation.token, isolation.cgroup_parent)
    makers = {"containerd": containerd, "ocirtd": ocirtd}
    unknown = [name for name in options.only.split(",") if name not in makers]
    if unknown:
        sys.exit(f"no such endpoint: {', '.join(unknown)}")
    samples, endpoints = Samples(), []
    try:
        for name in options.only.split(","):
            endpoints.append(makers[name](place))
        rounds(endpoints, options.rounds, samples)
        for endpoint in endpoints:
            if options.cycles:
                samples.add("cycles", endpoint.name, cycles(endpoint, options.cycles))
            if options.pods:
                crowd(endpoint, options.pods, samples)
    finally:
        for endpoint in endpoints:
            endpoint.stop()
        place.remove()
        isolation.leave()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {options.rounds} rounds\n\n{report(samples)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
