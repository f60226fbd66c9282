"""Names of plugins, what is started, what goes into one message, and the methods that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import calls, launch, peer
from ocirt_cri.nri.plugin import Plugin, PluginError, events_of


def test_methods_of_all_events() -> None:
    assert set(calls.METHODS) == set(range(1, nri.LAST))
    service = nri.DESCRIPTOR.services_by_name["Plugin"]
    others = {"Configure", "Synchronize", "Shutdown", "StateChange"}
    assert {method.name for method in service.methods} == set(calls.METHODS.values()) | others
    for number, method in calls.METHODS.items():
        assert calls.snake(method).upper() == nri.Event.Name(number)  # type: ignore[arg-type]
        assert calls.REQUESTS[method].DESCRIPTOR.full_name.endswith(f".{method}Request")


def test_events_are_those_of_the_methods() -> None:
    class Two(Plugin):
        def run_pod_sandbox(self, pod: nri.PodSandbox) -> None: ...

        def stop_container(self, pod: nri.PodSandbox, container: nri.Container) -> None: ...

    assert events_of(Two()) == 1 << (nri.RUN_POD_SANDBOX - 1) | 1 << (nri.STOP_CONTAINER - 1)
    with pytest.raises(PluginError, match="Plugin has none of the methods of events"):
        events_of(Plugin())


@pytest.mark.parametrize("name", ["1-a", "100-a", "ab-c", "10a", "10-", "10-a b", "٣٣-a", "10-ä"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Error) as refused:
        launch.parse(name)
    assert refused.value.code == "invalid"
    assert refused.value.hint


@pytest.mark.parametrize(("name", "parsed"), [("00-a", ("00", "a")), ("99-a-b_c.d+e", ("99", "a-b_c.d+e"))])
def test_names(name: str, parsed: tuple[str, str]) -> None:
    assert launch.parse(name) == parsed


def test_what_is_started(tmp_path: Path) -> None:
    programs, configs = tmp_path / "plugins", tmp_path / "conf.d"
    for place in (programs, configs, programs / "40-directory"):
        place.mkdir()
    for name, mode in (("20-b", 0o755), ("10-a", 0o755), ("30-data", 0o644), ("wrong", 0o755)):
        (programs / name).touch(mode)
    for name, text in (("10-a.conf", "mine"), ("a.conf", "not this"), ("script.conf", "script's")):
        (configs / name).write_text(text)
    script = tmp_path / "15-script.py"
    script.touch()
    found, wrong = launch.wanted(str(programs), [str(script), "/nowhere/11-x.py", "/x.py"], str(configs))
    assert [(one.index, one.base, one.config) for one in found] == [
        ("10", "a", "mine"),
        ("20", "b", ""),
        ("15", "script", "script's"),
    ]
    assert [one.subject for one in wrong] == [str(programs / "wrong"), "/nowhere/11-x.py", "/x.py"]
    assert found[0].argv == (str(programs / "10-a"),)
    assert found[2].argv[-1].endswith("run_name='__main__')")
    assert launch.wanted("/nowhere", [], "/nowhere") == ([], [])


@given(sizes=st.lists(st.tuples(st.booleans(), st.integers(0, 3 << 20)), max_size=8))
def test_what_there_is_in_parts(sizes: list[tuple[bool, int]]) -> None:
    """Everything once and in order; each part fits into a frame, and all but the last say that there is more."""
    text = "x" * (3 << 20)
    pods = [nri.PodSandbox(id=text[:size]) for is_pod, size in sizes if is_pod]
    containers = [nri.Container(id=text[:size]) for is_pod, size in sizes if not is_pod]
    found = peer.parts(pods, containers)
    assert [len(one.id) for part in found for one in part.pods] == [len(one.id) for one in pods]
    assert [len(one.id) for part in found for one in part.containers] == [len(one.id) for one in containers]
    assert [part.more for part in found] == [True] * (len(found) - 1) + [False]
    assert all(part.ByteSize() < (4 << 20) - 1000 for part in found)
    assert len(found) == 1 or all(part.pods or part.containers for part in found)


def test_what_fits_into_no_message_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """And keeps no plugin from joining."""
    large = nri.Container(id="large", args=["x" * (5 << 20)])
    found = peer.parts([nri.PodSandbox(id="p")], [nri.Container(id="a"), large, nri.Container(id="b")])
    assert [one.id for part in found for one in part.containers] == ["a", "b"]
    assert len(found) == 1
    assert "large" in caplog.text
