"""Profiles against the model, and what is refused."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import ocirt.seccomp
from ocirt.errors import Error
from ocirt.seccomp import compile as compiler
from ocirt.seccomp import support
from ocirt.seccomp.library import load
from ocirt.seccomp.tables import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS
from ocirt.spec.check import check
from tests.seccomp_profiles import docker_default, small
from tests.support.bundle import default_config
from tests.unit.seccomp import bpf, model
from tests.unit.spec.documents import put
from tests.unit.spec.test_properties import pointers

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the model has x86_64's numbers")

ALLOW, EPERM = 0x7FFF0000, 0x00050001
VALUES = st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 64) - 1]) | st.integers(
    0,
    (1 << 64) - 1,
)
CONDITION = st.fixed_dictionaries(
    {"index": st.integers(0, 5), "value": VALUES, "op": st.sampled_from(sorted(OPERATORS))},
    optional={"valueTwo": VALUES},
)
NAMES = st.sampled_from([*model.NUMBERS, "no_such_call"])
ERRNO = st.fixed_dictionaries({"action": st.just("SCMP_ACT_ERRNO")}, optional={"errnoRet": st.integers(0, 4094)})
TRACE = st.fixed_dictionaries({"action": st.just("SCMP_ACT_TRACE")}, optional={"errnoRet": st.integers(0, 65535)})
PLAIN = st.sampled_from(sorted(set(ACTIONS) - {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"})).map(lambda name: {"action": name})
ACTION = ERRNO | TRACE | PLAIN


@st.composite
def rules(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Entries of `syscalls`."""
    found = []
    for _ in range(draw(st.integers(0, 6))):
        rule: dict[str, Any] = {"names": draw(st.lists(NAMES, min_size=1, max_size=5)), **draw(ACTION)}
        if draw(st.booleans()):
            rule["args"] = draw(st.lists(CONDITION, max_size=3))
        found.append(rule)
    return found


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """A whole profile."""
    section: dict[str, Any] = {"syscalls": draw(rules())}
    default = draw(ACTION)
    section["defaultAction"] = default["action"]
    if "errnoRet" in default:
        section["defaultErrnoRet"] = default["errnoRet"]
    section["architectures"] = draw(st.lists(st.sampled_from(sorted(model.TOKENS)), max_size=3))
    if (flags := draw(st.none() | st.lists(st.sampled_from(list(FLAGS)), max_size=5))) is not None:
        section["flags"] = flags
    return section


WRONG_IN_LIBSECCOMP = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_LE"}]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 1 << 32, "op": "SCMP_CMP_GE"}]},
    ],
}


def calls(section: dict[str, Any]) -> Iterator[tuple[int, int, list[int]]]:
    """System calls that try the borders of a profile: arguments at and beside each value of a condition, and other numbers."""
    every = [condition for rule in section["syscalls"] for condition in rule.get("args", [])]
    exact = [0] * 6
    for condition in every:
        exact[condition["index"]] = condition["value"]
    tries = [[0] * 6, [(1 << 64) - 1] * 6, exact]
    for condition in every:
        for seen in {condition["value"], condition.get("valueTwo", 0)}:
            for near in (seen - 1, seen, seen + 1, seen ^ 1 << 40, seen & 0xFFFFFFFF):
                for base in ([0] * 6, exact):
                    arguments = list(base)
                    arguments[condition["index"]] = near % (1 << 64)
                    tries.append(arguments)

    named = {name for rule in section["syscalls"] if rule.get("args") for name in rule["names"]}
    others = {number for pair in model.NUMBERS.values() for number in pair if number is not None} | {1, 335, 450, 999}
    for token in (model.X86_64, model.X86, model.X32):
        architecture = model.X86_64 if token == model.X32 else token
        for number in others:
            yield number | (model.X32_BIT if token == model.X32 else 0), architecture, exact
        for number in {found for name in named if (found := model.number(name, token)) is not None}:
            for arguments in tries:
                yield number, architecture, [one & 0xFFFFFFFF for one in arguments] if token == model.X86 else arguments
    yield 0, model.AARCH64, exact


@on_x86_64
@settings(max_examples=200)
@given(sections())
@example({"defaultAction": "SCMP_ACT_KILL", "syscalls": []})
@example({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]})
@example(WRONG_IN_LIBSECCOMP)
@example({"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": [{"names": ["openat"], "action": "SCMP_ACT_ALLOW"}]})
def test_a_program_does_what_the_profile_says(section: dict[str, Any]) -> None:
    """On every architecture, with every operator, for all kinds of borders."""
    try:
        made = compiler.compile_filter(section)
    except Error as err:
        assume("has the same conditions and another action" not in err.message)
        raise
    assert (made.flags, made.listener) == model.flags(section)
    for number, token, arguments in calls(section):
        found = bpf.run(made.program, number, token, arguments)
        expected = model.evaluate(section, number, token, arguments)
        assert found == expected, (hex(number), hex(token), arguments, hex(found), hex(expected))


TEXT = st.text(st.characters() | st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF), max_size=8)
ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 65), 1 << 65),
    st.floats(allow_nan=False),
    TEXT,
    st.sampled_from([*ACTIONS, *OPERATORS, *ARCHITECTURES, *FLAGS, *model.NUMBERS]),
    st.just([]),
    st.just({}),
    st.lists(TEXT, max_size=3),
)


@settings(max_examples=300)
@given(sections(), st.data())
def test_whatever_the_checker_lets_pass_is_translated_or_refused(section: dict[str, Any], data: st.DataObject) -> None:
    """One value of a profile is exchanged: what the checker finds no fault with becomes a filter, or an error with a pointer."""
    section["listenerPath"] = "/agent"
    document = default_config()
    document["linux"]["seccomp"] = section
    put(section, data.draw(st.sampled_from([pointer for pointer in pointers(section) if pointer])), data.draw(ANY))
    if any(finding[3] == "error" for finding in check(document)):
        return
    try:
        made = compiler.compile_filter(section)
    except Error as err:
        assert err.code in ("invalid", "unsupported")
        assert err.subject.startswith("/linux/seccomp")
    else:
        assert bpf.instructions(made.program)


@on_x86_64
def test_docker_default() -> None:
    """Docker's profile, with the tree, three architectures and clone's mask."""
    program = compiler.compile_filter(docker_default()).program
    assert bpf.run(program, 257, model.X86_64) == ALLOW
    assert bpf.run(program, 295, model.X86) == ALLOW
    assert bpf.run(program, 257 | model.X32_BIT, model.X86_64) == ALLOW
    assert bpf.run(program, 520 | model.X32_BIT, model.X86_64) == ALLOW  # execve, whose number is x32's own
    assert bpf.run(program, 165, model.X86_64) == EPERM  # mount
    assert bpf.run(program, 435, model.X86_64) == model.ENOSYS  # clone3
    assert bpf.run(program, 56, model.X86_64, [0x01200011]) == ALLOW  # fork's clone
    assert bpf.run(program, 56, model.X86_64, [0x10000000]) == EPERM  # CLONE_NEWUSER
    assert [bpf.run(program, 41, model.X86_64, [family]) for family in (2, 38, 39, 40, 41)] == [ALLOW, EPERM, ALLOW, EPERM, ALLOW]
    assert bpf.run(program, 1000, model.X86_64) == model.ENOSYS
    assert bpf.run(program, 1000, model.X86) == model.ENOSYS
    assert bpf.run(program, 1000 | model.X32_BIT, model.X86_64) == model.ENOSYS
    assert bpf.run(program, 0, model.AARCH64) == model.KILL


def test_a_small_profile() -> None:
    """One rule's errno differs from the other's."""
    if platform.machine() == "x86_64":
        program = compiler.compile_filter(small()).program
        assert [bpf.run(program, number, model.X86_64) for number in (0, 246, 304, 323, 1000)] == [
            ALLOW, EPERM, EPERM, model.ENOSYS, ALLOW,
        ]  # fmt: skip
    assert len(compiler.compile_filter(small()).program) < 200


RULE: dict[str, Any] = {"names": ["close", "getpid"], "action": "SCMP_ACT_ERRNO"}
CONDITIONS: dict[str, Any] = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}


def _section(**changes: object) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [RULE]} | changes


def _rule(**changes: object) -> dict[str, Any]:
    return _section(syscalls=[RULE, RULE | changes])


@pytest.mark.parametrize(
    ("section", "code", "subject"),
    [
        (_section(defaultAction="SCMP_ACT_MAYBE"), "invalid", "/defaultAction"),
        ({"syscalls": []}, "invalid", "/defaultAction"),
        (_section(defaultErrnoRet=1), "invalid", "/defaultErrnoRet"),
        (_section(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=4095), "invalid", "/defaultErrnoRet"),
        (_section(architectures=["SCMP_ARCH_X86_64", "x86"]), "invalid", "/architectures/1"),
        (_section(flags=["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_NEW"]), "invalid", "/flags/1"),
        (_rule(action="SCMP_ACT_NO"), "invalid", "/syscalls/1/action"),
        (_rule(errnoRet=5000), "invalid", "/syscalls/1/errnoRet"),
        (_rule(action="SCMP_ACT_TRACE", errnoRet=65536), "invalid", "/syscalls/1/errnoRet"),
        (_rule(action="SCMP_ACT_KILL", errnoRet=1), "invalid", "/syscalls/1/errnoRet"),
        (_rule(names=["close", ""]), "invalid", "/syscalls/1/names/1"),
        (_rule(args=[CONDITIONS, CONDITIONS | {"op": "=="}]), "invalid", "/syscalls/1/args/1/op"),
        (_rule(args=[CONDITIONS | {"index": 6}]), "invalid", "/syscalls/1/args/0/index"),
        (
            _section(syscalls=[RULE | {"args": [CONDITIONS]}, RULE | {"args": [CONDITIONS], "errnoRet": 5}]),
            "invalid",
            "/syscalls/1",
        ),
    ],
)
def test_what_is_refused(section: dict[str, Any], code: str, subject: str) -> None:
    """The error names the pointer, below the section's own."""
    for pointer in ("/linux/seccomp", "/x"):
        with pytest.raises(Error) as caught:
            compiler.compile_filter(section, pointer=pointer)
        assert (caught.value.code, caught.value.subject) == (code, pointer + subject)


@on_x86_64
def test_architectures_that_this_machine_cannot_have() -> None:
    """Another byte order, and an architecture that this libseccomp does not know."""
    with pytest.raises(Error, match="/architectures/0: the byte order is not this machine's"):
        compiler.compile_filter(_section(architectures=["SCMP_ARCH_S390X"]))
    if load().version < (2, 6, 0):
        with pytest.raises(Error, match="/architectures/1: .* does not know") as caught:
            compiler.compile_filter(_section(architectures=["SCMP_ARCH_X86", "SCMP_ARCH_LOONGARCH64"]))
        assert caught.value.code == "unsupported"


def test_a_profile_that_is_too_long() -> None:
    """The kernel's limit is told before the kernel would say EINVAL."""
    conditions = [{"index": index, "value": 0, "op": "SCMP_CMP_NE"} for index in range(6)]
    many = [
        RULE | {"names": ["close"], "args": [one | {"value": (step << 33) + step} for one in conditions]} for step in range(200)
    ]
    with pytest.raises(Error, match="instructions, and the kernel takes 4096"):
        compiler.compile_filter(_section(syscalls=many))


def test_unknown_names_are_skipped() -> None:
    """A name with a NUL inside is unknown too: C would see the call before it."""
    plain = compiler.compile_filter(_section(syscalls=[])).program
    rule = {"names": ["no_such_call", "getpid\0x", "cl\u00f6se", "close\udcff", "\ud800"], "action": "SCMP_ACT_KILL"}
    assert compiler.compile_filter(_section(syscalls=[rule])).program == plain


def test_rules_that_repeat_the_default_are_skipped() -> None:
    """libseccomp refuses them."""
    plain = compiler.compile_filter(_section(syscalls=[])).program
    assert compiler.compile_filter(_section(syscalls=[RULE | {"action": "SCMP_ACT_ALLOW"}])).program == plain


@pytest.mark.parametrize(
    ("names", "flags", "listening"),
    [
        (None, ocirt.seccomp.FLAG_SPEC_ALLOW, ocirt.seccomp.FLAG_SPEC_ALLOW),
        ([], 0, 0),
        (["SECCOMP_FILTER_FLAG_TSYNC"], 0, 0),
        (["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"], 2, 2),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"], 6, 6),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], 0, ocirt.seccomp.FLAG_WAIT_KILLABLE_RECV),
    ],
)
def test_flags(monkeypatch: pytest.MonkeyPatch, names: list[str] | None, flags: int, listening: int) -> None:
    """SPEC_ALLOW unless flags are given, even none; a listener only for a profile that notifies."""
    monkeypatch.setattr(compiler, "flag_supported", lambda _flag: True)
    made = compiler.compile_filter(_section(flags=names, listenerPath="/unused"))
    assert (made.flags, made.listener) == (flags, False)
    made = compiler.compile_filter(_section(flags=names, syscalls=[RULE | {"action": "SCMP_ACT_NOTIFY"}]))
    assert (made.flags, made.listener) == (listening | ocirt.seccomp.FLAG_NEW_LISTENER, True)


def test_flags_of_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for by name is refused; what is only the default is left out."""
    monkeypatch.setattr(compiler, "flag_supported", lambda _flag: False)
    assert compiler.compile_filter(_section()).flags == 0
    assert compiler.compile_filter(_section(flags=["SECCOMP_FILTER_FLAG_TSYNC"])).flags == 0
    with pytest.raises(Error, match="/flags/0: this kernel does not know SECCOMP_FILTER_FLAG_LOG") as caught:
        compiler.compile_filter(_section(flags=["SECCOMP_FILTER_FLAG_LOG"]))
    assert caught.value.code == "unsupported"


def test_supported() -> None:
    """What `features` tells: all that the tables know, and of the flags those of this kernel."""
    told = support.supported()
    assert told["enabled"] is True
    assert told["actions"] == sorted(ACTIONS)
    assert told["operators"] == sorted(OPERATORS)
    assert told["archs"] == sorted(ARCHITECTURES)
    assert told["knownFlags"] == list(FLAGS)
    assert told["supportedFlags"] == [name for name in told["knownFlags"] if name in told["supportedFlags"]]
    assert not compiler.flag_supported(1 << 20)


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libseccomp a profile is refused with a hint, and `features` says so."""
    monkeypatch.setattr("ocirt.seccomp.library._loaded", [])
    monkeypatch.setattr("ocirt.seccomp.library.LIBRARY", "libnothere.so.0")
    monkeypatch.setattr("ocirt.seccomp.library.library_places", lambda: ["/nonexistent/libseccomp.so.2"])
    assert support.supported() == {"enabled": False}
    with pytest.raises(Error, match="libseccomp is needed") as caught:
        compiler.compile_filter(_section())
    assert caught.value.code == "unsupported"
