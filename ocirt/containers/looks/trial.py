"""Steps that change nothing but who does them, done by a child that then ends: what the kernel grants it alone can say."""

from __future__ import annotations

import posix

from ocirt.kernel import messages, process
from ocirt.kernel.run import Run, StepError, failure
from ocirt.plan import INIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.plan import Plan


def attempt(steps: Plan) -> StepError | None:
    """What fails first of `steps`, whose index is then that in the list; None if nothing does. A pid of 0 means the child itself.

    Raises CallError if there can be no child.
    """
    run = Run([(INIT, *step[1:]) for step in steps])
    ours, theirs = messages.socket_pair()
    try:
        pid = process.clone3(0)
        if pid == 0:
            _walk(run, theirs)
    finally:
        posix.close(theirs)
    try:
        message = messages.receive(ours)
        posix.waitpid(pid, 0)
    finally:
        posix.close(ours)
    return StepError(*messages.failure_of(message)) if message else None


def _walk(run: Run, to: int) -> None:
    try:
        run.walk(INIT)
    except OSError as err:
        said = failure(run.at, err)
        messages.send_failure(to, said.index, said.errno, said.call, said.detail)
    finally:
        posix._exit(0)
