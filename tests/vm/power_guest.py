"""What `power.py` has a machine do in one life: `python -m tests.vm.power_guest VERB IMAGE`.

    pull IMAGE    pull it and say PULLED, or HALF when half of it has come; then wait for the power to fail
    loose IMAGE   the same with --no-sync
    again IMAGE   the same, when an earlier life began it: something has to be there
    check IMAGE   nothing is wrong with the store, and the image runs, with all of its bytes
    open IMAGE    the same, but first the store is opened, which takes away what a pull left that was cut
    lost IMAGE    something is wrong, or the image is not there

A registry of ours runs in this very process. It has the same port in each life, which is a part of the image's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ocirt_images import platforms
from tests.support import images
from tests.support.bundle import make_rootfs
from tests.support.registry import LocalRegistry

ROOT = Path(__file__).resolve().parents[2]
STORE = Path("/mnt/images")
NAME = Path("/mnt/address")  # the registry's first life says where it was
LAYERS = 4
HALF = 2  # layers, of five
SIZE = 3_000_000  # bytes of a layer
SEEDS = {"one": 1, "two": 2}


def image(seed: int) -> images.Image:
    """Busybox, and layers of files that nothing compresses; the same in each life."""
    layers = [images.random_layer(seed * 100 + number, SIZE, files=40) for number in range(LAYERS)]
    with tempfile.TemporaryDirectory() as work:
        box = images.layer(images.tree(make_rootfs(Path(work) / "rootfs")))
    where = {"os": "linux", "architecture": platforms.host().architecture}
    return images.image([box, *layers], platform=where)


def sums(seed: int) -> str:
    """What sha256sum says of the files of an image's random layers."""
    found: dict[str, str] = {}
    for number in range(LAYERS):
        layer = images.random_layer(seed * 100 + number, SIZE, files=40)
        found |= {name: hashlib.sha256(data).hexdigest() for name, data in images.contents(layer.tar).items()}
    return "".join(f"{found[name]}  /{name}\n" for name in sorted(found))


def ocirt(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, on the store."""
    command: list[str | Path] = [ROOT / "build/ocirt", "--image-root", STORE, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def pull(registry: LocalRegistry, name: str, *flags: str, half: bool = False, again: bool = False) -> None:
    """Pull and say so; never returns, unless it fails."""
    whole = f"{registry.address}/app:{name}"
    command = [str(ROOT / "build/ocirt"), "--image-root", str(STORE), "pull", "--json", *flags, whole]
    done: list[str] = []  # how each layer was
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            done += [event["how"]] if event["event"] == "LayerDone" else []
            if half and len(done) == HALF:
                print("HALF", flush=True)
                signal.pause()
    if process.returncode:
        sys.exit(f"pull ends with {process.returncode}")
    if again and done.count("exists") < HALF:
        sys.exit(f"layers that were done are not there: {done}")
    print("PULLED", flush=True)
    signal.pause()


def check(registry: LocalRegistry, name: str) -> str:
    """What is wrong with an image that was pulled, or ""."""
    found = ocirt("fsck")
    if found.returncode or found.stdout:
        return f"fsck: {found.stdout}{found.stderr}"
    script = "busybox sha256sum $(find / -xdev -name 'file-*' | sort)"
    done = ocirt("run", "--image", f"{registry.address}/app:{name}", "--name", "check", "--", "sh", "-c", script)
    if done.returncode:
        return f"run: {done.stdout}{done.stderr}"
    if registry.seen:
        return "it was pulled again"
    return "" if done.stdout == sums(SEEDS[name]) else "files have other bytes"


def main() -> int:
    """The command line."""
    verb, name = sys.argv[1:]
    print("up", flush=True)
    subprocess.run(["mount", "/dev/vda", "/mnt"], check=True)
    port = int(NAME.read_text()) if NAME.exists() else 0
    with contextlib.closing(LocalRegistry(port=port)) as registry:
        if not port:
            NAME.write_text(str(registry.port))
            os.sync()
        if verb in ("pull", "loose", "again"):
            registry.add("app", image(SEEDS[name]), name)
        verbs: dict[str, Callable[[], str | None]] = {
            "pull": lambda: pull(registry, name, half=name == "two"),
            "loose": lambda: pull(registry, name, "--no-sync"),
            "again": lambda: pull(registry, name, again=True),
            "check": lambda: check(registry, name),
            "open": lambda: ocirt("images").stderr or check(registry, name),
            "lost": lambda: (
                "" if check(registry, name) else "nothing is lost: the power was not cut, or nothing needs to be synced"
            ),
        }
        wrong = verbs[verb]()
    if wrong:
        print(wrong, file=sys.stderr)
    subprocess.run(["umount", "/mnt"], check=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
