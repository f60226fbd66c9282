"""ocirt: an OCI runtime as a command and as a library.

The library's names are loaded when they are first asked for, as the command needs none of them.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.errors import Error as Error
    from ocirt.library.config import Options as Options
    from ocirt.library.config import bind as bind
    from ocirt.library.config import config as config
    from ocirt.library.config import host_python as host_python
    from ocirt.library.config import tmpfs as tmpfs
    from ocirt.library.container import Bundle as Bundle
    from ocirt.library.container import Container as Container
    from ocirt.library.container import State as State
    from ocirt.library.process import DEVNULL as DEVNULL
    from ocirt.library.process import PIPE as PIPE
    from ocirt.library.process import STDOUT as STDOUT
    from ocirt.library.process import CalledProcessError as CalledProcessError
    from ocirt.library.process import CompletedProcess as CompletedProcess
    from ocirt.library.process import TimeoutExpired as TimeoutExpired
    from ocirt.library.run import run as run
    from ocirt.zygote.client import close as close

# Where each name lives.
_NAMES = {
    "Bundle": "library.container",
    "CalledProcessError": "library.process",
    "CompletedProcess": "library.process",
    "Container": "library.container",
    "DEVNULL": "library.process",
    "Error": "errors",
    "Options": "library.config",
    "PIPE": "library.process",
    "STDOUT": "library.process",
    "State": "library.container",
    "TimeoutExpired": "library.process",
    "bind": "library.config",
    "close": "zygote.client",
    "config": "library.config",
    "host_python": "library.config",
    "run": "library.run",
    "tmpfs": "library.config",
}

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _NAMES:
            raise AttributeError(f"module 'ocirt' has no attribute {name!r}")
        found: object = getattr(__import__("ocirt." + _NAMES[name], None, None, (name,)), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
