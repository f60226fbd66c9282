"""What a verb gets: its flags, and where the store of images is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ocirt_images.cli.output import out
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ocirt_images.snapshots.namespace import Mappings
    from ocirt_images.store import Store

_T = TypeVar("_T")


class Given(Protocol):
    """The part of `ocirt.cli.options.Options` that is used here."""

    name: str
    verb: str
    debug: bool
    image_root: str

    def settled(self) -> None:
        """This process may have threads from now on."""

    def get(self, flag: str) -> Any:
        """The value of one of the verb's flags: bool, str, int or list of str, by its kind."""

    def given(self, flag: str) -> bool:
        """Whether the flag stood on the command line."""


class Command:
    """One command line.

    root: the directory of the store; mappings: of the user namespace that this process has entered for it
    """

    def __init__(self, given: Given) -> None:
        self._given = given
        self.name = given.name
        self.debug = given.debug
        self.root = Path(given.image_root) if given.image_root else default_root()
        self.mappings: Mappings | None = None

    def given(self, name: str) -> bool:
        """Whether a flag stood on the command line."""
        return self._given.given(name)

    def flag(self, name: str) -> bool:
        """Whether a switch is on."""
        return bool(self._given.get(name))

    def text(self, name: str) -> str:
        """The text of a flag, "" if it was not given."""
        return str(self._given.get(name))

    def texts(self, name: str) -> list[str]:
        """The texts of a flag that may be given many times."""
        return list(self._given.get(name))

    def store(self, *, sync: bool = True) -> Store:
        """The store, opened, as a context manager. It is made if it is not there.

        What is to be read as who called (credentials, policies) has to be read before. Raises as `enter` does.
        """
        from ocirt_images.store import Store  # noqa: PLC0415  (loads sqlite3, which login has no need of)

        self.enter()
        return Store.open(self.root, sync=sync)

    def enter(self) -> None:
        """A user who has further ids goes where layers keep their owners; this process must have one thread yet.

        Raises Error("unsupported") if newuidmap(1) refuses.
        """
        if os.geteuid() != 0:
            from ocirt_images.snapshots.namespace import enter_own  # noqa: PLC0415  (root has no need of it)

            self.mappings = enter_own()

    def settled(self) -> None:
        """For a verb that waits long: no namespace is entered any more, and a Ctrl-C is to be heard whenever it comes."""
        self._given.settled()

    def for_each(self, items: Iterable[_T], do: Callable[[_T], None]) -> None:
        """Do something with each, also if it fails with one before. Raises the last Error; others are said before it."""
        failure: Error | None = None
        for item in items:
            try:
                do(item)
            except Error as err:
                if failure is not None:
                    out(f"{self.name}: {failure}\n", 2)
                failure = err
        if failure is not None:
            raise failure


def default_root() -> Path:
    """$OCIRT_IMAGE_ROOT, or the place for root's or a user's images."""
    chosen = os.environ.get("OCIRT_IMAGE_ROOT")
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/ocirt/images")
    data = os.environ.get("XDG_DATA_HOME", "")
    # The specification of base directories wants relative paths ignored.
    return Path(data if data.startswith("/") else Path.home() / ".local/share") / "ocirt/images"
