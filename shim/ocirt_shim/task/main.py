"""`containerd-shim-ocirt-v2`: what containerd executes to start a shim, to clean up behind one, and to be told what this is.

Standard output is for the answer alone, and what goes wrong is one line on standard error: containerd reads both.
"""

from __future__ import annotations

import posix
import sys

import ocirt
from ocirt import jsonlite, paths
from ocirt.cli import out
from ocirt.errors import Error
from ocirt_shim.task import bootstrap
from ocirt_shim.task.bootstrap import Asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 10 << 20  # bytes of standard input
_SIGKILL = 9
_CONFIG = 64 << 20  # bytes of a config.json
FEATURES = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"


def main(name: str, arguments: list[str]) -> None:
    """Does not return."""
    try:
        sys.exit(_run(name, arguments))
    except Error as err:
        text = str(err)
    except OSError as err:
        from ocirt.cli.log import describe  # noqa: PLC0415  (only for a failure)

        text = describe(err)
    out(f"{name}: {text}\n", 2)
    sys.exit(1)


def _run(name: str, arguments: list[str]) -> int:
    environment = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in posix.environ.items()}
    asked = bootstrap.read(arguments, environment)
    if asked.version:
        out(f"{name}:\n  Version:  {ocirt.__version__}\n  Revision: v{ocirt.__version__}\n")
        return 0
    if asked.info:
        _write(info(_input()))
        return 0
    bootstrap.check(asked)
    if asked.action == "delete":
        from ocirt_shim.task.cleanup import clean_up  # noqa: PLC0415

        _write(clean_up(asked, asked.bundle or posix.getcwd()).encode())
        return 0
    bootstrap.take_input(asked, _input())
    _write(start(asked))
    return 0


def start(asked: Asked) -> bytes:
    """Start a shim for the bundle in the working directory, or find that of its group: what is to be printed.

    Raises Error, OSError.
    """
    bundle = posix.getcwd()
    path = bootstrap.socket_path(asked, bootstrap.group(asked, _annotations(bundle)))
    from ocirt_shim.task.daemon import listen  # noqa: PLC0415  (with most of what a shim needs)

    daemon = listen(asked, path, bundle)
    address = f"unix://{path}"
    # containerd before 2.0 looks here after a restart, and who cleans up finds the socket.
    paths.write_text(f"{bundle}/address", address, posix.O_CREAT | posix.O_TRUNC, 0o600)
    if daemon is not None:
        pid = daemon.fork()
        try:
            if asked.options.shim_cgroup:
                _place(pid, asked.options.shim_cgroup)
        except (Error, OSError):
            posix.kill(pid, _SIGKILL)
            raise
    return bootstrap.answer(asked, address)


def _annotations(bundle: str) -> Mapping[str, str]:
    document = jsonlite.loads(paths.read_bytes(f"{bundle}/config.json", _CONFIG), "config.json", any_bytes=True)
    found = document.get("annotations") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _place(pid: int, group: str) -> None:
    """Put the shim into a cgroup that is there: of each controller, or the one of version 2. Raises Error("invalid"), OSError."""
    from ocirt.cgroups.layout import detect  # noqa: PLC0415  (seldom)

    found = False
    for mount in {*detect().mounts.values()}:
        try:
            paths.write_text(f"{mount}/{group.strip('/')}/cgroup.procs", str(pid))
            found = True
        except FileNotFoundError:
            continue
    if not found:
        raise Error("invalid", "there is no such cgroup", subject=f"ShimCgroup={group}")


def info(given: bytes) -> bytes:
    """What `-info` prints, a RuntimeInfo. `given`: options in an Any, or nothing. Raises Error("invalid")."""
    from ocirt.cli.features import features  # noqa: PLC0415
    from ocirt_api.messages.google import Any  # noqa: PLC0415
    from ocirt_api.messages.types import RuntimeInfo, RuntimeVersion  # noqa: PLC0415

    options = bootstrap.read_options(given)
    return RuntimeInfo(
        name="io.containerd.ocirt.v2",
        version=RuntimeVersion(version=ocirt.__version__, revision=f"v{ocirt.__version__}"),
        options=Any.of(options) if given else None,
        features=Any(type_url=FEATURES, value=jsonlite.dumps(features()).encode()),
    ).encode()


def _input() -> bytes:
    data = b""
    while len(data) < _LARGEST and (more := posix.read(0, 1 << 16)):
        data += more
    return data


def _write(data: bytes) -> None:
    while data:
        data = data[posix.write(1, data) :]
