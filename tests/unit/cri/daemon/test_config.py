"""ocirtd's configuration: what a file may say, what is wrong with one that is refused, and where each value comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ocirt.errors import Error
from ocirt_cri import config, main, manual, runtimes
from ocirt_cri.keys import KEYS

ROOT = Path(__file__).resolve().parents[4]
EVERYTHING = """
root = "/srv/r"
cgroups.manager = "systemd"

[containers]
pids_limit = 99
capabilities = ["CAP_CHOWN"]
rlimits = { NOFILE = [1024, 4096] }

[pods.sysctls]
"net.core.somaxconn" = "1024"
"""


def parse(text: str, **flags: str) -> config.Config:
    return config.parse(text.encode(), "f.toml", flags)


def test_a_file_is_read() -> None:
    found = parse(EVERYTHING, root="/other")
    assert found["root"] == "/other"
    assert found.sources["root"] == "--root"
    assert found.sources["containers.pids_limit"] == "f.toml"
    assert found.sources["state"] == "default"
    assert found.image_root == "/other/images"
    settings = found.settings()
    assert settings.cgroup_manager == "systemd"
    assert settings.pids_limit == 99
    assert settings.capabilities == ("CAP_CHOWN",)
    assert settings.rlimits == {"RLIMIT_NOFILE": (1024, 4096)}
    assert settings.sysctls == {"net.core.somaxconn": "1024"}
    assert found.socket == "/run/ocirt/ocirt.sock"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rot = '/x'", "there is no key 'rot' (did you mean 'root'?)"),
        ("[container]\npids_limit = 1", "there is no key 'container' (did you mean 'containers'?)"),
        ("[containers]\npid_limit = 1", "did you mean 'containers.pids_limit'?"),
        ("pids_limit = 1", "did you mean 'containers.pids_limit'?"),
        ("root = 1", "f.toml: root: 1 is not a text"),
        ("[containers]\npids_limit = '1'", "is not a number"),
        ("[containers]\npids_limit = true", "is not a number"),
        ("[containers]\npids_limit = -1", "-1 is too small (0 or more)"),
        ("[containers]\nhost_devices = 1", "is not a true or false"),
        ("[containers]\ncapabilities = 'CAP_CHOWN'", "is not a list of texts"),
        ("[containers]\nrlimits = { NOFILE = 3 }", "is not a table of limits"),
        ("[containers]\nrlimits = { NOFILES = [1, 2] }", "'NOFILES' is not a resource limit (did you mean 'NOFILE'?)"),
        ("[containers]\nrlimits = { RLIMIT_CORE = [2, 1] }", "2 is no soft limit below 1"),
        ("[cgroups]\nmanager = 'systmd'", "did you mean 'systemd'?"),
        ("root = 'relative'", "not an absolute path"),
        ("listen = 'tcp://1.2.3.4:5'", "is no address"),
        ("listen = 'unix://" + "/x" * 60 + "'", "more than 90 bytes"),
        ("root = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(Error) as caught:
        parse(text)
    assert words in str(caught.value)
    assert caught.value.code == "usage"


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(Error, match="there is no such file"):
        config.load(str(tmp_path / "none"))
    (tmp_path / "bad").write_bytes(b"\xff")
    with pytest.raises(Error, match="is not UTF-8"):
        config.load(str(tmp_path / "bad"))


def test_what_is_printed_says_the_same() -> None:
    found = parse(EVERYTHING)
    again = parse(config.text(found))
    assert dict(again.values) == dict(found.values)
    assert "# f.toml" in config.text(found)


def test_a_reload_changes_what_may_change() -> None:
    old, new = parse("root = '/a'"), parse("root = '/b'\n[containers]\npids_limit = 5")
    assert {key.name for key, _, _ in config.differences(old, new)} == {"root", "containers.pids_limit"}
    now = config.reloaded(old, new)
    assert (now["root"], now["containers.pids_limit"]) == ("/a", 5)
    assert now.sources["containers.pids_limit"] == "f.toml"


def test_handlers() -> None:
    """Each is the whole configuration with some keys changed, by either form of TOML."""
    found = parse(
        "[containers]\npids_limit = 5\nhost_devices = false\n[handlers.small.containers]\npids_limit = 9\n"
        "capabilities = ['CAP_KILL']\n[handlers.wide.pods]\nshm_size = 8192\n[handlers.same]\n"
    )
    assert found.settings().handlers == ("", "ocirt", "small", "wide", "same")
    small, wide = found.of_handler("small").settings(), found.of_handler("wide").settings()
    assert (small.pids_limit, small.capabilities, small.host_devices) == (9, ("CAP_KILL",), False)
    assert (wide.pids_limit, wide.shm_size) == (5, 8192)
    assert small.handlers == wide.handlers == found.settings().handlers
    for name in ("", "ocirt", "same", "gone"):
        assert found.of_handler(name).settings() == found.settings()
    assert parse(config.text(found))["handlers"] == found["handlers"]


def test_runtimes_of_handlers() -> None:
    """The words that it is called with; those of our own are none."""
    text = "state = '/s'\n[handlers.a.runtime]\npath = '/bin/runc'\n[handlers.b.runtime]\npath = '/bin/crun'\n"
    text += "root = '/r'\noptions = ['--x']\n"
    found = parse(text)
    assert found.command("a") == ["/bin/runc", "--root", "/s/runtimes/a"]
    assert found.command("b") == ["/bin/crun", "--root", "/r", "--x"]
    assert found.command("") == found.command("ocirt") == found.command("gone") == []
    by_systemd = parse("cgroups.manager = 'systemd'\n" + text)
    assert by_systemd.command("a") == ["/bin/runc", "--root", "/s/runtimes/a", "--systemd-cgroup"]
    assert parse(config.text(found))["handlers"] == found["handlers"]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, False),
        ([], False),
        ({"mountOptions": None, "linux": 5}, False),
        ({"mountOptions": ["ro", "rro"]}, True),
        ({"mountOptions": ["ro"]}, False),
        ({"mountOptions": "rro"}, False),
    ],
)
def test_features_of_a_runtime(said: object, wanted: bool) -> None:
    assert runtimes.read(said).recursive_read_only is wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("handlers = 5", "not a table of handlers"),
        ("handlers.x = 5", "f.toml: handlers.x: 5 is no table"),
        ("handlers.ocirt.containers.pids_limit = 1", "'ocirt' cannot be the name"),
        ("handlers.'A_b'.containers.pids_limit = 1", "'A_b' cannot be the name"),
        ("handlers.x.containers.pids_limits = 1", "did you mean 'containers.pids_limit'"),
        ("handlers.x.containers.pids_limit = -1", "handlers.x: containers.pids_limit: -1 is too small"),
        ("handlers.x.root = '/a'", "'root' is the same for all handlers"),
        ("handlers.x.handlers.y = {}", "'handlers' is the same"),
        ("handlers.x.runtime = '/usr/bin/runc'", "no key 'runtime' (did you mean 'runtime.path'?)"),
        ("handlers.x.runtime.path = 'runc'", "handlers.x: runtime.path: 'runc' is not an absolute path (such as /usr/bin/runc)"),
        ("handlers.x.runtime = { path = '/r', root = 'x' }", "runtime.root: 'x' is not an absolute path"),
        ("handlers.x.runtime.options = ['--debug']", "runtime.options: is for another runtime (name it: runtime.path)"),
        ("runtime.path = '/usr/bin/runc'", "there is no key 'runtime'"),
    ],
)
def test_handlers_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(Error) as found:
        parse(text)
    assert words in str(found.value)


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("log_level = 'debug'\n")
    assert main.main(["--config", str(file), "--root=/x", "config"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed)["root"] == "/x"
    assert re.search(rf'log_level = "debug" +# {file}', printed)
    for args, words in (
        (["--stat", "x"], "did you mean --state?"),
        (["confg"], "did you mean 'config'?"),
        (["--root"], "--root: needs a value"),
        (["--config", "/nowhere"], "/nowhere: there is no such file"),
    ):
        assert main.main(args) == 2
        assert words in capsys.readouterr().err
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ocirtd ")
    assert main.main(["--help"]) == 0
    assert all(f"--{name.replace('_', '-')}" in main.usage() for name in config.FLAGS)


def test_every_key_is_documented() -> None:
    document = (ROOT / "docs" / "ocirtd.md").read_text()
    rows = [line for line in document.splitlines(keepends=True) if re.match(r"\| `[a-z_.]+` \|", line)]
    assert "".join(rows) == manual.table()
    page = manual.page()
    assert all(f".B {key.name}\n" in page for key in KEYS)
    assert not [line for line in page.splitlines() if line.startswith("'")]
