"""`ocirt run --image`: a container of an image, without a bundle of the caller's.

The floor of images makes the bundle, in a mount namespace that this process enters for it. Nothing here is loaded for a bundle
that is there.
"""

from __future__ import annotations

import posix

from ocirt.cli import elsewhere
from ocirt.cli.run import run_bundle
from ocirt.cli.target import made_up_id
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Run a container of `--image`, with args[:] in place of the image's command. The exit status is its process's, or pull's.

    An image that is not here is pulled first. An attached container's bundle goes with it; a detached one's goes with `ocirt
    prune`, when the container is deleted. Raises Error, OSError, with nothing left.
    """
    image = options.get("image")
    if not image:
        raise Error("usage", "--image names no image")
    for flag in ("bundle", "config"):
        if options.given(flag):
            raise Error("usage", f"--{flag} and --image: a container has one bundle, and an image makes its own")
    if options.get("detach") and posix.geteuid() != 0:
        hint = f"ocirt bundle {image} DIRECTORY, and run that"
        raise Error("unsupported", "--detach and --image without root: no other process could enter the container", hint=hint)
    command = args[1:] if args[:1] == ["--"] else args
    if not options.given("tty"):
        # As for `ocirt bundle`: what an image runs by itself is often a shell.
        options.set("tty", not command and not options.get("detach") and posix.isatty(0) and posix.isatty(1))
    state = elsewhere.call("images", "run", "state", options)
    if state != "unpacked" and (status := _bring(options, image, loaded=state == "loaded")):
        return status
    container_id = options.get("name") or made_up_id(_short(image))
    state_root = options.root  # before this process becomes another user
    prepared: Any = elsewhere.call("images", "run", "prepare", options, command, container_id, state_root)
    options.set("bundle", str(prepared.bundle))
    kept = False
    try:
        status = run_bundle(options, [container_id], prepared.release)
        kept = bool(options.get("detach") or options.get("keep"))
    finally:
        if not kept:
            _remove(options, prepared)
    return status


def _remove(options: Options, prepared: Any) -> None:
    """Remove a container's bundle. What goes wrong with that is not the container's failure, and `prune` tries it again."""
    try:
        prepared.remove()
    except Exception as err:  # noqa: BLE001  (errors of the other floor, and the system's)
        from ocirt.cli import log  # noqa: PLC0415

        log.write(options, "warning", f"{prepared.bundle} is left: {log.describe(err)}; ocirt prune removes it")


def _bring(options: Options, image: str, *, loaded: bool) -> int:
    """Have a child pull or unpack it: that takes threads, and this process has to stay without. Its exit status."""
    child = posix.fork()
    if not child:
        status = 1
        try:
            posix.dup2(2, 1)  # standard output is the container's alone
            if loaded:
                elsewhere.call("images", "run", "unpack_here", options)
                status = 0
            else:
                options.set_verb("pull", elsewhere.tables("images").VERBS["pull"][2], {})
                status = elsewhere.run(options, [image])
        except Exception as err:  # noqa: BLE001  (whatever it is, one line goes out)
            from ocirt.cli import log  # noqa: PLC0415

            log.failure(options, err)
        finally:
            posix._exit(status)
    return posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])


def _short(image: str) -> str:
    """The last part of a reference, without tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0] or "container"
