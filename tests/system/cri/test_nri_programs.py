"""Plugins of NRI that ocirtd itself starts, and what it does without one, or without NRI."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.build import ROOT
from tests.support.nricalls import Make
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


def example() -> str:
    """The plugin of docs/nri.md, which users copy."""
    text = (ROOT / "docs/nri.md").read_text()
    return text.partition("```python\n")[2].partition("```")[0]


_CONFIGURED = """\
from ocirt_cri.nri.plugin import Container, ContainerAdjustment, Plugin, PodSandbox, run


class Greeting(Plugin):
    def configure(self, config: str, runtime: str, version: str) -> None:
        self.words = config.strip()

    def create_container(self, pod: PodSandbox, container: Container) -> ContainerAdjustment:
        adjust = ContainerAdjustment()
        adjust.env.add(key="GREETING", value=f"{self.words} from {pod.name}")
        return adjust


run(Greeting())
"""


def configure(node: Ocirtd, *scripts: Path, **more: int) -> None:
    """Start the daemon anew, with scripts as plugins."""
    node.stop()
    text = node.config.read_text() + f"python = {[str(one) for one in scripts]}\n"
    node.config.write_text(text + "".join(f"{key} = {value}\n" for key, value in more.items()))
    node.start()


def children(pid: int, word: str) -> list[int]:
    """The children of a process whose command line has a word."""
    found = [one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    return [int(one) for one in found if word.encode() in _command(one)]


def _command(pid: str) -> bytes:
    """What a process was executed as; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def is_over(pid: int) -> bool:
    """Whether a process runs no more; whoever it was left to may not have seen that yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_plugins_in_python_by_configuration(node: Ocirtd) -> None:
    """They are there before the first container, and end with the daemon, however it ends."""
    script = node.place / "10-greeting.py"
    script.write_text(_CONFIGURED)
    (node.place / "nri.conf.d").mkdir()
    (node.place / "nri.conf.d/greeting.conf").write_text("good day\n")
    configure(node, script, node.place / "20-missing.py", node.place / "unnamed.py")
    for _ in range(2):
        pod = node.run_pod(node.pod_config("world"))
        box = node.run(pod, "sh", "-c", "echo $GREETING")
        node.wait(box)
        assert node.logged(box) == [("stdout", "F", "good day from world")]
        node.remove_pod(pod)
        assert node.process is not None
        [plugin] = children(node.process.pid, "10-greeting.py")
        node.kill()
        node.until(lambda pid=plugin: is_over(pid), "the plugin to end")  # type: ignore[misc]
        node.start()
    log = node.log.read_text()
    assert "20-missing.py: there is no such file" in log
    assert "'unnamed' is no name of a plugin" in log
    assert node.process is not None
    [plugin] = children(node.process.pid, "10-greeting.py")
    node.stop()
    assert is_over(plugin)
    node.start()


def test_the_example(node: Ocirtd) -> None:
    """Ten lines, and one of configuration."""
    assert len([line for line in example().splitlines() if line]) <= 10
    (node.place / "10-greeting.py").write_text(example())
    configure(node, node.place / "10-greeting.py")
    box = node.run(node.run_pod(node.pod_config("you")), "sh", "-c", "echo $GREETING")
    node.wait(box)
    assert node.logged(box) == [("stdout", "F", "hello from you")]


def test_a_plugin_of_ours_that_dies_or_never_registers(node: Ocirtd) -> None:
    good, deaf = node.place / "10-greeting.py", node.place / "20-deaf.py"
    good.write_text(example())
    deaf.write_text("import time\ntime.sleep(1000)\n")
    configure(node, good, deaf, registration_timeout=1)
    log = node.log.read_text()
    assert "NRI plugin 20-deaf: did not register within 1 s" in log
    assert node.process is not None
    [plugin] = children(node.process.pid, "10-greeting.py")
    os.kill(plugin, signal.SIGKILL)
    node.until(lambda: "NRI plugin 10-greeting is gone" in node.log.read_text(), "its end to be noticed")
    box = node.run(node.run_pod(), "sh", "-c", "echo $GREETING.")
    node.wait(box)
    assert node.logged(box) == [("stdout", "F", ".")]
    node.until(lambda: not Path(f"/proc/{plugin}").exists(), "it to be reaped")
    node.until(lambda: not children(node.process.pid, "20-deaf.py"), "the deaf one to be ended")  # type: ignore[union-attr]


def test_programs_of_a_directory(node: Ocirtd) -> None:
    """As other runtimes start them: by their name, with a socket that is there already."""
    import sys  # noqa: PLC0415

    place = node.place / "nri.d"
    place.mkdir()
    (place / "30-program").write_text(f"#!{sys.executable}\nimport sys\nsys.path[:] = {sys.path}\n{example()}")
    (place / "30-program").chmod(0o755)
    (place / "README").write_text("not a program\n")
    node.stop()
    node.start()
    assert "NRI plugin 30-program is there" in node.log.read_text()
    box = node.run(node.run_pod(node.pod_config("you")), "sh", "-c", "echo $GREETING")
    node.wait(box)
    assert node.logged(box) == [("stdout", "F", "hello from you")]


def test_a_plugin_that_is_required(node: Ocirtd, plugin: Make) -> None:
    """No container is made without it, also not after a restart; pods are."""
    node.config.write_text(node.config.read_text() + 'required = ["limits"]\n')
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: 'nri.required: ["limits"], was []' in node.log.read_text(), "the change in the log")
    pod = node.run_pod()
    wanted = node.container_config("sleep", "1000")

    def is_refused() -> None:
        with refused(grpc.StatusCode.UNAVAILABLE) as words:
            node.create(pod, wanted)
        assert "no NRI plugin limits is connected" in words[0]
        assert node.containers() == []

    is_refused()
    other = plugin("10", "other")
    is_refused()
    assert "CreateContainer" not in other.methods()
    plugin("20", "limits")
    box = node.create(pod, wanted)
    node.remove_container(box)
    node.kill()
    node.start()
    is_refused()
    plugin("20", "limits")
    node.create(pod, wanted)


def test_without_nri(node: Ocirtd) -> None:
    node.stop()
    node.config.write_text(node.config.read_text() + "enabled = false\n")
    node.start()
    assert not node.nri.exists()
    made = node.run(node.run_pod(), "sleep", "1000")
    assert node.status(made).state == cri.CONTAINER_RUNNING
