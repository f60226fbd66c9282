"""Measure `ocirt.run(["/bin/true"])` from a warm zygote beside the commands: `python bench/library.py [--rounds N]`, as root."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ocirt  # noqa: E402
from bench.run import machine  # noqa: E402
from tests.support.bundle import make_bundle  # noqa: E402
from tests.support.isolation import Isolation, remove_tree  # noqa: E402

TARGET = 10.0  # ms


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--view", choices=("v1", "v2"), default="v2", help="v2: cgroup2 alone in a mount namespace of our own")
    parser.add_argument("--rounds", type=int, default=100, help="samples of each (default 100)")
    parser.add_argument("--runc", default=shutil.which("runc-new") or "runc", help="a command; empty: not measured")
    return parser.parse_args()


def command(words: list[str], bundle: Path) -> Callable[[], object]:
    """A start by a command, as a Python program would do it without the library."""
    return lambda: subprocess.run(
        [*words, "run", "--bundle", bundle, "bench"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )


def measure(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each job, sorted. In each round all take their turn, and who begins changes."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(-3, rounds):  # the first three are not counted
        turn = number % len(jobs)
        order = list(jobs.items())
        for name, job in order[turn:] + order[:turn]:
            begin = time.perf_counter()
            job()
            if number >= 0:
                taken[name].append((time.perf_counter() - begin) * 1000)
    return {name: sorted(times) for name, times in taken.items()}


def main() -> int:
    """Measure, and print a table."""
    options = arguments()
    if os.geteuid():
        sys.exit("bench/library.py needs root")
    place = Isolation(options.view)
    work = Path(tempfile.mkdtemp(prefix="ocirt-bench-"))
    work.chmod(0o755)
    try:
        group = f"{place.cgroup_parent}/bench"
        bundle = make_bundle(work / "bundle", args=["/bin/true"], cgroupsPath=group)
        quiet: dict[str, Any] = {"stdin": ocirt.DEVNULL, "stdout": ocirt.DEVNULL, "root": work / "state", "check": True}
        jobs: dict[str, Callable[[], object]] = {
            'ocirt.run(["/bin/true"], rootfs=...)': lambda: ocirt.run(["/bin/true"], rootfs=bundle.rootfs, cgroup=group, **quiet),
            "ocirt.run(bundle=...), that of `runc spec`": lambda: ocirt.run(bundle=bundle.path, **quiet),
            "ocirt run, the same bundle": command([str(ROOT / "build" / "ocirt"), "--root", str(work / "state")], bundle.path),
        }
        if options.runc:
            jobs["runc run, the same bundle"] = command([options.runc, "--root", str(work / "runc")], bundle.path)
        begin = time.perf_counter()
        jobs[next(iter(jobs))]()
        first = (time.perf_counter() - begin) * 1000
        taken = measure(jobs, options.rounds)
    finally:
        ocirt.close()
        remove_tree(work)
        place.leave()
    print(f"{machine()}; view {options.view}; {options.rounds} rounds; ms; target of the first: median ≤ {TARGET:g}")
    print(f"{'':44}{'min':>8}{'median':>8}{'p99':>8}")
    for name, times in taken.items():
        print(f"{name:44}{times[0]:8.1f}{median(times):8.1f}{times[int(len(times) * 0.99)]:8.1f}")
    print(f"the first call, with the start of the zygote: {first:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
