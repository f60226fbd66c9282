"""The zygote of a node: an interpreter that has loaded all that a shim needs, and forks one for each pod's containers.

It is executed by ocirtd as `command` says, with descriptors 3 (the control socket, SOCK_SEQPACKET, over which connections come)
and 4 (a pidfd of ocirtd), and a pipe as standard error, which is read only until the zygote says that it is ready. It ends with
ocirtd; shims do not.

A connection that came begins with a message of `ocirt.zygote.wire`: what the fork is to be (`KINDS`). The fork answers
{"at": PID} when it is that, and from then on the connection is the fork's own.
"""

from __future__ import annotations

import posix
import sys

from ocirt import spans
from ocirt.errors import Error
from ocirt.kernel import messages
from ocirt.zygote import main as warm
from ocirt.zygote import wire
from ocirt.zygote.work import Talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CONTROL, OWNER, READY = warm.CONTROL, warm.OWNER, warm.READY
_BOOT = "import sys; sys.path += sys.argv[1].split(':'); import ocirt_shim.hot; from ocirt_shim.zygote import main; main()"
_FLAGS = ("-I", "-S", "-B", "-X", "utf8", "-c", _BOOT)
# What the library's zygote does not load. What is missing here is loaded in a shim, which costs memory in each.
_PRELOADED = (
    *("ocirt.containers." + name for name in ("create", "execute", "start")),
    *("ocirt.plan." + name for name in ("execute", "overlay")),
    *("ocirt.kernel.steps." + name for name in ("console", "idmap", "overlay")),
    *("ocirt." + name for name in ("cli.log", "spec.whole")),
    *("ocirt_shim." + name for name in ("foreign", "remote.session", "remote.forward")),
)
_STEP, _LARGEST_BLOCK, _POOL, _HEAD_OF_BYTES = 16, 512, 1 << 14, 33
_plugs: list[bytes] = []
_modules: dict[str, Any] = {}  # what the zygote alone has loaded: an import in a fork, though it finds all there, copies pages


def command(python: str, homes: list[str]) -> list[str]:
    """How it is executed: `python` is an interpreter, `homes` the folders with `ocirt`, `ocirt_api`, `ocirt_shim` and others."""
    return [python, *_FLAGS, ":".join(homes), python, warm.BARE]


def main() -> None:
    """Never returns: the process ends with its owner."""
    _, homes, python, stage = sys.argv
    if stage == warm.BARE:
        warm._leave_the_owner()
        from ocirt.zygote import protect  # noqa: PLC0415  (gone after the next exec)

        if protect.needed(python):
            protect.execute(python, [python, *_FLAGS, homes, python, warm.PROTECTED])
    for fd in (CONTROL, OWNER):
        posix.set_inheritable(fd, False)
    _load(homes)
    from ocirt.zygote import server  # noqa: PLC0415  (with byte code, which `load` may look for)
    from ocirt.zygote import work as library  # noqa: PLC0415

    _modules["rehearsal"].rehearse()
    _fill_holes()
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    messages.send(CONTROL, READY)
    posix.dup2(null, 2)
    posix.close(null)
    # None in the spare: the fork in advance becomes a shim, and what it touched would be its own memory for ever.
    server.serve(CONTROL, OWNER, lambda fd: work(fd, OWNER), library.refuse, lambda: None)
    posix._exit(0)


def _load(homes: str) -> None:
    import gc  # noqa: PLC0415

    gc.disable()
    for name in _PRELOADED:
        try:
            __import__(name)
        except ModuleNotFoundError as err:
            if err.name != name:
                raise
    warm.load(homes.split(":", maxsplit=1)[0])
    from ocirt_shim import children, executor, rehearsal, shims  # noqa: PLC0415  (with byte code, which `load` may look for)

    _modules.update(children=children, executor=executor, rehearsal=rehearsal, shims=shims)


def _fill_holes() -> None:
    """Use up the small blocks that loading has left free between others, in pages that forks then write to for each of them.

    A fork's own objects then come to lie side by side, in pages that it has to write to anyway. (Objects/obmalloc.c: blocks of up
    to 512 bytes, by size in steps of 16, come from pools of 16 KiB.)
    """
    for size in range(3 * _STEP, _LARGEST_BLOCK + 1, _STEP):
        in_a_row, last = 0, 0
        while True:
            block = bytes(size - _HEAD_OF_BYTES)
            if id(block) == last + size:
                in_a_row += 1
            elif in_a_row >= _POOL // size - 2:
                break  # the first of a fresh pool, after one that was filled from its beginning: that is free again
            else:
                in_a_row = 0
            last = id(block)
            _plugs.append(block)


def work(fd: int, owner: int) -> None:
    """Become what is asked for over a connection."""
    talk = Talk(fd, owner)
    asked = talk.receive()
    if asked is None:
        return
    try:
        kind = KINDS.get(str(asked.get("do")))
        if kind is None:
            raise Error("internal", f"no kind of fork: {asked.get('do')}", subject="zygote")
        kind(talk, asked)
    except Error as err:
        talk.send(wire.from_error(err))
    except OSError as err:
        from ocirt.cli.log import describe  # noqa: PLC0415  (only for a failure)

        talk.send(wire.from_error(Error("kernel", describe(err))))


def _shim(talk: Talk, asked: dict[str, Any]) -> None:
    _modules["children"].become(b"ocirt-shim")
    shims = _modules["shims"].Shims()
    shim = shims.add(asked)
    talk.send({"at": posix.getpid()})
    shim.wait()
    posix.close(talk.owner)  # it outlives that
    shim.adopt(posix.dup(talk.fd))
    shims.serve()


def _executor(talk: Talk, asked: dict[str, Any]) -> None:
    _modules["children"].become(b"ocirt-executor")
    spans.to(asked.get(spans.KEY, ""))
    executor = _modules["executor"].Executor(asked["runtime"])
    talk.send({"at": posix.getpid()})
    posix.close(talk.owner)  # a program that runs may outlive that
    executor.serve(posix.dup(talk.fd))


def _serve(talk: Talk, asked: dict[str, Any]) -> None:
    """What the owner has of its own: `serve(connection, owner, asked)` of the module that it names."""
    module = __import__(asked["module"], None, None, ("serve",))
    talk.send({"at": posix.getpid()})
    module.serve(talk.fd, talk.owner, asked)


KINDS: dict[str, Callable[[Talk, dict[str, Any]], None]] = {"executor": _executor, "serve": _serve, "shim": _shim}
