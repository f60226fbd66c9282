"""Hooks that cannot be run: what is said, and what is left open. What they do is in tests/system/test_hooks.py."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import NoReturn

import pytest

from ocirt.kernel import process
from ocirt.kernel.ffi import CallError
from ocirt.kernel.steps import hooks
from tests.unit.kernel.children import open_descriptors

HOOK = {"path": "/bin/true"}


def test_no_process_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path and the kernel's reason; no descriptor stays open."""

    def clone3(*_: object) -> NoReturn:
        raise CallError(errno.EAGAIN, "clone3")

    monkeypatch.setattr(process, "clone3", clone3)
    before = open_descriptors()
    with pytest.raises(hooks.HookError) as caught:
        hooks.execute(HOOK, b"{}", "error running poststop hook #0")
    assert caught.value.filename == "error running poststop hook #0: /bin/true: resource temporarily unavailable"
    assert open_descriptors() == before


def test_no_descriptor_is_to_be_had() -> None:
    """Likewise."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    first_free = min(set(range(len(before) + 1)) - set(before))
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + 1, limits[1]))
    try:
        with pytest.raises(hooks.HookError) as caught:
            hooks.execute(HOOK, b"{}", "error running poststop hook #0")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.filename == "error running poststop hook #0: /bin/true: too many open files"
    assert open_descriptors() == before


def test_no_such_program(tmp_path: Path) -> None:
    """As the kernel says it."""
    missing = str(tmp_path / "missing")
    before = open_descriptors()
    with pytest.raises(hooks.HookError) as caught:
        hooks.execute({"path": missing}, b"{}", "error running prestart hook #1")
    assert caught.value.filename == f"error running prestart hook #1: {missing}: no such file or directory"
    assert open_descriptors() == before
