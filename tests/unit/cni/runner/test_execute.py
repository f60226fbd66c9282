"""Foreign plugins: which are, what they are told, and what their answers become."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.call import Call
from ocirt_cni.errors import DECODING_FAILURE, INVALID_CONFIG, IO_FAILURE, Error
from ocirt_cni.results import Result
from ocirt_cni.runner import execute
from tests.support.plugins import Folder, failure

RESULT = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.1.0.2/24", "interface": 0}]}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "plugins")


def call(folder: Folder, command: str = "ADD", **more: Any) -> Call:
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "one", "unknown": {"kept": [1, 2.5, None]}} | more
    of_a_container = command in ("ADD", "DEL", "CHECK")
    names: dict[str, Any] = {"container": "c1", "netns": "/run/netns/x", "ifname": "eth0"} if of_a_container else {}
    return Call(command, conf, args={"IP": "10.1.0.2", "A": ""}, path=("/nonexistent", str(folder.bin)), **names)


def run(folder: Folder, command: str = "ADD", timeout: float = 60.0, **more: Any) -> Result | None:
    return execute.execute("one", call(folder, command, **more), timeout)


def refused(folder: Folder, command: str = "ADD") -> Error:
    with pytest.raises(Error) as caught:
        run(folder, command)
    return caught.value


def test_add_is_told_all_and_returns_the_result(folder: Folder) -> None:
    folder.make("one", RESULT)
    result = run(folder)
    assert result is not None
    assert result.document("1.0.0") == RESULT | {"dns": {}}
    (told,) = folder.told()
    assert told.conf == call(folder).conf
    assert {name: value for name, value in told.env.items() if name.startswith("CNI_")} == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IP=10.1.0.2;A=",
        "CNI_PATH": f"/nonexistent:{folder.bin}",
    }
    assert told.env["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_other_commands_return_nothing(folder: Folder, command: str) -> None:
    bodies: dict[str, Any] = {command: "echo '{\"ips\": 7}'"}
    folder.make("one", **bodies)
    assert run(folder, command, prevResult=RESULT) is None
    assert folder.calls() == [f"{command} one"]


def test_a_result_without_a_version_is_of_the_configurations(folder: Folder) -> None:
    """libcni's repair of plugins that leave it out (containernetworking/cni#895)."""
    folder.make("one", {key: value for key, value in RESULT.items() if key != "cniVersion"})
    result = run(folder)
    assert result is not None
    assert str(result.ips[0].address) == "10.1.0.2/24"


def test_null_is_an_empty_result(folder: Folder) -> None:
    folder.make("one", ADD="echo null")
    result = run(folder)
    assert result is not None
    assert result.document("1.1.0") == {"cniVersion": "1.1.0", "dns": {}}


def test_the_plugins_own_error_keeps_its_code_and_details(folder: Folder) -> None:
    folder.make("one", ADD="echo warning >&2; " + failure(117, "no luck", "try tomorrow"))
    err = refused(folder)
    assert err.code == 117
    assert str(err) == "no luck: warning (try tomorrow)"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("echo this went wrong >&2; exit 7", "it failed without saying why (exit status 7): this went wrong"),
        ("kill -9 $$", "it failed without saying why (killed by signal 9)"),
        ("echo no JSON; exit 1", "it failed (exit status 1), and what it printed is no error of CNI's: no JSON"),
    ],
)
def test_a_failure_without_an_error(folder: Folder, body: str, text: str) -> None:
    folder.make("one", ADD=body)
    err = refused(folder)
    assert err.code == IO_FAILURE
    assert str(err) == f"{folder.bin}/one: {text}"


@pytest.mark.parametrize("error", ['{"code": "x", "msg": 7}', "{}", '{"code": 0}', '{"code": true}'])
def test_an_error_that_is_half_one(folder: Folder, error: str) -> None:
    folder.make("one", ADD=f"echo '{error}'; exit 1")
    assert (refused(folder).code, refused(folder).message) == (999, "it failed (exit status 1)")


@pytest.mark.parametrize("answer", ["", "[]", "nul", '{"ips": [{"address": "x"}]}', '{"cniVersion": "9.0.0"}'])
def test_success_without_a_result_is_a_failure(folder: Folder, answer: str) -> None:
    folder.make("one", ADD=f"echo said >&2; echo '{answer}'")
    err = refused(folder)
    assert err.code == DECODING_FAILURE
    assert f"{folder.bin}/one" in str(err)
    assert "said" in str(err)


def test_what_a_plugin_says_when_it_succeeds_is_passed_on(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.make("one", DEL="echo a warning >&2")
    run(folder, "DEL")
    assert capfd.readouterr() == ("", "a warning\n")


def test_a_plugin_that_is_nowhere(folder: Folder) -> None:
    err = refused(folder)
    assert err.code == INVALID_CONFIG
    assert str(err) == f"/type: there is no plugin 'one' (CNI_PATH is /nonexistent:{folder.bin}; install the plugin there)"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/bin/sh", "a\0b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Error, match="not the name of a plugin"):
        execute.find(name, ("/bin",))


def test_folders_and_files_that_are_not_executable_are_passed_over(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "first" / "one").mkdir(parents=True)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "one").write_text("")
    path = folder.make("one")
    assert execute.find("one", (str(tmp_path / "first"), str(tmp_path / "second"), str(folder.bin))) == str(path)


def test_versions_are_asked_for(folder: Folder) -> None:
    folder.make("one")
    folder.make("old", VERSION=failure(4, "unknown CNI_COMMAND: VERSION"))
    folder.make("older", VERSION="""echo '{"cniVersion": "0.2.0"}'""")
    folder.make("broken", VERSION=failure(7, "no"))
    folder.make("odd", VERSION="""echo '{"supportedVersions": 7}'""")
    path = (str(folder.bin),)
    assert execute.supported("one", path) == ("0.4.0", "1.0.0", "1.1.0")
    assert execute.supported("old", path) == ("0.1.0",)
    assert execute.supported("older", path) == ("0.1.0", "0.2.0")
    assert execute.supported("bridge", path)[-1] == "1.1.0"
    for name in ("broken", "odd", "nowhere"):
        with pytest.raises(Error):
            execute.supported(name, path)


# Whose a plugin is.


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A launcher as if it had started this process, and the file beside it."""
    home = tmp_path / "launcher"
    home.mkdir()
    path = home / "ocirt"
    path.write_bytes(b"\x7fELF a launcher")
    path.chmod(0o755)
    (home / "ocirt-python").write_text("#!/usr/bin/python3\n")
    monkeypatch.setattr(sys, "argv", ["-c", f"{home}/", "", "bridge"])
    return path


def copied(launcher: Path, folder: Folder, name: str, companion: str | None) -> None:
    shutil.copy(launcher, folder.bin / name)
    if companion is not None:
        (folder.bin / "ocirt-python").write_text(companion)


def test_a_plugin_without_an_executable_is_ours() -> None:
    assert execute.is_ours("bridge", ())
    assert execute.is_ours("bridge", ("/nonexistent",))
    assert not execute.is_ours("calico", ())


def test_links_to_the_launcher_are_ours(launcher: Path, folder: Folder) -> None:
    path = (str(folder.bin),)
    (folder.bin / "link").symlink_to(launcher)
    (folder.bin / "bridge").symlink_to(folder.bin / "link")
    os.link(launcher, folder.bin / "portmap")
    (folder.bin / "calico").symlink_to(launcher)
    assert execute.is_ours("bridge", path)
    assert execute.is_ours("portmap", path)
    assert not execute.is_ours("calico", path)


def test_copies_that_lead_to_this_code_are_ours(launcher: Path, folder: Folder) -> None:
    copied(launcher, folder, "bridge", f"#!/usr/bin/python3\n# home: {execute.home_of_code()}\n")
    assert execute.is_ours("bridge", (str(folder.bin),))
    shutil.copy(launcher, launcher.parent / "ptp")  # as a wheel installs ocirt-cni beside ocirt
    assert execute.is_ours("ptp", (str(launcher.parent),))


@pytest.mark.parametrize("companion", [None, "#!/usr/bin/python3\n", "#!/usr/bin/python3\n# home: /elsewhere\n"])
def test_copies_that_lead_elsewhere_are_not(launcher: Path, folder: Folder, companion: str | None) -> None:
    copied(launcher, folder, "bridge", companion)
    assert not execute.is_ours("bridge", (str(folder.bin),))


def test_what_somebody_put_in_our_place_is_executed(launcher: Path, folder: Folder) -> None:
    """Also if it was ours a moment ago, and if it is as long."""
    path = (str(folder.bin),)
    copied(launcher, folder, "bridge", f"#!/usr/bin/python3\n# home: {execute.home_of_code()}\n")
    assert execute.is_ours("bridge", path)
    other = folder.bin / "other"
    other.write_bytes(b"\x7fELF a stranger")
    other.chmod(0o755)
    assert other.stat().st_size == launcher.stat().st_size
    other.rename(folder.bin / "bridge")
    assert not execute.is_ours("bridge", path)
    (folder.bin / "bridge").unlink()
    (folder.bin / "bridge").symlink_to("/bin/true")
    assert not execute.is_ours("bridge", path)


def test_in_a_clone_the_launcher_is_that_of_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    root = Path(__file__).resolve().parents[4]
    assert execute.home_of_code() == str(root)
    assert execute.launcher() == str(root / "build" / "ocirt")
