"""Measure the layer applier beside GNU tar: `python bench/apply.py [--rounds N] [--size MB]`, as root.

A layer of this machine's own files, as tar, gzip and zstd. GNU tar hashes nothing; we hash what is inflated, and run in a
sandbox. In each round both take their turn, and who begins changes. Any failure ends the measurement, a wrong digest too.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "images")]

from bench.run import machine  # noqa: E402
from ocirt_images.apply.worker import Job, Workers  # noqa: E402
from ocirt_images.digest import Digest  # noqa: E402

SUFFIXES = {"": "tar", "gzip": "tar.gz", "zstd": "tar.zst"}
COMPRESSORS = {"gzip": ["gzip", "-6"], "zstd": ["zstd", "-q", "-3"]}
Taken = tuple[float, float]  # seconds: wall, CPU


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="samples of each (default 5)")
    parser.add_argument("--size", type=int, default=200, help="megabytes of files in the layer (default 200)")
    parser.add_argument("--source", type=Path, default=Path("/usr"), help="where the files come from (default /usr)")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="where to unpack to (default /var/tmp)")
    return parser.parse_args()


def choose(source: Path, size: int) -> list[str]:
    """Files of about `size` bytes in total, the same ones each time, in the order in which tar would find them."""
    found = []
    for place, _, files in os.walk(source):
        for name in files:
            path = os.path.join(place, name)
            length = os.lstat(path).st_size
            if length < 32 << 20:
                found.append((path, length))
    random.Random(1).shuffle(found)
    chosen, total = [], 0
    for path, length in found:
        if total >= size:
            break
        chosen.append(path)
        total += length
    return sorted(chosen)


def make(work: Path, options: argparse.Namespace) -> Path:
    """The layer, compressed in each way."""
    layer = work / "layer.tar"
    names = choose(options.source, options.size << 20)
    command = ["tar", "-cPf", str(layer), "--no-recursion", "--transform=s,^/,,", "--verbatim-files-from", "-T", "-"]
    subprocess.run(command, input="\n".join(names).encode(), check=True)
    for kind, compressor in COMPRESSORS.items():
        with layer.open("rb") as source, (work / f"layer.{SUFFIXES[kind]}").open("wb") as target:
            subprocess.run(compressor, stdin=source, stdout=target, check=True)
    return layer


class Ours:
    """One server, as a pull would have it; a job is one layer."""

    def __init__(self, workers: Workers, diff_id: Digest) -> None:
        self._workers = workers
        self._diff_id = diff_id
        self.inodes = 0

    def __call__(self, layer: Path, kind: str, target: Path) -> Taken:
        """Apply a layer."""
        cpu = self._cpu()
        begin = time.perf_counter()
        job = Job(source=layer, target=target, compression=kind, diff_id=self._diff_id)
        self.inodes = self._workers.apply(job).result().inodes
        return time.perf_counter() - begin, self._cpu() - cpu

    def _cpu(self) -> float:
        """What the workers that have ended used; the server adds them up."""
        server = self._workers._server  # there is no other way to its process
        if server is None:
            return 0.0
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def gnu_tar(layer: Path, kind: str, target: Path) -> Taken:
    """The same by GNU tar."""
    option = {"": [], "gzip": ["--gzip"], "zstd": ["--zstd"]}[kind]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(["tar", "-xpf", str(layer), *option, "--same-owner", "--numeric-owner", "-C", str(target)], check=True)
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure, and print a table."""
    options = arguments()
    if os.geteuid():
        sys.exit("bench/apply.py needs root")
    work = Path(tempfile.mkdtemp(prefix="ocirt-bench-", dir=options.place))
    try:
        layer = make(work, options)
        length = layer.stat().st_size
        with layer.open("rb") as file, Workers(1) as workers:
            hasher = Digest.of(b"").hasher()
            while piece := file.read(1 << 20):
                hasher.update(piece)
            ours = Ours(workers, Digest.from_hash(hasher))
            print(machine())
            for kind, suffix in SUFFIXES.items():
                report(kind or "tar", length, ours, *measure(work, work / f"layer.{suffix}", kind, ours, options.rounds))
    finally:
        # All at once, at the end: ext4 looks long for a place when many files have just been removed.
        shutil.rmtree(work)
    return 0


def measure(work: Path, layer: Path, kind: str, ours: Ours, rounds: int) -> tuple[list[Taken], list[Taken]]:
    """Samples of ours and of GNU tar's."""
    sides: list[tuple[Callable[[Path, str, Path], Taken], list[Taken]]] = [(ours, []), (gnu_tar, [])]
    for number in range(-1, rounds):  # the first is not counted
        for which in (number % 2, 1 - number % 2):
            side, taken = sides[which]
            target = work / f"{kind}.{number}.{which}"
            target.mkdir()
            sample = side(layer, kind, target)
            if number >= 0:
                taken.append(sample)
    return sides[0][1], sides[1][1]


def report(kind: str, length: int, ours: Ours, mine: list[Taken], theirs: list[Taken]) -> None:
    """One line of the table."""
    texts = []
    figures = []
    for name, taken in (("ocirt", mine), ("GNU tar", theirs)):
        wall, cpu = (median(one[at] for one in taken) for at in (0, 1))
        best = min(one[0] for one in taken)
        figures.append((wall, best, cpu))
        speeds = f"{length / 1e6 / wall:4.0f} MB/s (best {length / 1e6 / best:4.0f})"
        texts.append(f"{name} {speeds}, {cpu / ours.inodes * 1e6:3.0f} µs CPU an inode")
    wall, best, cpu = (one / other for one, other in zip(*figures, strict=True))
    ratios = f"wall {wall:.2f}, best {best:.2f}, CPU {cpu:.2f}"
    print(f"{kind:5} {length / 1e6:.0f} MB, {ours.inodes} inodes: {'; '.join(texts)}; {ratios}")


if __name__ == "__main__":
    sys.exit(main())
