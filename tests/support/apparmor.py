"""AppArmor, where this machine has it: profiles that are loaded for a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ocirt import apparmor
from ocirt.containers.host import security_modules

ALL = "capability, file, network, signal, unix, mount, umount, pivot_root, ptrace,"
# A shell that shows its own profile.
SHOW = "for f in /proc/self/attr/apparmor/current /proc/self/attr/current; do test -e $f && cat $f && break; done"


def need() -> None:
    """Skip where there is none, or nothing to load a profile with."""
    if "AppArmor" not in security_modules():
        pytest.skip("this kernel runs without AppArmor")
    if not apparmor.parser():
        pytest.skip("there is no apparmor_parser to load a profile with")


@contextmanager
def loaded(name: str, *rules: str) -> Iterator[str]:
    """The kernel has a profile that allows all but what the rules say; its name."""
    text = f"profile {name} flags=(attach_disconnected,mediate_deleted) {{ {ALL} {' '.join(rules)} }}\n"
    _run("--replace", "--skip-cache", text=text)
    try:
        yield name
    finally:
        remove(name)


def remove(name: str) -> None:
    """Have the kernel forget a profile; what it confines is not confined any more."""
    _run("--remove", text=f"profile {name} {{ }}\n")


def _run(*flags: str, text: str) -> None:
    subprocess.run([apparmor.parser(), *flags], input=text.encode(), check=True, timeout=60)
