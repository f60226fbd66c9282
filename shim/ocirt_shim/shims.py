"""The shims of one process: those of a pod's containers, each with its socket and record, beside one loop and one reaper.

What a fork of the zygote writes to is its own, 1.5 MiB, most of it before it has a container. So who makes a pod's second
container asks the shim of its first one for another (`Share`). The process ends with its last shim.
"""

from __future__ import annotations

import gc
import posix

from ocirt_shim.children import Children, next_ended, watch
from ocirt_shim.execs import Executions
from ocirt_shim.loop import Loop
from ocirt_shim.shim import Shim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ocirt_shim.container import StandIn

_SOON = 1_000_000  # nanoseconds


class Shims:
    """None at first; see `add`. common: descriptors that all workers have."""

    def __init__(self, common: Sequence[int] = ()) -> None:
        """Raises OSError."""
        self.loop = Loop()
        self.common = common
        self.children = Children(self.loop, common)
        self.executions = Executions(self.loop, self.children, self.children.employ)
        self._shims: list[Shim] = []
        self._signals = watch(self.loop, self.reap)

    def add(self, asked: dict[str, Any], stand_in: StandIn | None = None) -> Shim:
        """One more. Raises OSError."""
        shim = Shim(asked, self, stand_in)
        self._shims.append(shim)
        return shim

    @property
    def is_shared(self) -> bool:
        """Whether there is more than one, so that none may keep the others waiting."""
        return len(self._shims) > 1

    def serve(self) -> None:
        """Until there is none any more."""
        self.loop.run()

    def ended(self, shim: Shim) -> None:
        """Nothing is left of it."""
        self._shims.remove(shim)
        if not self._shims:
            self.loop.stop()
        else:
            # Its objects hold each other, and nobody collects them in a shim. What the zygote has loaded is not looked at.
            self.loop.after(_SOON, gc.collect)

    def reap(self) -> None:
        """All children that have ended."""
        while pid := next_ended():
            for one in self._shims:
                if pid == one.container.init and not one.container.exited_at:
                    one.container.about_to_reap()
                    one.container.ended(posix.waitpid(pid, 0)[1])
                    break
            else:
                self.children.reaped(*posix.waitpid(pid, 0))

    def close(self) -> None:
        """After `serve`, in a process that goes on."""
        posix.close(self._signals)
