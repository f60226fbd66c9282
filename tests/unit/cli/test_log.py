"""Log lines: logrus' shapes, and where they go."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cli import log
from ocirt.errors import Error
from ocirt.kernel.ffi import CallError

from .conftest import Cli

NOW = 1795478478.9
STAMP = "2026-11-24T00:01:18Z"
MISSING = "container does not exist"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("plain", "plain"),
        ("a/b_c@d^e+f.g-h", "a/b_c@d^e+f.g-h"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "x"', r'"say \"x\""'),
        ("a\\b\n\t\x00\x7f", r'"a\\b\n\t\x00\x7f"'),
        ("é", '"é"'),
        ("\u200b\U000e0001", r'"\u200b\U000e0001"'),
        ("\udcff", r'"\xff"'),
    ],
)
def test_a_text_line(message: str, shown: str) -> None:
    assert log.line("text", "error", message, NOW) == f'time="{STAMP}" level=error msg={shown}\n'


def test_a_json_line() -> None:
    assert log.line("json", "error", MISSING, NOW) == f'{{"level":"error","msg":"{MISSING}","time":"{STAMP}"}}\n'


@given(st.text())
def test_a_json_line_is_one_object_on_one_line(message: str) -> None:
    line = log.line("json", "error", message, NOW)
    assert line.count("\n") == 1
    assert json.loads(line) == {"level": "error", "msg": message, "time": STAMP}


@given(st.text())
def test_a_text_line_is_one_line(message: str) -> None:
    assert log.line("text", "error", message, NOW).splitlines() == [log.line("text", "error", message, NOW)[:-1]]


def test_without_a_log_the_line_goes_to_stderr(cli: Cli) -> None:
    status, out, err = cli("state", "nope")
    assert (status, out) == (1, "")
    assert err.startswith('time="')
    assert err.endswith(f'Z" level=error msg="{MISSING}"\n')
    assert json.loads(cli("--log-format", "json", "state", "nope")[2])["msg"] == MISSING


@pytest.mark.parametrize("form", ["text", "json"])
def test_with_a_log_the_line_goes_there_and_the_message_to_stderr(cli: Cli, tmp_path: Path, form: str) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    assert cli("--log", str(path), "--log-format", form, "state", "nope") == (1, "", MISSING + "\n")
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(line)["msg"] == MISSING if form == "json" else line.endswith(f'level=error msg="{MISSING}"')


def test_a_success_makes_the_log_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "log"
    cli.root.mkdir()
    assert cli("--log", str(path), "list", "-q") == (0, "", "")
    assert path.read_text() == ""
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_log_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    status, out, err = cli("--log", str(tmp_path / "no/log"), "state", "nope")
    assert (status, out) == (1, "")
    assert f"open {tmp_path}/no/log: no such file or directory" in err


def test_usage_errors_go_to_the_log_too(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "log"
    status, out, err = cli("--log", str(path), "--log-format", "json", "state")
    assert (status, err) == (1, 'ocirt: "state" requires exactly 1 argument(s)\n')
    assert out.startswith("Incorrect Usage.\n\nNAME:\n   ocirt state - ")
    assert json.loads(path.read_text())["msg"] == err[:-1]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(errno.ENOENT, "", "/x"), "/x: no such file or directory"),
        (PermissionError(errno.EACCES, ""), "permission denied"),
        (CallError(errno.EPERM, "mount", b"/x\xff"), "mount /x\udcff: operation not permitted"),
        (Error("invalid", "wrong", subject="/root/path", cause="why", hint="do"), "/root/path: wrong: why (do)"),
        (ValueError("v"), "ValueError: v"),
    ],
)
def test_errors_in_words(error: Exception, text: str) -> None:
    assert log.describe(error) == text
