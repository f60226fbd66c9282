"""Measure shims: `build/venv/bin/python bench/shim.py`, as root; it needs `make`.

What one holds is counted in pages, whatever else the machine does. `--pods` shims have a container each. Of one in their middle:
its own pages (private and dirty) and its part of all (PSS) once its container was made, started, one program was run in it, and
`--execs`; and where its own pages lie, by mapping. What a fork costs: from the request to the first word of who takes it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / floor) for floor in ("api", "images", "cni", "shim", "cri"))]

from bench.report import percentile, table  # noqa: E402
from bench.run import machine  # noqa: E402
from tests.support.isolation import Isolation  # noqa: E402
from tests.support.shims import Zygote  # noqa: E402
from tests.system.shim.conftest import Box, Boxes  # noqa: E402

PYTHON = "/usr/bin/python3"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=30, help="how many shims there are (default 30)")
    parser.add_argument("--execs", type=int, default=500, help="how many programs are run in the end (default 500)")
    parser.add_argument("--forks", type=int, default=100, help="samples of a fork (default 100)")
    return parser.parse_args()


def rollup(pid: int) -> dict[str, int]:
    """KiB by name, of all mappings, and the page tables, which count in none."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text() + Path(f"/proc/{pid}/status").read_text()
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def where(pid: int) -> Counter[str]:
    """KiB of its own pages, by what is mapped."""
    found: Counter[str] = Counter()
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            path = words[5] if len(words) > 5 else "Python's objects, threads"
            # The interpreter runs from a mount of its file alone.
            name = "the interpreter's data" if path == "/" else path.rpartition("/")[2] or path
        elif words[0] == "Private_Dirty:":
            found[name] += int(words[1])
    return found


def main() -> int:
    """Measure, print."""
    options = arguments()
    if os.geteuid():
        sys.exit("bench/shim.py needs root")
    isolation, place = Isolation(), Path(tempfile.mkdtemp(prefix="ocirt-"))
    zygote = Zygote(os.path.realpath(PYTHON))
    boxes = Boxes(zygote, place, isolation.cgroup_parent)
    rows: list[list[str]] = []

    def note(what: str, pid: int) -> None:
        found = rollup(pid)
        rows.append([what, *(str(found[name]) for name in ("Private_Dirty", "Pss", "Rss", "VmPTE"))])

    try:
        forks = []
        for number in range(options.forks):
            time.sleep(0.01)  # the spare is there
            begin = time.perf_counter()
            shim = zygote.shim(place, f"f{number}")
            forks.append((time.perf_counter() - begin) * 1000)
            shim.socket.close()
        made: list[Box] = [boxes("sleep", "100000") for _ in range(options.pods)]
        one = made[len(made) // 2]
        note("its container is made", one.shim.pid)
        for box in made:
            box.call("Start")
        note("started", one.shim.pid)
        for box in made:
            box.execute("true")
        time.sleep(0.2)
        note("one program was run", one.shim.pid)
        for _ in range(options.execs - 1):
            one.execute("true")
        time.sleep(0.2)
        note(f"{options.execs} programs were run", one.shim.pid)
        note("the zygote", zygote.pid)
        own = where(one.shim.pid)
    finally:
        boxes.clean_up()
        zygote.close()
        isolation.leave()
    print(f"{machine()}; {options.pods} shims\n")
    print(table(["KiB", "its own", "PSS", "RSS", "page tables"], rows) + "\n")
    print(table(["its own pages", "KiB"], [[name, str(size)] for name, size in own.most_common() if size]) + "\n")
    figures = min(forks), statistics.median(forks), percentile(forks, 99)
    print(
        table(
            ["ms", "n", "min", "median", "p99"], [["a shim from the spare", str(len(forks)), *(f"{one:.2f}" for one in figures)]]
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
