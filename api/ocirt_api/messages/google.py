"""What google.protobuf has for everybody: Any, Empty, Timestamp."""

from __future__ import annotations

from ocirt_api.message import Message, data, int32, int64, string
from ocirt_api.wire import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Wanted = TypeVar("Wanted", bound=Message)


class Any(Message):
    """A message of any type, with its name. containerd also puts JSON of runtime-spec into it."""

    type_url: str = string(1)
    value: bytes = data(2)

    @classmethod
    def of(cls, message: Message) -> Any:
        """Wrap a message of a class that has a TYPE_URL."""
        return cls(type_url=message.TYPE_URL, value=message.encode())

    def read(self, kind: type[Wanted]) -> Wanted:
        """The message in it. Raises DecodeError if it is of another type, or broken."""
        if self.type_url.rpartition("/")[2] != kind.TYPE_URL:
            raise DecodeError(f"{kind.TYPE_URL} was expected, not {self.type_url or 'a value without a type'}")
        return kind.decode(self.value)


class Empty(Message):
    """Nothing."""


class Timestamp(Message):
    """A moment: seconds since 1970, and nanoseconds from then on."""

    seconds: int = int64(1)
    nanos: int = int32(2)

    @classmethod
    def of(cls, nanoseconds: int) -> Timestamp:
        """The moment of so many nanoseconds since 1970 (time.time_ns)."""
        seconds, nanos = divmod(nanoseconds, 1_000_000_000)
        return cls(seconds=seconds, nanos=nanos)

    def nanoseconds(self) -> int:
        """Nanoseconds since 1970."""
        return self.seconds * 1_000_000_000 + self.nanos
