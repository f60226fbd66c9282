"""Measure runtimes side by side: `python bench/run.py --help`, and README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.measure import CommandFailedError, Sample, memlock, sample  # noqa: E402
from bench.operations import (  # noqa: E402
    OPERATIONS,
    SLOW,
    Peer,
    count_system_calls,
    memory_held,
    smallest_memory_limit,
)
from bench.report import Results, ratios, singles, times  # noqa: E402
from tests.support.isolation import Isolation, remove_tree  # noqa: E402
from tests.support.runtime import reap_orphans  # noqa: E402

INTERPRETER = "python -I -S"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure ocirt beside runc, crun and the bare interpreter. Needs root.")
    parser.add_argument("--view", choices=("v1", "v2"), default="v2", help="v2: cgroup2 alone in a mount namespace of our own")
    parser.add_argument("--rounds", type=int, default=50, help="samples of each operation and runtime (default 50)")
    parser.add_argument("--only", default="", help="operations, separated by semicolons (default: all; `list` shows them)")
    parser.add_argument("--quick", action="store_true", help="leave out the pipe, the memory search and the system calls")
    parser.add_argument("--ocirt", default=str(ROOT / "build" / "ocirt"), help="a command; empty: not measured")
    parser.add_argument("--runc", default=shutil.which("runc-new") or "runc", help="a command; empty: not measured")
    parser.add_argument("--crun", default="crun", help="a command; empty: not measured")
    parser.add_argument("--python", default="", help="the bare interpreter (default: the one that the launcher starts)")
    parser.add_argument("--raw", type=Path, help="where all samples go as JSON (default: .cache/bench/<time>-<view>.json)")
    parser.add_argument("--write", action="store_true", help="write the tables to bench/RESULTS.md (the section of this view)")
    return parser.parse_args()


def started_by_the_launcher() -> str:
    """The interpreter that the first line of build/ocirt-python names."""
    companion = ROOT / "build" / "ocirt-python"
    return companion.read_text().partition("\n")[0].removeprefix("#!") if companion.exists() else sys.executable


def usable(peer: Peer, results: Results) -> bool:
    """Whether a runtime can run a container in this view at all; if not, its words are kept."""
    for attempt in (1, 2):
        try:
            sample(peer.argv("run", "--bundle", peer.bundle("true"), f"try{attempt}"))
        except CommandFailedError as err:
            if peer.name != "crun":  # it refuses hybrid hierarchies; the others have to work everywhere
                raise
            shutil.rmtree(peer.root, ignore_errors=True)
            if "RLIM_MEMLOCK" in str(err) and attempt == 1:
                peer.command = [*memlock(), *peer.command]
                results.remarks.append(
                    f"{peer.name}: its setrlimit(RLIMIT_MEMLOCK), not allowed here, is made to succeed by a seccomp filter"
                )
                continue
            results.remarks.append(
                f"{peer.name} is left out, it runs no container in this view: {str(err).rpartition('exit code ')[2]}"
            )
            return False
        break
    return True


def measure(peers: list[Peer], interpreter: str, chosen: list[str], rounds: int, quick: bool) -> Results:
    """Take all samples: in each round every operation of every runtime, whose order turns from round to round."""
    results = Results()
    peers[:] = [peer for peer in peers if usable(peer, results)]
    for operation, action in OPERATIONS.items():
        if operation not in chosen:
            continue
        for number in range(-2, rounds):  # the first two are not counted: caches fill
            floor = sample([interpreter, "-I", "-S", "-c", "pass"])
            if number >= 0:
                results.add("start of the interpreter", INTERPRETER, floor)
            turn = number % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                taken = action(peer)
                if number >= 0:
                    for name, item in ({operation: taken} if isinstance(taken, Sample) else taken).items():
                        results.add(name, peer.name, item)
                reap_orphans()
    if quick:
        return results
    for operation, slow in SLOW.items():
        if operation in chosen:
            for _ in range(max(3, rounds // 15)):
                for peer in peers:
                    results.add(operation, peer.name, slow(peer))
    for peer in peers:
        for name, count in count_system_calls(peer).items():
            results.note(f"system calls of {name}", "calls", peer.name, count)
        results.note("held by an attached run", "memory", peer.name, memory_held(peer))
        if peer.view == "v1":
            results.note("smallest memory limit", "memory", peer.name, smallest_memory_limit(peer))
    return results


def machine() -> str:
    """One line about where the figures come from."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    return f"{os.cpu_count()} processors, {model or platform.machine()}, Linux {platform.release()}, load {load}"


def versions(peers: list[Peer]) -> str:
    """The peers' own words about their versions."""
    said = [peer.call("--version").splitlines()[0] for peer in peers]
    return ", ".join(said)


def write(view: str, text: str) -> Path:
    """Put a view's section into RESULTS.md, beside that of the other view."""
    path = ROOT / "bench" / "RESULTS.md"
    sections = {}
    if path.exists():
        for part in path.read_text().split("\n## ")[1:]:
            sections[part.split()[0]] = f"## {part.rstrip()}\n"
    sections[view] = text
    head = "# Results\n\nWritten by the scripts, by `--write`; README.md says how the figures are taken.\n"
    path.write_text("\n".join([head, *(sections[name] for name in sorted(sections))]))
    return path


def main() -> int:
    """Measure, print, keep the raw numbers."""
    options = arguments()
    every = [*OPERATIONS, *SLOW]
    if options.only == "list":
        print("\n".join(every))
        return 0
    chosen = [name.strip() for name in options.only.split(";")] if options.only else every
    unknown = [name for name in chosen if name not in every]
    if unknown:
        sys.exit(f"no such operation: {', '.join(unknown)} (see --only list)")
    if os.geteuid():
        sys.exit("bench/run.py needs root")
    interpreter = options.python or started_by_the_launcher()
    place = Isolation(options.view)
    work = Path(tempfile.mkdtemp(prefix="ocirt-bench-"))
    peers: list[Peer] = []
    for name in ("ocirt", "runc", "crun"):
        command = shlex.split(getattr(options, name))
        if command and shutil.which(command[0]):
            (work / name).mkdir()
            peers.append(Peer(name, command, work / name, place.cgroup_parent, options.view))
        elif command and name == "ocirt":
            sys.exit(f"{command[0]} is not there: run `make` first, or pass --ocirt ''")
    started = time.monotonic()
    everybody = list(peers)
    try:
        results = measure(peers, interpreter, chosen, options.rounds, options.quick)
        head = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {versions(peers)}; {options.rounds} rounds"
    except CommandFailedError as err:
        sys.exit(f"stopped, as a command failed: {err}")
    finally:
        for peer in everybody:
            try:
                peer.close()
            except CommandFailedError as err:
                print(err, file=sys.stderr)
        remove_tree(work)
        place.leave()
    parts = [f"## {options.view}", head, times(results)]
    if results.single:
        parts.append(singles(results))
    parts.append(ratios(results))
    parts += [f"- {remark}" for remark in results.remarks]
    text = "\n\n".join(parts) + "\n"
    print(text)
    raw = options.raw or ROOT / ".cache" / "bench" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{options.view}.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    samples = {
        operation: {name: [asdict(item) for item in items] for name, items in runtimes.items()}
        for operation, runtimes in results.samples.items()
    }
    single = {f"{operation} ({measured})": values for (operation, measured), values in results.single.items()}
    raw.write_text(json.dumps({"head": head, "view": options.view, "samples": samples, "single": single}))
    print(f"raw numbers: {raw}; {time.monotonic() - started:.0f} s")
    if options.write:
        print(f"written: {write(options.view, text)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
