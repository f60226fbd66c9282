"""Measure network plugins side by side: `python bench/cni.py --help`, as root; it needs `make`, and Go for the reference plugins.

The chain is what a node has: bridge with masquerade, host-local, portmap with one port. Three attach and detach a container:

- reference: the executables of containernetworking/plugins
- executables: ours, by the same caller
- engine: ours in one process, as ocirtd has them; after DEL it drops the network namespace, within the time that is taken

Each works on a host of its own, in a process of its own: a network and a mount namespace. In each round each takes one sample,
with so many other containers attached; who begins turns from round to round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "cni")]

from bench.measure import CommandFailedError  # noqa: E402
from bench.networkhosts import CONTESTANTS, Host  # noqa: E402
from bench.report import Results, table, times, verdict  # noqa: E402
from bench.run import machine, write  # noqa: E402
from tests.system.conftest import entered  # noqa: E402

PAIRS = "ADD + DEL until all is gone"
# DESIGN's table: the largest ratio to the reference.
BUDGETS = {
    ("engine", "ADD"): 0.1,
    ("engine", "DEL"): 0.1,
    ("engine", PAIRS): 0.15,
    ("executables", "ADD"): 0.5,
    ("executables", "DEL"): 0.3,
}
GROWTH = 1.5  # the cost with 1,000 others, in units of that with 10


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="samples of ADD and DEL for each number of others (default 50)")
    parser.add_argument("--live", default="0,10,150,1000", help="how many others are attached (default 0,10,150,1000)")
    parser.add_argument("--pairs", type=int, default=200, help="how many ADD + DEL until all is gone; 0: none (default 200)")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument("--raw", type=Path, help="where all samples go as JSON (default: .cache/bench/<time>-cni.json)")
    parser.add_argument("--write", action="store_true", help="write the tables to bench/RESULTS.md (the section cni)")
    return parser.parse_args()


def measure(hosts: list[Host], live: list[int], rounds: int, pairs: int) -> Results:
    """Take all samples. Raises CommandFailedError."""
    results = Results()
    if pairs:
        for host in hosts:
            results.add(f"{pairs} times {PAIRS}", host.name, host.pairs(pairs))
    for number in live:
        for host in hosts:
            host.ask("fill", number)
        for host in hosts:  # all at once
            host.answer()
        for round_number in range(-2, rounds):  # the first two are not counted: caches fill
            turn = round_number % len(hosts)
            for host in hosts[turn:] + hosts[:turn]:
                added, deleted = host.attachment()
                if round_number >= 0:
                    results.add(f"ADD, {number} others", host.name, added)
                    results.add(f"DEL, {number} others", host.name, deleted)
        for host in hosts:
            host.ask("settled")
            host.answer()
    return results


def _kind(operation: str) -> str:
    return PAIRS if operation.endswith(PAIRS) else operation.partition(",")[0]


def ratios(results: Results) -> str:
    """Each of ours against the reference, with its budget."""
    rows = []
    for operation, taken in results.samples.items():
        for name in taken:
            budget = next((most for (who, what), most in BUDGETS.items() if who == name and what == _kind(operation)), None)
            theirs = results.value(operation, "wall", "reference")
            mine = results.value(operation, "wall", name)
            if budget is None or mine is None or not theirs:
                continue
            ratio = mine / theirs
            rows.append([operation, name, f"{mine:.1f}", f"{theirs:.1f}", f"{ratio:.2f}", *verdict(ratio, budget)])
    return (
        table(["", "", "ms", "reference", "ratio", "budget", ""], rows) if rows else "No ratios: the reference was not measured."
    )


def growth(results: Results) -> str:
    """What 1,000 others cost, beside 10."""
    rows = []
    for verb in ("ADD", "DEL"):
        few, many = (results.samples.get(f"{verb}, {number} others", {}) for number in (10, 1000))
        for name in few.keys() & many.keys():
            small, large = (statistics.median(one.wall for one in samples[name]) for samples in (few, many))
            ratio = large / small
            rows.append([verb, name, f"{small:.1f}", f"{large:.1f}", f"{ratio:.2f}", *verdict(ratio, GROWTH)])
    return table(["", "", "10 others", "1,000", "ratio", "budget", ""], sorted(rows)) if rows else ""


def main() -> int:
    """Measure, print, keep the raw numbers."""
    options = arguments()
    if os.geteuid():
        sys.exit("bench/cni.py needs root")
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in CONTESTANTS]
    if unknown:
        sys.exit(f"no such contestant: {', '.join(unknown)}")
    isolation = entered()  # where the reference is fetched and built is outside of it
    started = time.monotonic()
    hosts: list[Host] = []
    try:
        for name in chosen:
            hosts.append(Host(name, CONTESTANTS[name]))
        results = measure(hosts, [int(one) for one in options.live.split(",") if one], options.rounds, options.pairs)
    except CommandFailedError as err:
        sys.exit(f"stopped, as a call failed: {err}")
    finally:
        for host in hosts:
            host.close()
        isolation.leave()
    head = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {options.rounds} rounds"
    text = "\n\n".join(part for part in (head, times(results), ratios(results), growth(results)) if part) + "\n"
    print(text)
    raw = options.raw or ROOT / ".cache" / "bench" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-cni.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    samples: dict[str, dict[str, list[dict[str, float]]]] = {
        operation: {name: [asdict(item) for item in items] for name, items in taken.items()}
        for operation, taken in results.samples.items()
    }
    raw.write_text(json.dumps({"head": head, "samples": samples}))
    print(f"\nraw numbers: {raw}; {time.monotonic() - started:.0f} s")
    if options.write:
        print("written:", write("cni", f"## cni\n\n{text}"), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
