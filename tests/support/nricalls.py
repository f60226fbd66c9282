"""What tests of NRI do with plugins: make them, and look at the node while one does not answer."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.nriplugin import NriPlugin

Make = Callable[..., NriPlugin]


def later(call: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Its result, out of a thread of its own."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def body() -> None:
        try:
            future.set_result(call())
        except Exception as err:  # noqa: BLE001
            future.set_exception(err)

    threading.Thread(target=body, daemon=True).start()
    return future


@contextlib.contextmanager
def held(one: NriPlugin, method: str, call: Callable[[], Any]) -> Iterator[concurrent.futures.Future[Any]]:
    """The block runs while the plugin does not answer to a method, which `call` leads to."""
    gate = one.place / f"gate-{time.monotonic_ns()}"
    one.order(**{method: {"wait": str(gate)}})
    future = later(call)
    try:
        one.until(lambda: Path(f"{gate}.reached").exists() or future.done(), f"{method} to be asked")
        assert not future.done(), future.result()
        yield future
    finally:
        one.order()
        gate.touch()
