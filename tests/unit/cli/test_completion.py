"""What the shells make of `ocirt completion`: each is asked itself, with a command that stands in for ocirt."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt.cli import completion, options, values
from ocirt.cli import help as texts
from ocirt.errors import Error
from tests.support.terminal import Terminal

# `list -q` of a runtime with two containers, or of another root with one; the same of images.
COMMAND = """#!/bin/sh
case "$*" in
    "list -q") printf 'apple\\nbanana\\n' ;;
    "--root "*"/other list -q") echo cherry ;;
    "images --names") printf 'docker.io/library/busybox:1\\nlocalhost:5000/x:latest\\n' ;;
    "--image-root "*"/other images --names") echo localhost/other:2 ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""
BASH = """
source {script}
compopt() {{ :; }}
function=$(complete -p ocirt | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=({words}) COMP_CWORD={last} COMP_LINE={line} COMP_POINT=${{#COMP_LINE}}
$function
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSHRC = """
PS1=READY
unsetopt prompt_sp prompt_cr auto_menu
autoload -Uz compinit
compinit -u -C -d {dump}
source {script}
zstyle ':completion:*' verbose false
zstyle ':completion:*' list-prompt ''
LISTMAX=999
list() {{ zle list-choices; zle -R; print -n '<end>' }}
zle -N list
bindkey '^X' list
stty columns 400 rows 200
unset zle_bracketed_paste
"""

Ask = Callable[[str], set[str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a command `ocirt` in PATH, a file and a directory."""
    work = tmp_path / "work"
    (work / "bundles").mkdir(parents=True)
    (work / "boxfile").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ocirt").write_text(COMMAND)
    (tmp_path / "bin" / "ocirt").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(work)
    return work


def script(shell: str, place: Path) -> Path:
    path = place.parent / f"completion.{shell}"
    path.write_text({"bash": completion.bash, "zsh": completion.zsh, "fish": completion.fish}[shell]("ocirt"))
    return path


def in_bash(line: str, place: Path) -> set[str]:
    words = shlex.split(line.replace("=", " = ").replace(":", " : ")) + ([""] if line[-1] in " =:" else [])
    quoted = " ".join(map(shlex.quote, words))
    text = BASH.format(script=script("bash", place), words=quoted, last=len(words) - 1, line=shlex.quote(line))
    done = subprocess.run(["bash", "--norc", "-c", text], capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    return set(done.stdout.split())


def in_fish(line: str, place: Path) -> set[str]:
    text = f"source {script('fish', place)}; complete -C {shlex.quote(line)}"
    done = subprocess.run(["fish", "--no-config", "-c", text], capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    # The token as it becomes, and a tab with what it means.
    return {word.partition("\t")[0].rpartition("=")[2].rstrip("/") for word in done.stdout.splitlines()}


def in_zsh(line: str, place: Path, setup: str = ZSHRC) -> set[str]:
    """Typed at a prompt, and the list of choices asked for: zsh completes for people only."""
    (place.parent / ".zshrc").write_text(setup.format(script=script("zsh", place), dump=place.parents[1] / "zcompdump"))
    with Terminal(["zsh", "-i"], env={**os.environ, "TERM": "xterm", "ZDOTDIR": str(place.parent)}) as terminal:
        terminal.expect("READY")
        start = len(terminal.output)
        terminal.write(line)
        terminal.expect(line)
        terminal.write("\x18")
        terminal.expect("<end>")
        shown = terminal.output[start:].decode().partition(line)[2].partition("<end>")[0]
        terminal.write("\x15exit\n")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", shown).replace("READY", " ").replace(line.strip(), " ")
    return {word.rstrip("/") for word in shown.split()} - {""}


ASK = {"bash": in_bash, "fish": in_fish, "zsh": in_zsh}


@pytest.fixture(params=ASK)
def ask(request: pytest.FixtureRequest, place: Path) -> Ask:
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    return lambda line: ASK[shell](line, place)


def choices(verb: str) -> set[str]:
    return {f"--{flag.name}" for flag in values.flags(verb)}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ocirt ", set(texts.flag_lines())),
        ("ocirt st", {"start", "state"}),
        ("ocirt --root /x st", {"start", "state"}),
        ("ocirt --root=/x --debug st", {"start", "state"}),
        ("ocirt --log-format ", {"text", "json"}),
        ("ocirt state ", {"apple", "banana"}),
        ("ocirt --root /an/other state ", {"cherry"}),
        ("ocirt exec -t --cwd / ", {"apple", "banana"}),
        ("ocirt kill apple USR", {"USR1", "USR2"}),
        ("ocirt list --format ", {"table", "json"}),
        ("ocirt list -f ", {"table", "json"}),
        ("ocirt create --bundle ", {"bundles"}),
        ("ocirt create --pid-file ", {"bundles", "boxfile"}),
        ("ocirt run b", {"bundles"}),
        ("ocirt checkpoint --manage-cgroups-mode ", {"soft", "full", "strict", "ignore"}),
        ("ocirt completion ", {"bash", "zsh", "fish"}),
        ("ocirt inspect ", {"docker.io/library/busybox:1", "localhost:5000/x:latest"}),
        ("ocirt inspect doc", {"docker.io/library/busybox:1"}),
        ("ocirt inspect x y doc", {"docker.io/library/busybox:1"}),
        ("ocirt --image-root /an/other rmi ", {"localhost/other:2"}),
        ("ocirt load --platform linux/arm", {"linux/arm64", "linux/arm/v7"}),
        ("ocirt load b", {"bundles", "boxfile"}),
        ("ocirt create --preserve-fds ", set()),
        ("ocirt create ", set()),
    ],
)
def test_what_is_offered(ask: Ask, line: str, wanted: set[str]) -> None:
    found = ask(line)
    if not wanted and any("number" in word or "value" in word for word in found):
        return  # zsh says of what kind it would be
    assert wanted == found


@pytest.mark.parametrize("verb", ["", *options.VERBS])
def test_every_flag_is_offered(place: Path, verb: str) -> None:
    for shell in ("bash", "fish"):
        if shutil.which(shell):
            assert choices(verb) <= ASK[shell](f"ocirt {verb}{' ' if verb else ''}--", place), shell


@pytest.mark.parametrize("verb", ["", "checkpoint", "exec"])
def test_flags_in_zsh(place: Path, verb: str) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh")
    assert choices(verb) <= in_zsh(f"ocirt {verb}{' ' if verb else ''}--", place)


def test_zsh_finds_it_in_a_directory(place: Path) -> None:
    """Loaded when it is used first, it completes that time too."""
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh")
    functions = place.parent / "functions"
    functions.mkdir()
    script("zsh", place).rename(functions / "_ocirt")
    setup = ZSHRC.replace("source {script}\n", "").replace("compinit -u -C -d {dump}", "compinit -u -D")
    setup = f"fpath=({functions} $fpath)\n" + setup
    assert in_zsh("ocirt st", place, setup) == {"start", "state"}


def test_every_value_is_known() -> None:
    """A new flag with a value needs a line in the table of values, and one that is gone needs none."""
    assert all(values.flags(verb) for verb in ("", *texts.flag_lines()))
    assert values.unused() == set()


@pytest.mark.parametrize("verb", texts.flag_lines())
def test_every_argument_is_known(verb: str) -> None:
    """As many as the verb needs at least."""
    assert len(values.arguments(verb)) >= texts.flag_lines()[verb][0]
    container = texts.verbs()[verb][1].startswith("<container-id>") and verb not in ("create", "restore", "run")
    assert (values.CONTAINER in values.arguments(verb)) == container


def test_another_name_of_the_command() -> None:
    """A link `runc` completes itself."""
    for make in (completion.bash, completion.zsh, completion.fish):
        assert "runc" in make("runc")
        others = ("ocirt/runtime", "ocirt/images", "ocirt completion", "ocirt manual")
        assert "ocirt" not in re.sub("|".join(others), "", make("runc"))


def test_names_with_colons_in_bash(place: Path) -> None:
    """bash completes what follows the last colon."""
    assert in_bash("ocirt rmi localhost:", place) == {"5000/x:latest"}
    assert in_bash("ocirt rmi localhost:5000/x:l", place) == {"latest"}
    assert in_bash("ocirt tag docker.io/library/busybox:1 localhost:5000/", place) == {"5000/x:latest"}


def test_a_shell_that_is_none() -> None:
    with pytest.raises(Error, match="unknown shell: csh"):
        completion.run(options.Options(), ["csh"])
