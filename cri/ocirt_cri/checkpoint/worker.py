"""The process that has CRIU dump a container and packs what comes of it: it waits long for both.

    {"runtime": DIR, "id": ID, "spec": PATH, "texts": {NAME: TEXT}, "log": PATH, "upper": DIR, "lowers": [DIR, …],
     "to": PATH, "work": DIR, "parent": PID}
    {"done": true}, or {"error": {…}}       as `ocirt.zygote.wire` has errors

The archive is there as a whole or not at all. It ends with the daemon: the next one lets the container go on, and what would be
read of it then is of another moment. CRIU sees the end of its socket, and puts things back before it ends; killed, it would lose
the container (see ocirt.criu.service).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from typing import Any

from ocirt import jsonlite
from ocirt.containers.checkpoint import checkpoint
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel.process import prctl
from ocirt.zygote import wire
from ocirt_cri.checkpoint import archive
from ocirt_cri.spawned import be_killed_first

# The container lives on; its connections and locks are its own affair.
_FLAGS: dict[str, Any] = {"leave-running": True, "tcp-established": True, "file-locks": True, "ext-unix-sk": True}


def serve(fd: int) -> None:
    """Do it once. Never returns."""
    be_killed_first()
    prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=fd) as channel:
        data = b""
        while not data.endswith(b"\n"):
            more = channel.recv(1 << 20)
            if not more:
                os._exit(1)
            data += more
        asked = json.loads(data)
        if os.getppid() != asked["parent"]:  # it was gone before the signal was asked for
            os._exit(1)
        channel.sendall(json.dumps(_answer(asked)).encode() + b"\n")
    os._exit(0)


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        make(asked)
    except Error as err:
        return wire.from_error(err)
    except OSError as err:
        return wire.from_error(Error("kernel", f"cannot be written: {err.strerror}", subject=str(err.filename or asked["to"])))
    return {"done": True}


def make(asked: dict[str, Any]) -> None:
    """Dump and pack. Raises Error, OSError."""
    to: str = asked["to"]
    with open(asked["spec"], "rb") as file:
        text = file.read()
    spec = jsonlite.loads(text, "config.json", any_bytes=True)
    work: str = asked["work"]
    images = f"{work}/images"
    os.mkdir(work, 0o700)
    try:
        os.mkdir(images, 0o700)
        try:
            checkpoint(asked["runtime"], asked["id"], {**_FLAGS, "image-path": images, "work-path": ""}, spec)
        except Error as err:
            raise _explained(err) from None
        texts = {"spec.dump": text} | {name: value.encode() for name, value in asked["texts"].items()}
        archive.write(f"{work}/archive", images, texts, asked["log"], asked["upper"], asked["lowers"])
        os.rename(f"{work}/archive", to)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _explained(err: Error) -> Error:
    """CRIU's failure; where it does not work on this kernel at all, that."""
    if err.code != "kernel":
        return err
    done = subprocess.run(["criu", "check"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == 0:
        return err
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").splitlines()
    return Error("unsupported", "CRIU does not work on this kernel", cause=lines[0] if lines else "criu check says no")
