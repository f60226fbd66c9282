"""The flag parser: the tables of all verbs, and Go's syntax."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cli import help as texts
from ocirt.cli import options
from ocirt.errors import Error

EXEC = options.VERBS["exec"][2]
# What runc 1.5.2 has, by verb: a flag that is missing here breaks a caller.
RUNC = {
    "create": "--bundle -b --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds",
    "run": """--bundle -b --console-socket --pidfd-socket --detach -d --keep --pid-file --no-subreaper --no-pivot --no-new-keyring
        --preserve-fds""",
    "checkpoint": """--image-path --work-path --parent-path --leave-running --tcp-established --tcp-skip-in-flight --link-remap
        --ext-unix-sk --shell-job --lazy-pages --status-fd --page-server --file-locks --pre-dump --manage-cgroups-mode --empty-ns
        --auto-dedup""",
    "restore": """--console-socket --image-path --work-path --tcp-established --ext-unix-sk --shell-job --file-locks
        --manage-cgroups-mode --bundle -b --detach -d --pid-file --no-subreaper --no-pivot --empty-ns --auto-dedup --lazy-pages
        --lsm-profile --lsm-mount-context""",
    "start": "",
    "state": "",
    "features": "",
    "pause": "",
    "resume": "",
    "kill": "--all -a",
    "delete": "--force -f",
    "exec": """--console-socket --pidfd-socket --cwd --env -e --tty -t --user -u --additional-gids -g --process -p --detach -d
        --pid-file --process-label --apparmor --no-new-privs --cap -c --preserve-fds --cgroup --ignore-paused""",
    "list": "--format -f --quiet -q",
    "ps": "--format -f",
    "spec": "--bundle -b --rootless",
}


def words(flags: str) -> dict[str, str]:
    """Every name and alias of a flag line, with its kind."""
    found = {}
    for word in flags.split():
        name, alias, kind = options.split_word(word)
        found[name] = kind
        if alias:
            found[alias] = kind
    return found


@pytest.mark.parametrize("verb", sorted(RUNC))
def test_every_flag_of_runc_is_known(verb: str) -> None:
    known = words(options.VERBS[verb][2])
    for flag in RUNC[verb].split():
        args = [flag] if not known[flag.lstrip("-")] else [flag, "1"]
        options.parse(options.VERBS[verb][2], args, reorder=True)


@pytest.mark.parametrize("verb", sorted(options.VERBS))
def test_every_flag_has_a_help_text(verb: str) -> None:
    shown = texts.text(verb, "ocirt")
    for name in words(options.VERBS[verb][2]):
        assert ("--" if len(name) > 1 else "-") + name in shown


def test_the_help_names_every_verb_and_global_flag() -> None:
    shown = texts.text("", "ocirt")
    for verb in options.VERBS:
        assert f"\n   {verb} " in shown
    for name in words(options.GLOBAL):
        assert ("--" if len(name) > 1 else "-") + name in shown


@pytest.mark.parametrize("args", [["--root=X"], ["--root", "X"], ["-root", "X"], ["-root=X"]])
def test_the_ways_to_write_a_flag(args: list[str]) -> None:
    assert options.parse(options.GLOBAL, [*args, "state", "--root", "Y"], reorder=False) == (
        {"root": "X"},
        ["state", "--root", "Y"],
    )


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--bogus"], "flag provided but not defined: -bogus"),
        (["-x", "y"], "flag provided but not defined: -x"),
        (["---x"], "bad flag syntax: ---x"),
        (["-=x"], "bad flag syntax: -=x"),
        (["--="], "bad flag syntax: --="),
        (["--cwd"], "flag needs an argument: -cwd"),
        (["-u"], "flag needs an argument: -u"),
        (["--tty=zz"], 'invalid boolean value "zz" for -tty: parse error'),
        (["--tty="], 'invalid boolean value "" for -tty: parse error'),
        (["--preserve-fds", "x"], 'invalid value "x" for flag -preserve-fds: parse error'),
        (
            ["--preserve-fds", "9223372036854775808"],
            'invalid value "9223372036854775808" for flag -preserve-fds: value out of range',
        ),
    ],
)
def test_what_go_says_to_mistakes(args: list[str], text: str) -> None:
    with pytest.raises(Error) as caught:
        options.parse(EXEC, args, reorder=False)
    assert (caught.value.code, str(caught.value)) == ("usage", text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("-1", -1), ("0x10", 16), ("010", 8), ("0o10", 8), ("0b11", 3), ("1_000", 1000)],
)
def test_integers_as_go_reads_them(text: str, number: int) -> None:
    assert options.parse(EXEC, ["--preserve-fds", text], reorder=False) == ({"preserve-fds": number}, [])


@pytest.mark.parametrize("text", ["", " 3", "3 ", "٣", "08", "0x", "1.0", "--1"])
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(Error, match="parse error"):
        options.parse(EXEC, [f"--preserve-fds={text}"], reorder=False)


def test_a_list_grows_and_a_string_is_replaced() -> None:
    values, _ = options.parse(EXEC, ["-e", "A=1", "--env=B=2", "--cwd", "/a", "--cwd", "/b"], reorder=False)
    assert values == {"env": ["A=1", "B=2"], "cwd": "/b"}


def test_flags_of_exec_end_at_the_first_argument() -> None:
    assert options.parse(EXEC, ["-t", "c1", "ls", "-t", "--bogus"], reorder=False) == (
        {"tty": True},
        ["c1", "ls", "-t", "--bogus"],
    )


@pytest.mark.parametrize(
    ("args", "values", "rest"),
    [
        (["c1", "-f"], {"force": True}, ["c1"]),
        (["c1", "--force=false"], {"force": False}, ["c1"]),
        (["c1", "--bogus"], {}, ["c1", "--bogus"]),
        (["c1", "--", "-f"], {}, ["c1", "--", "-f"]),
        (["--", "-f"], {}, ["-f"]),
        (["-", "-f"], {"force": True}, ["-"]),
    ],
)
def test_flags_behind_arguments(args: list[str], values: dict[str, object], rest: list[str]) -> None:
    assert options.parse(options.VERBS["delete"][2], args, reorder=True) == (values, rest)


def test_help_is_found_behind_an_argument() -> None:
    assert options.parse("", ["c1", "-h"], reorder=True)[0] == {"help": True}


NAMES = sorted(words(EXEC))
ARGUMENTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["-", "--", "---", "-=", "--=x"]),
    st.builds(
        lambda dashes, name, tail: dashes + name + tail,
        st.sampled_from(["-", "--"]),
        st.sampled_from(NAMES),
        st.sampled_from(["", "=", "=1", "=x"]),
    ),
)


@given(st.sampled_from(sorted(options.VERBS)), st.lists(ARGUMENTS, max_size=8), st.booleans())
def test_the_parser_answers_or_explains(verb: str, args: list[str], reorder: bool) -> None:
    try:
        values, rest = options.parse(options.VERBS[verb][2], args, reorder=reorder)
    except Error as err:
        code = err.code
    else:
        code = "usage"
        assert set(values) <= {*words(options.VERBS[verb][2]), "help"}
        assert all(arg in args for arg in rest)
    assert code == "usage"


@given(
    st.sampled_from([name for name in NAMES if words(EXEC)[name] in ("=", "*")]),
    st.text(max_size=20),
    st.sampled_from(["-", "--"]),
)
def test_an_equals_sign_or_a_space(name: str, value: str, dashes: str) -> None:
    joined = options.parse(EXEC, [f"{dashes}{name}={value}", "c1"], reorder=False)
    apart = options.parse(EXEC, [dashes + name, value, "c1"], reorder=False)
    assert joined == apart
    (given_value,) = joined[0].values()
    assert given_value in (value, [value])


@given(st.lists(st.text(max_size=8)))
def test_what_stands_behind_the_argument_of_exec_is_untouched(tail: list[str]) -> None:
    assert options.parse(EXEC, ["c1", *tail], reorder=False) == ({}, ["c1", *tail])


def made(verb: str, *args: str) -> options.Options:
    flags = options.VERBS[verb][2]
    result = options.Options()
    result.set_verb(verb, flags, options.parse(flags, list(args), reorder=options.reorders(verb))[0])
    return result


def test_flags_that_were_not_given() -> None:
    result = made("exec", "--tty=false")
    assert (result.get("tty"), result.get("cwd"), result.get("preserve-fds"), result.get("env")) == (False, "", 0, [])
    assert result.given("tty")
    assert not result.given("cwd")
    with pytest.raises(KeyError):
        result.get("bundle")


def test_the_global_flags() -> None:
    result = options.Options()
    result.set_globals(
        {"root": "/x/../y/", "log": "file:/l", "log-format": "json", "cgroup-manager": "disabled", "rootless": "true"},
    )
    assert (result.root, result.root_given, result.log, result.log_format) == ("/y", True, "/l", "json")
    assert (result.cgroup_manager, result.systemd_cgroup, result.rootless, result.debug) == ("disabled", False, True, False)
    result = options.Options()
    result.set_globals({"systemd-cgroup": True, "log-level": "debug"})
    assert (result.cgroup_manager, result.systemd_cgroup, result.rootless, result.debug) == ("systemd", True, None, True)
    assert not result.root_given


def test_relative_paths_are_made_absolute(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    result = options.Options()
    result.set_globals({"root": "r", "log": "./l"})
    assert (result.root, result.log) == (f"{tmp_path}/r", f"{tmp_path}/l")


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("log-format", "xml", "invalid log-format: xml"),
        ("root", "/", "Option --root argument should not be set to /"),
        ("root", "/x/..", "Option --root argument should not be set to /"),
        ("cgroup-manager", "openrc", "invalid cgroup-manager: openrc (cgroupfs, systemd or disabled)"),
        ("rootless", "perhaps", "invalid rootless: perhaps (true, false or auto)"),
        ("log-level", "loud", "invalid log-level: loud"),
        ("log", "journald:x", "log journald:x: not supported yet (give a file)"),
    ],
)
def test_global_flags_that_say_nothing_known(flag: str, value: str, text: str) -> None:
    with pytest.raises(Error) as caught:
        options.Options().set_globals({flag: value})
    assert str(caught.value) == text
