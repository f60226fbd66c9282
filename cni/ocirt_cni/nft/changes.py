"""The rules of one attachment. Not written yet: nothing is done."""

from __future__ import annotations

from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Attachment


class Changes:
    """Nothing yet."""

    def __init__(self, attachment: Attachment, plugin: str) -> None:
        self.log: list[object] = []

    def masquerade(self, prefixes: list[Prefix]) -> None:
        """Nothing yet."""

    def admit(self, device: str) -> None:
        """Nothing yet."""

    def forbid_spoofing(self, device: str, mac: str) -> None:
        """Nothing yet."""

    def commit(self) -> None:
        """Nothing yet."""


def remove(attachment: Attachment, plugin: str) -> None:
    """Nothing yet."""


def check(changes: Changes) -> None:
    """Nothing yet."""


def collect(network: str, plugin: str, valid: frozenset[tuple[str, str]]) -> None:
    """Nothing yet."""
