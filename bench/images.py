"""Pull and unpack images of real files, beside containerd and skopeo + umoci: `python bench/images.py --help`.

One registry on loopback serves all. In each round all take their turn, each into an empty store on a file system that was made
for it (files that were just removed make an ext4 slow), and who begins changes. What is synchronised to the disk is not the same
everywhere, so it is stated, and measured both ways:

- as they come: ocirt has everything on disk when it returns (fsync of blobs, syncfs of layers, then the row); containerd has
  synchronised the blobs, not the layers; skopeo and umoci nothing
- at rest: after each, syncfs(2) of the file system, which counts: everything is on disk for all
- nobody waits for the disk: `ocirt pull --no-sync` beside the others as they come
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.imagefiles import SHAPES, make, push, registry  # noqa: E402
from bench.report import table, verdict  # noqa: E402
from bench.run import machine, write  # noqa: E402

TARGETS = {"8 gzip layers": 0.5, "1 gzip layer": 0.6, "8 zstd layers": 0.6}
MEMORY = 200.0  # MiB
PRESENT = 50.0  # ms of a pull with nothing to do, after the start: that is what a pull takes whose name is none
ALONE = "OCIRT_BENCH_ALONE"  # set once the mounts are nobody else's


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of files in the image (default 1024)")
    parser.add_argument("--rounds", type=int, default=3, help="pulls by each (default 3)")
    parser.add_argument("--only", default="", help="shapes, separated by semicolons (default: all of them)")
    parser.add_argument("--ocirt", default=str(ROOT / "build" / "ocirt"), help="the command")
    parser.add_argument("--containerd", type=Path, help="a directory with containerd and ctr (default: built from its Go module)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench" / "images", help="where the images are kept")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the stores go: a file system for overlayfs")
    parser.add_argument("--write", action="store_true", help="write the tables to bench/RESULTS.md (the section images)")
    return parser.parse_args()


class Disk:
    """A file system that is made anew for each pull, in the mount namespace that this program has entered."""

    def __init__(self, work: Path, name: str, size: int = 16 << 30) -> None:
        self.file = work / f"{name}.disk"
        self.place = work / name
        self.size = size
        self.place.mkdir()

    def fresh(self) -> None:
        """An empty file system, with nothing of it waiting to be written."""
        self.gone()
        with self.file.open("wb") as file:
            file.truncate(self.size)
        quiet = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", str(self.file)]
        subprocess.run(quiet, check=True)
        subprocess.run(["mount", "-o", "loop,noinit_itable", str(self.file), str(self.place)], check=True)
        subprocess.run(["sync", "-f", str(self.file)], check=True)

    def gone(self) -> None:
        """Remove it."""
        if self.place.is_mount():
            subprocess.run(["umount", str(self.place)], check=True)
        self.file.unlink(missing_ok=True)


@dataclass
class Side:
    """One of those that are measured."""

    name: str
    disk: Disk
    pull: Callable[[str], list[list[str]]]  # the commands that pull an image
    start: Callable[[], None] = lambda: None
    stop: Callable[[], None] = lambda: None
    taken: dict[str, list[float]] = field(default_factory=dict)

    def fresh(self) -> None:
        """Begin with an empty store."""
        self.stop()
        self.disk.fresh()
        self.start()

    def gone(self) -> None:
        """Leave nothing."""
        self.stop()
        self.disk.gone()


class Memory(threading.Thread):
    """The greatest sum of PSS of a process and all that it started, looked at every 50 ms, in MiB; and how many there were."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak = 0.0
        self.processes = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look until told to end."""
        while not self.ended.wait(0.05):
            pids = [self.pid, *descendants(self.pid)]
            self.processes = max(self.processes, len(pids))
            self.peak = max(self.peak, sum(map(proportional, pids)) / 1024)


def descendants(pid: int) -> Iterator[int]:
    """The children of a process, and theirs."""
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                    yield int(child)
                    yield from descendants(int(child))


def proportional(pid: int) -> int:
    """PSS in KiB, 0 for a process that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def run(commands: list[list[str]], *, at_rest: Path | None = None) -> float:
    """Seconds that commands take, one after the other. Any that fails ends the whole measurement."""
    begin = time.perf_counter()
    for command in commands:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stdout.decode(errors='replace')[-2000:]}")
    if at_rest is not None:
        subprocess.run(["sync", "-f", str(at_rest)], check=True)
    return time.perf_counter() - begin


def started(side: Side) -> float:
    """Milliseconds until the client has loaded all that it needs, and refuses a name."""
    [command] = side.pull("UPPER CASE")
    taken = []
    for _ in range(11):
        begin = time.perf_counter()
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        taken.append(time.perf_counter() - begin)
        if not done.returncode:
            sys.exit(f"{' '.join(command)}: it succeeds")
    return median(taken) * 1000


def containerd(programs: Path, work: Path) -> Side:
    """A containerd, whose store and state are on its disk."""
    disk = Disk(work, "containerd")
    socket, config = work / "containerd.sock", work / "containerd.toml"
    disabled = [
        "io.containerd.grpc.v1.cri",
        "io.containerd.cri.v1.images",
        "io.containerd.cri.v1.runtime",
        "io.containerd.nri.v1.nri",
    ]
    config.write_text(
        f'version = 2\nroot = "{disk.place}/root"\nstate = "{disk.place}/state"\ndisabled_plugins = {json.dumps(disabled)}\n'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
    )
    ctr = [str(programs / "ctr"), "--address", str(socket)]
    daemons: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (work / "containerd.log").open("wb") as log:
            daemons.append(subprocess.Popen([str(programs / "containerd"), "--config", str(config)], stdout=log, stderr=log))
        for _ in range(200):
            if subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)
        sys.exit(f"containerd does not answer: {(work / 'containerd.log').read_text()[-1000:]}")

    def stop() -> None:
        while daemons:
            daemons[-1].terminate()
            daemons.pop().wait()

    return Side("containerd", disk, lambda name: [[*ctr, "images", "pull", "--plain-http", "--local", name]], start, stop)


def ours(command: str, work: Path, *flags: str) -> Side:
    """The command of this project."""
    disk = Disk(work, "ocirt" + "".join(flags))
    argv = [command, "--image-root", str(disk.place / "images"), "pull", "--quiet", *flags]
    return Side(" ".join(("ocirt", *flags)), disk, lambda name: [[*argv, name]])


def skopeo(work: Path) -> Side:
    """skopeo copies, umoci unpacks."""
    disk = Disk(work, "skopeo")
    layout, bundle = disk.place / "layout", disk.place / "bundle"

    def pull(name: str) -> list[list[str]]:
        copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:latest"]
        return [copy, ["umoci", "raw", "unpack", "--image", f"{layout}:latest", str(bundle)]]

    return Side("skopeo + umoci", disk, pull)


def unpacks(shape: str) -> bool:
    """Whether the umoci that is here unpacks layers so compressed: it knows zstd since 0.5."""
    version = subprocess.run(["umoci", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", version)
    return "zstd" not in shape or (found is not None and (int(found[1]), int(found[2])) >= (0, 5))


def compare(sides: list[Side], shape: str, name: str, rounds: int, *, at_rest: bool) -> None:
    """All rounds of one shape; the times go to the sides."""
    for number in range(rounds):
        turn = number % len(sides)
        for side in sides[turn:] + sides[:turn]:
            side.fresh()
            side.taken.setdefault(shape, []).append(run(side.pull(name), at_rest=side.disk.place if at_rest else None))
            side.gone()


def compared(sides: list[Side], shapes: list[str], judged: Side) -> str:
    """Medians and ratios to containerd. judged: who has as much on disk as containerd, which is what the budgets are for."""
    base = next(side for side in sides if side.name == "containerd")
    rows = []
    for shape in shapes:
        for side in sides:
            if not (times := side.taken.get(shape)):
                continue
            ratio = median(times) / median(base.taken[shape])
            last = verdict(ratio, TARGETS[shape]) if side is judged else ["", ""]
            rows.append([shape, side.name, f"{min(times):.2f}", f"{median(times):.2f}", f"{ratio:.2f}", *last])
    return table(["", "", "min s", "median", "ratio", "budget", ""], rows)


def peak(side: Side, name: str) -> Memory:
    """A pull with its memory watched."""
    side.fresh()
    [command] = side.pull(name)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    memory = Memory(process.pid)
    memory.start()
    code = process.wait()
    memory.ended.set()
    memory.join()
    if code:
        sys.exit(f"{' '.join(command)}: exit code {code}")
    return memory


def together(side: Side, name: str, count: int = 4) -> float:
    """Seconds until `count` pulls of one image at once, into one empty store, have all ended."""
    side.fresh()
    [command] = side.pull(name)
    begin = time.perf_counter()
    pulls = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in range(count)]
    codes = [one.wait() for one in pulls]
    if any(codes):
        sys.exit(f"{' '.join(command)}, {count} at once: exit codes {codes}")
    return time.perf_counter() - begin


def main() -> int:
    """Measure, and print the tables."""
    options = arguments()
    if os.geteuid():
        sys.exit("bench/images.py needs root")
    if os.environ.get(ALONE) != "1":
        os.execvpe("unshare", ["unshare", "--mount", sys.executable, *sys.argv], {**os.environ, ALONE: "1"})
    shapes = [shape for shape in SHAPES if not options.only or shape in options.only.split(";")]
    programs = options.containerd
    if programs is None:
        from conformance.goprograms import containerd2  # noqa: PLC0415  (it needs pytest)

        programs = containerd2()
    work = Path(tempfile.mkdtemp(prefix="ocirt-bench-", dir=options.work))
    base, we, fast, other = (
        containerd(programs, work),
        ours(options.ocirt, work),
        ours(options.ocirt, work, "--no-sync"),
        skopeo(work),
    )
    say = sys.stderr
    try:
        with registry(work) as host:
            images = {shape: make(options.cache, shape, options.size << 20) for shape in shapes}
            names = {shape: f"{host}/bench/{shape.replace(' ', '-')}:latest" for shape in shapes}
            parts = [f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {options.rounds} rounds"]
            told = []
            for shape, made in images.items():
                push(made, names[shape])
                sizes = [f"{count / 2**20:.0f}" for count in (made.size, sum(made.layers))]
                told.append([shape, str(made.files), *sizes])
            parts.append(table(["", "files", "MiB of layers", "MiB to pull"], told))
            for title, sides, judged, at_rest in (
                ("As they come", [base, we, fast, other], fast, False),
                ("At rest: with syncfs after each", [base, we], we, True),
            ):
                for side in sides:
                    side.taken.clear()
                for shape in shapes:
                    able = [side for side in sides if side is not other or unpacks(shape)]
                    compare(able, shape, names[shape], options.rounds, at_rest=at_rest)
                    print(f"{title}: {shape} done", file=say, flush=True)
                parts += [f"{title}:", compared(sides, shapes, judged)]
            name = names[shapes[0]]
            both = [together(side, name) for side in (base, we)]
            rows = [[f"4 pulls of {shapes[0]} at once (s)", *(f"{one:.2f}" for one in both), "", ""]]
            for shape in shapes:
                memory = peak(we, names[shape])
                label = f"memory, {shape} (MiB, in {memory.processes} processes at most)"
                rows.append([label, "", f"{memory.peak:.0f}", *verdict(memory.peak, MEMORY)])
            idle = []
            for side in (base, we):
                side.fresh()
                run(side.pull(name))
                idle.append(median(run(side.pull(name)) for _ in range(11)) * 1000)
            rows.append(["all present (ms)", *(f"{one:.0f}" for one in idle), "", ""])
            after = [took - started(side) for side, took in zip((base, we), idle, strict=True)]
            rows.append(["the same after the start (ms)", *(f"{one:.0f}" for one in after), *verdict(after[1], PRESENT)])
            parts.append(table(["", "containerd", "ocirt", "budget", ""], rows))
            text = "\n\n".join(parts) + "\n"
            print(text)
            if options.write:
                print("written:", write("images", f"## images\n\n{text}"), file=say)
    finally:
        for side in (base, we, fast, other):
            side.gone()
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
