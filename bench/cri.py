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

More, each by its flag:

- probes: seconds of CPU of all processes for 100 ExecSync of /bin/true a second, for `--probes` seconds
- exec of 10: ExecSync in a pod of ten containers (`--ten`)
- pod, reference plugins: as pod, and both execute the same CNI plugins (`--plugins`)
- end, writer: as end, while somebody writes 100 MB a second to the same disk (`--writer`)
- lists, scale: each List RPC of ocirtd with so many pods, and how much longer a pod takes to start than beside 5 (`--crowd`)
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
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / floor) for floor in ("api", "images", "cni", "shim", "cri"))]

from bench import crirows  # noqa: E402
from bench.criendpoints import Endpoint, Pod, build, containerd, executing, ocirtd  # noqa: E402
from bench.report import percentile, table, verdict  # noqa: E402
from bench.run import machine, write  # noqa: E402
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
    "probes": 0.3,
    "exec of 10": 0.15,
    "pod, reference plugins": 0.5,
    "end, writer": 0.12,
}
TAIL = 3.0  # p99 of a pod's start to its median
LISTS, SCALE = 20.0, 1.2  # milliseconds; a start among many to one among few
AT_A_TIME, FEW, STARTS, RATE = 4, 5, 20, 100


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="samples of pods, ends and execs (default 30)")
    parser.add_argument("--pods", type=int, default=150, help="how many pods run for stats and memory; 0: none (default 150)")
    parser.add_argument("--cycles", type=float, default=10, help="seconds for each measurement of cycles; 0: none (default 10)")
    parser.add_argument("--probes", type=float, default=0, metavar="SECONDS", help="seconds of 100 probes each; 0: none")
    parser.add_argument("--ten", action="store_true", help="measure exec in a pod of ten containers, too")
    parser.add_argument("--plugins", action="store_true", help="measure pods with the reference CNI plugins on both, too")
    parser.add_argument("--writer", action="store_true", help="measure ends beside a writer, too")
    parser.add_argument("--crowd", type=int, default=0, metavar="PODS", help="measure ocirtd's lists and a start with so many")
    parser.add_argument("--write", action="store_true", help="write the tables to bench/RESULTS.md (the section cri)")
    parser.add_argument("--trace", default="", metavar="FILE", help="have ocirtd write down what it spends its time with")
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


def tens(endpoints: list[Endpoint], number: int, samples: Samples) -> None:
    """ExecSync in a pod of ten containers."""
    for endpoint in endpoints:
        with crirows.of_ten(endpoint) as pod:
            pod.execute("/bin/true")
            for _ in range(number):
                samples.add("exec of 10", endpoint.name, timed(lambda pod=pod: pod.execute("/bin/true")))  # type: ignore[misc]


def ends(endpoints: list[Endpoint], number: int, samples: Samples) -> None:
    """Ends of pods beside a writer."""
    for turn in range(number):
        at = turn % len(endpoints)
        for endpoint in endpoints[at:] + endpoints[:at]:
            pod = endpoint.describe(host_network=False)
            pod.start()
            samples.add("end, writer", endpoint.name, timed(pod.end))


def executed(endpoints: list[Endpoint], number: int, samples: Samples) -> None:
    """Starts of pods whose plugins are executed. The first two are not counted."""
    for turn in range(-2, number):
        for endpoint, name in zip(endpoints, ("ocirtd", "containerd"), strict=True):
            (taken,) = crirows.starts(endpoint, 1)
            if turn >= 0:
                samples.add("pod, reference plugins", name, taken)


def scale(endpoint: Endpoint, number: int) -> str:
    """A table of lists and starts with so many pods, beside those with few."""
    rows, found = [], {}
    pods: list[Pod] = []
    try:
        for size in (FEW, number):
            pods += crirows.crowded(endpoint, size - len(pods))
            crirows.starts(endpoint, 2)
            found[size] = statistics.median(crirows.starts(endpoint, STARTS))
        taken: dict[str, list[float]] = {}
        for _ in range(STARTS):
            for name, value in crirows.lists(endpoint):
                taken.setdefault(name, []).append(value)
    finally:
        crirows.empty(pods)
    for name, values in taken.items():
        middle = statistics.median(values)
        rows.append([name, f"{middle:.1f} ms", f"< {LISTS:g}", "met" if middle < LISTS else "MISSED"])
    ratio = found[number] / found[FEW]
    words = f"pod, {found[number]:.1f} ms beside {found[FEW]:.1f} with {FEW}"
    rows.append([words, f"{ratio:.2f}", *verdict(ratio, SCALE)])
    return table([f"{endpoint.name} with {number} pods", "", "budget", ""], rows)


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
        if ours in endpoints and peer in endpoints and row in BUDGETS:
            ratio = statistics.median(endpoints[ours]) / statistics.median(endpoints[peer])
            most = row == "cycles"
            met = ratio >= BUDGETS[row] if most else ratio <= BUDGETS[row]
            ratios.append([row, f"{ratio:.3f}", f"{'≥' if most else '≤'} {BUDGETS[row]:g}", "met" if met else "MISSED"])
        if row in ("pod", "host pod") and ours in endpoints:
            tail = percentile(endpoints[ours], 99) / statistics.median(endpoints[ours])
            ratios.append([f"{row}, p99 to median", f"{tail:.2f}", *verdict(tail, TAIL)])
    head = ["ms (cycles: a second, memory: MiB a pod, probes: s of CPU)", "", "n", "min", "median", "p99"]
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
    makers: dict[str, Callable[[Machine], Endpoint]] = {
        "containerd": containerd,
        "ocirtd": partial(ocirtd, trace=options.trace and os.path.abspath(options.trace)),
    }
    unknown = [name for name in options.only.split(",") if name not in makers]
    if unknown:
        sys.exit(f"no such endpoint: {', '.join(unknown)}")
    samples, endpoints = Samples(), []
    try:
        for name in options.only.split(","):
            endpoints.append(makers[name](place))
        if options.rounds:
            rounds(endpoints, options.rounds, samples)
        if options.ten:
            tens(endpoints, options.rounds or STARTS, samples)
        if options.writer:
            with crirows.writer(place.path, RATE):
                ends(endpoints, options.rounds or STARTS, samples)
        if options.plugins:
            endpoints.append(executing(place))
            peers = [one for one in endpoints if one.name == "containerd"]
            executed([endpoints[-1], *peers], options.rounds or STARTS, samples)
            endpoints.pop().stop()
        for endpoint in endpoints:
            if options.probes:
                used, taken = crirows.probes(endpoint, RATE, options.probes)
                samples.add("probes", endpoint.name, used)
                for one in taken:
                    samples.add("exec, 100 a second", endpoint.name, one)
            if options.crowd and endpoint.name == "ocirtd":
                print(scale(endpoint, options.crowd), end="\n\n")
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
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {options.rounds} rounds\n\n{report(samples)}\n"
    print(text, end="")
    if options.write:
        print("written:", write("cri", f"## cri\n\n{text}"), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
