"""Hooks: when each kind runs, where, and what it is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.build import compiled
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def recorder(made_rootfs: Path, log: Path, kind: str, in_container: bool) -> dict[str, Any]:
    """A hook that appends one line to `log`: its kind, the mount namespace's link, and what came on stdin."""
    script = f'echo "{kind} $(readlink /proc/self/ns/mnt) $(pwd) $(tr -d "\\n")" >> {log}'
    busybox = "/bin/sh" if in_container else str(made_rootfs / "bin/busybox")
    return {"path": busybox, "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}


def test_all_six(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """Order, namespaces, and the state on stdin."""
    log = tmp_path / "log" / "lines"
    log.parent.mkdir()
    made = bundle(
        args=["sh", "-c", f"echo process >> {log}; exec sleep 1000"],
        add_mounts=[{"destination": str(log.parent), "type": "bind", "source": str(log.parent), "options": ["bind"]}],
        annotations={"k": "v"},
    )
    made.edit(hooks={kind: [recorder(made.rootfs, log, kind, kind == "startContainer")] for kind in KINDS})
    container = runtime.create(made)
    host, inside = os.readlink("/proc/self/ns/mnt"), os.readlink(f"/proc/{runtime.pid(container)}/ns/mnt")
    pid = runtime.pid(container)
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    early = [] if runtime.is_ocirt else ["poststart"]  # runc 1.5 runs these in `create`, the spec says after the program's start
    assert [line[0] for line in lines] == ["prestart", "createRuntime", "createContainer", *early]
    assert [line[1] for line in lines[:3]] == [host, host, inside]
    runtime.start(container).ok()
    wait_for(lambda: "\nprocess\n" in log.read_text(), "the process")
    runtime.delete(container, "--force").ok()
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert sorted(line[0] for line in lines[3:-1]) == ["poststart", "process", "startContainer"]
    if runtime.is_ocirt:
        assert lines[3][0] == "startContainer"
    assert [line[0] for line in lines].index("startContainer") < [line[0] for line in lines].index("process")
    assert lines[-1][0] == "poststop"
    said = {line[0]: line for line in lines if len(line) == 4}
    assert said["startContainer"][1:3] == [inside, "/"]
    assert (said["poststart"][1], said["poststop"][1]) == (host, host)
    states = {kind: json.loads(line[3]) for kind, line in said.items()}
    for kind, state in states.items():
        assert (state["id"], state["bundle"], state["annotations"]) == (container, str(made.path), {"k": "v"}), kind
        assert {"ociVersion", "status"} <= set(state), kind
    assert [states[kind]["pid"] for kind in ("prestart", "createRuntime", "poststart")] == [pid] * 3
    assert {states[kind]["status"] for kind in KINDS[:3]} <= {"creating", "created"}
    assert states["startContainer"]["status"] == "created"
    assert states["poststart"]["status"] == "running" or not runtime.is_ocirt
    assert states["poststop"]["status"] == "stopped"


def test_several_of_a_kind(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """One after the other, with their own arguments and nothing but their own environment."""
    log = tmp_path / "log"
    shell = str(bundle().rootfs / "bin/busybox")
    one = {"path": shell, "args": ["sh", "-c", f'sleep 0.1; echo "$0" "$1" >> {log}', "a", "b"], "env": []}
    two = {
        "path": shell,
        "args": ["sh", "-c", f'echo "$(env | sort | tr "\\n" " ")" >> {log}'],
        "env": ["X=1", "PATH=/bin:/usr/bin"],
    }
    runtime.run(bundle(hooks={"createRuntime": [one, two]}), env={**os.environ, "OCIRT_TEST_SECRET": "1"}).ok()
    first, second = log.read_text().splitlines()
    assert first == "a b"
    assert set(second.split()) - {"PWD=" + second.partition("PWD=")[2].split()[0]} <= {"X=1", "PATH=/bin:/usr/bin", "SHLVL=1"}


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_a_hook_that_fails(runtime: Runtime, bundle: MakeBundle, kind: str) -> None:
    """The container does not start, and nothing is left."""
    container = runtime.new_id()
    program = "/bin/false" if kind != "createRuntime" else "/bin/does-not-exist"
    # runc shows its init's exit code when the hook runs after the barrier.
    code = 255 if kind == "startContainer" and not runtime.is_ocirt else 1
    runtime.run(bundle(hooks={kind: [{"path": program}]}), container=container).failed(rc=code)
    runtime.call("state", container).failed("container does not exist", rc=1)


@pytest.mark.ocirt_only("runc stops at the first poststop hook that fails; the spec says that the others run")
def test_a_poststop_hook_that_fails(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """The others still run, and the container is gone."""
    log = tmp_path / "log"
    hooks = [{"path": "/bin/false"}, {"path": "/bin/sh", "args": ["sh", "-c", f"echo ran > {log}"]}]
    container = runtime.create(bundle(hooks={"poststop": hooks}))
    runtime.delete(container)
    assert log.read_text() == "ran\n"
    runtime.call("state", container).failed("container does not exist", rc=1)


def test_a_hook_that_takes_too_long(runtime: Runtime, bundle: MakeBundle) -> None:
    """`timeout` in seconds: it is killed, and that is a failure."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "timeout": 1}
    runtime.run(bundle(hooks={"createRuntime": [hook]})).failed(rc=1)


def test_a_hook_that_has_all_the_time(runtime: Runtime, bundle: MakeBundle) -> None:
    """More than poll(2) can wait."""
    runtime.run(bundle(hooks={"createRuntime": [{"path": "/bin/true", "timeout": 1 << 40}]})).ok()


def test_signals_in_hooks(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """A hook has default signals and no descriptors but three."""
    out = tmp_path / "seen"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"exec {compiled('probe')} > {out}"]}
    runtime.run(bundle(hooks={"createRuntime": [hook]})).ok()
    seen = json.loads(out.read_text())
    assert (seen["signals_ignored"], seen["signals_blocked"]) == ([], 0)
    assert sorted(seen["fds"], key=int) == ["0", "1", "2"]
