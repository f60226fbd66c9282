"""Reading the three documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocirt.cli.spec import default
from ocirt.errors import Error
from ocirt.spec import load
from tests.unit.spec.documents import changed


def bundle(path: Path, document: Any) -> str:
    (path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def test_read_spec(tmp_path: Path) -> None:
    assert load.read_spec(bundle(tmp_path, default())) == default()


def test_null_is_left_out(tmp_path: Path) -> None:
    spec = load.read_spec(bundle(tmp_path, changed({"/linux/seccomp": None, "/hooks": None})))
    assert spec == default()


def test_text_is_utf_8(tmp_path: Path) -> None:
    spec = load.read_spec(bundle(tmp_path, changed({"/process/args": ["écho", "日本", "\U0001f433"]})))
    assert spec["process"]["args"] == ["écho", "日本", "\U0001f433"]


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"/process/args": []}, "invalid", "/process/args: args must not be empty ("),
        ({"/root": {"readonly": True}}, "invalid", '/root: lacks "path" (add "path": a string)'),
        ({"/ociVersion": "9.9.9"}, "unsupported", '/ociVersion: not supported: version "9.9.9"'),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(Error) as caught:
        load.read_spec(bundle(tmp_path, changed(changes)))
    assert caught.value.code == code
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_an_error_outranks_warnings(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        load.read_spec(bundle(tmp_path, changed({"/unknown": 1, "/process/cwd": "x"})))
    assert caught.value.subject == "/process/cwd"


def test_the_document_itself_is_named(tmp_path: Path) -> None:
    with pytest.raises(Error, match="lacks") as caught:
        load.read_spec(bundle(tmp_path, {}))
    assert caught.value.subject == "config.json"


def test_rootless(tmp_path: Path) -> None:
    path = bundle(tmp_path, default())
    assert load.read_spec(path)
    with pytest.raises(Error) as caught:
        load.read_spec(path, rootless=True)
    assert caught.value.subject == "/linux/namespaces"


def test_no_config(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(Error, match=r"^JSON specification file config\.json not found") as caught:
            load.read_spec(str(path))
        assert "ocirt spec" in caught.value.hint


def test_config_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(Error, match="cannot be read") as caught:
        load.read_spec(str(tmp_path))
    assert caught.value.cause == os.strerror(21)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle(tmp_path, default())
    size = os.stat(tmp_path / "config.json").st_size
    monkeypatch.setattr(load, "LIMIT", size)
    assert load.read_spec(path) == default()
    monkeypatch.setattr(load, "LIMIT", size - 1)
    with pytest.raises(Error, match="larger than"):
        load.read_spec(path)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1"),
        (b'{\n "a": 1,\n}', "line 3"),
        (b"\xff", "not UTF-8"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": "\\ud800"}', "surrogate"),
    ],
)
def test_not_json(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(Error) as caught:
        load.read_spec(str(tmp_path))
    assert caught.value.code == "invalid"
    assert caught.value.subject == "config.json"
    assert text in str(caught.value)


def test_read_process(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    path.write_text(json.dumps({"args": ["sh"], "cwd": "/", "user": None}))
    assert load.read_process(str(path)) == {"args": ["sh"], "cwd": "/"}
    path.write_text(json.dumps({"args": ["sh"], "cwd": "/", "rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 2}]}))
    with pytest.raises(Error) as caught:
        load.read_process(str(path))
    assert caught.value.subject == "/rlimits/0/soft"
    with pytest.raises(Error, match="not found"):
        load.read_process(str(tmp_path / "nothing"))


def test_read_resources() -> None:
    assert load.read_resources(b'{"memory": {"limit": 1048576}, "cpu": null}') == {"memory": {"limit": 1048576}}
    # What a value means depends on the container's.
    assert load.read_resources(b'{"memory": {"swap": 1}}') == {"memory": {"swap": 1}}
    with pytest.raises(Error) as caught:
        load.read_resources(b'{"cpu": {"period": "1"}}')
    assert caught.value.subject == "/cpu/period"
    with pytest.raises(Error) as caught:
        load.read_resources(b"[]")
    assert caught.value.subject == "resources"


def test_what_is_loaded_for_the_usual_spec(tmp_path: Path) -> None:
    """Start-up is the cost that matters: nothing heavy of the standard library, nothing of ours that the spec does not need."""
    code = """
import sys
sys.path.append(sys.argv[1])
before = set(sys.modules)
from ocirt.spec.load import read_spec
read_spec(sys.argv[2])
print(*sorted(set(sys.modules) - before))
"""
    root = str(Path(load.__file__).parents[2])
    command = [sys.executable, "-I", "-S", "-B", "-c", code, root, bundle(tmp_path, default())]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    ours = {name.removeprefix("ocirt.spec.") for name in loaded if name.startswith("ocirt.spec.")}
    assert {name for name in loaded if not name.startswith("ocirt")} <= {"__future__", "_json"}
    assert ours == {"capabilities", "check", "load", "mountoptions", "mounts", "process", "rlimits", "shape"}
