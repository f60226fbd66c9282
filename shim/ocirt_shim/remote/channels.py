"""The channels of exec and attach, whatever carries them (no I/O): three streams, sizes of a terminal, the end."""

from __future__ import annotations

from ocirt import jsonlite
from ocirt.errors import Error
from ocirt_shim.remote import FaultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Listener(Protocol):
        """What a client's words lead to."""

        def on_ready(self) -> object:
            """All channels are there."""

        def on_input(self, data: bytes) -> object:
            """Bytes for standard input."""

        def on_input_end(self) -> object:
            """There will be no more of them."""

        def on_resize(self, rows: int, columns: int) -> object:
            """The client's terminal has another size."""

        def on_gone(self) -> object:
            """The client has said that it goes."""

    class Channels(Protocol):
        """One client. Bytes that go to it are in `outgoing`."""

        outgoing: list[bytes]

        def begin(self) -> None:
            """The upgrade was answered."""

        def receive(self, data: bytes) -> None:
            """Bytes of it. Raises FaultError."""

        def write(self, name: str, data: bytes) -> None:
            """Bytes of `stdout` or `stderr`. Nothing if the client has no use for it."""

        def finish(self, outcome: Outcome) -> None:
            """The last word."""


STDOUT, STDERR = "stdout", "stderr"
_MOST = 1 << 16  # bytes of a size that is not complete


class Wanted:
    """Which channels there are."""

    __slots__ = ("stderr", "stdin", "stdout", "terminal")

    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool, terminal: bool) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr and not terminal
        self.terminal = terminal


class Outcome:
    """How it ended: with an exit code (0 for an attach that is over), or before that, with a text."""

    __slots__ = ("code", "failure")

    def __init__(self, code: int = 0, failure: str = "") -> None:
        self.code = code
        self.failure = failure

    def text(self) -> str:
        """In words, as up to version 3; "" if all is well."""
        if self.failure:
            return self.failure
        return f"command terminated with non-zero exit code: exit status {self.code}" if self.code else ""

    def status(self) -> bytes:
        """As version 4 has it: a metav1.Status in JSON."""
        found: dict[str, Any] = {"metadata": {}, "status": "Success"}
        if self.failure:
            message = f"Internal error occurred: {self.failure}"
            details = {"causes": [{"message": self.failure}]}
            found |= {"status": "Failure", "message": message, "reason": "InternalError", "details": details, "code": 500}
        elif self.code:
            details = {"causes": [{"reason": "ExitCode", "message": str(self.code)}]}
            found |= {"status": "Failure", "message": self.text(), "reason": "NonZeroExitCode", "details": details}
        return jsonlite.dumps(found).encode()


class Sizes:
    """The channel for sizes: JSON objects {"Width": …, "Height": …}, one after the other."""

    __slots__ = ("_came",)

    def __init__(self) -> None:
        self._came = b""

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """The (rows, columns) that are complete now; of 0 is none. Raises FaultError."""
        *whole, self._came = (self._came + data).split(b"}")
        if len(self._came) > _MOST:
            raise FaultError("a size of the terminal has no end")
        found = []
        for text in whole:
            try:
                size = jsonlite.loads(text + b"}", "a size of the terminal")
                rows, columns = int(size["Height"]), int(size["Width"])
            except (Error, KeyError, TypeError, ValueError) as err:
                raise FaultError(f"a size of the terminal cannot be read: {err}") from None
            if 0 < rows <= 0xFFFF and 0 < columns <= 0xFFFF:
                found.append((rows, columns))
        return found
