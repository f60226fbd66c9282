"""The signal that stops a container: the request's, else the image's StopSignal, else SIGTERM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt.spec import signals
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.refuse import invalid

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import ContainerConfig
    from ocirt_images.config import ImageConfig

_PREFIX = "SIGNAL_"
_DEFAULT = "SIGTERM"


@dataclass(frozen=True, slots=True)
class StopSignal:
    """number: as kill(2) takes it; status: as ContainerStatus.stop_signal says it."""

    number: int
    status: cri.Signal.ValueType


def check(config: ContainerConfig) -> None:
    """Raises Error for a number that stands for no signal."""
    if config.stop_signal not in cri.Signal.values():
        raise invalid("config.stop_signal", f"{config.stop_signal} is no signal", "one of the enumeration Signal")


def stop_signal(config: ContainerConfig, image: ImageConfig) -> StopSignal:
    """The signal of a request that was checked. An image that names none that there is gets the default, as if it named none."""
    if config.stop_signal != cri.SIGNAL_RUNTIME_DEFAULT:
        return StopSignal(number(config.stop_signal), config.stop_signal)
    for name in (image.stop_signal, _DEFAULT):
        try:
            wanted = signals.number(name)
        except Error:
            continue
        if wanted:
            return StopSignal(wanted, status(wanted))
    raise AssertionError(_DEFAULT)


def number(signal: int) -> int:
    """What kill(2) takes for a value of the enumeration other than SIGNAL_RUNTIME_DEFAULT."""
    name = cri.Signal.Name(signal).removeprefix(_PREFIX)  # type: ignore[arg-type]
    return signals.number(name.replace("PLUS", "+").replace("MINUS", "-"))


def status(wanted: int) -> cri.Signal.ValueType:
    """The value of the enumeration for a number, SIGNAL_RUNTIME_DEFAULT for one that it has not."""
    return _STATUS.get(wanted, cri.SIGNAL_RUNTIME_DEFAULT)


# Where two names share a number, the usual one is the one that `signals.name` gives.
_STATUS: dict[int, cri.Signal.ValueType] = {}
for _value in cri.Signal.values():
    if _value != cri.SIGNAL_RUNTIME_DEFAULT:
        _number = number(_value)
        if _number not in _STATUS or cri.Signal.Name(_value) == _PREFIX + signals.name(_number):
            _STATUS[_number] = _value
