"""The limit of locked memory while a device program is loaded: kernels before 5.11 count what programs take."""

from __future__ import annotations

import os
from errno import EACCES, EPERM

import pytest

from ocirt.cgroups import bpf
from ocirt.kernel import process
from ocirt.kernel.ffi import CallError

MEMLOCK = 8
MOST = (1 << 64) - 1


@pytest.mark.parametrize("loads", [True, False])
@pytest.mark.parametrize("may", [True, False])
def test_the_limit_is_raised_and_put_back(monkeypatch: pytest.MonkeyPatch, loads: bool, may: bool) -> None:
    now = [(4096, 8192)]
    seen = []

    def set_limit(pid: int, resource: int, soft: int, hard: int) -> None:
        assert (pid, resource) == (0, MEMLOCK)
        if hard > now[0][1] and not may:
            raise CallError(EPERM, "prlimit64")
        now[0] = (soft, hard)

    def load(program: bytes) -> int:
        seen.append((program, *now))
        if not loads:
            raise CallError(EACCES, "bpf")
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    monkeypatch.setattr(process, "get_rlimit", lambda pid, resource: now[0])
    monkeypatch.setattr(process, "set_rlimit", set_limit)
    monkeypatch.setattr(bpf, "_load", load)
    monkeypatch.setattr(bpf, "_bpf", lambda *_: 0)
    if loads:
        bpf.load_and_attach(b"program", 7)
    else:
        with pytest.raises(CallError):
            bpf.load_and_attach(b"program", 7)
    assert seen == [(b"program", (MOST, MOST) if may else (4096, 8192))]
    assert now == [(4096, 8192)]
