"""The power fails while there is a store of images, in a virtual machine: what `pull` said was there is there.

    python tests/vm/power.py [--seconds N]

The store lies on a disk of the machine's own, whose power is cut (QEMU is killed) right after `ocirt pull` returned, and again
in the middle of another pull. After each cut the machine boots anew: the file system replays its journal, `ocirt fsck` finds
nothing, the image runs, with each of its bytes. The pull that was cut goes on. That the test could fail is shown by a pull with
--no-sync, which the cut has to damage. Needs what run.py needs, and e2fsprogs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZE = 1 << 30  # bytes of the disk, most of which are never written
# How a machine's life is called in power_guest.py, and the word at which its power fails ("": it ends by itself).
LIVES = {
    "a pull is done": (("pull one", "PULLED"), ("check one", "")),
    "a pull is under way": (
        ("pull one", "PULLED"),
        ("pull two", "HALF"),
        ("open one", ""),
        ("again two", "PULLED"),
        ("check two", ""),
    ),
    "a pull that does not sync is done": (("loose one", "PULLED"), ("lost one", "")),
}


def boot(disk: Path, what: str, word: str, seconds: int) -> int:
    """One life of the machine. Its exit code; 137 if the power failed."""
    command = [sys.executable, str(HERE / "run.py"), "--seconds", str(seconds), "--disk", str(disk)]
    if word:
        command += ["--cut-at", word]
    # The guest has the interpreter and the libraries of the tests.
    command.append(f"PYTHONPATH=images build/venv/bin/python -m tests.vm.power_guest {what}")
    return subprocess.run(command, cwd=HERE.parents[1], check=False).returncode


def main() -> int:
    """The command line: 0 if all lives went as they should."""
    parser = argparse.ArgumentParser(description="Cut the power of a machine that pulls images.")
    parser.add_argument("--seconds", type=int, default=900, help="how long one life may take")
    seconds = parser.parse_args().seconds
    for name, lives in LIVES.items():
        with tempfile.TemporaryDirectory(prefix="ocirt-power-", dir="/var/tmp") as work:
            disk = Path(work) / "disk"
            with disk.open("wb") as file:
                file.truncate(SIZE)
            subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
            for what, word in lives:
                print(f"{name}: {what}" + (f", cut at {word}" if word else ""), flush=True)
                code = boot(disk, what, word, seconds)
                if code != (137 if word else 0):
                    print(f"{name}: {what}: exit code {code}", file=sys.stderr)
                    return 1
    print("all is there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
