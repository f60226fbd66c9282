"""`ocirt.run`: a program in a new container, to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from ocirt.errors import Error
from ocirt.library import process
from ocirt.library.config import Config, Options, StrPath
from ocirt.library.source import request
from ocirt.zygote import client
from ocirt.zygote.client import NoAnswerError


def run(
    args: Sequence[StrPath] | None = None,
    *,
    bundle: StrPath | None = None,
    config: Config | None = None,
    id: str | None = None,  # noqa: A002  (OCI's word)
    root: StrPath | None = None,
    cgroups: str = "cgroupfs",
    input: str | bytes | None = None,  # noqa: A002  (subprocess's word)
    stdin: process.Stream = None,
    stdout: process.Stream = None,
    stderr: process.Stream = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    output_limit: int | None = None,
    **options: Unpack[Options],
) -> process.CompletedProcess:
    """Run a program in a container of its own, wait for its end, and leave nothing; like `subprocess.run`.

    The container is made from the keywords of `ocirt.config` (`options`), from a `config`, or from a `bundle`; for the last two
    args, env, cwd and user change what stands there. id, root, cgroups: the container's name (one is made up), the state root and
    the cgroup manager ("cgroupfs" or "disabled"), as for the command. output_limit: bytes that are kept of each stream; the rest
    is read and dropped.

    Everything in the container ends with the program, at the time-out, at an exception such as KeyboardInterrupt, and with this
    process. Raises Error for a container that cannot be, TimeoutExpired and CalledProcessError of `subprocess`.
    """
    asked = request("run", args, bundle, config, id, root, cgroups, options)
    try:
        return process.complete(
            asked,
            asked["config"]["process"].get("args"),
            input=input,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            capture_output=capture_output,
            timeout=timeout,
            check=check,
            text=text,
            encoding=encoding,
            errors=errors,
            output_limit=output_limit,
        )
    except NoAnswerError:
        client.tell({"do": "delete", "root": asked["root"], "id": asked["id"], "force": True})
        hint = "it was killed: out of memory on the host?"
        raise Error("kernel", "the process that held the container is gone", subject=asked["id"], hint=hint) from None
