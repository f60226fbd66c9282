"""A plugin as the runtime sees it: registered, configured, synchronised, asked."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

import ocirt
from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.nri import api_pb2 as nri
from ocirt_api.ttrpc import LIMIT, TooLargeError
from ocirt_cri.nri.calls import METHODS
from ocirt_cri.nri.connection import AnswerError, Connection, LostError

M = TypeVar("M", bound=Message)
VERSION = "v0.12.5"  # of containerd/nri, whose contract this is
ALL = (1 << (nri.LAST - 1)) - 1
# What has an answer that counts, or came later than StateChange: plugins without the method cannot be told another way.
_OWN_ANSWER = (
    nri.UPDATE_POD_SANDBOX,
    nri.CREATE_CONTAINER,
    nri.UPDATE_CONTAINER,
    nri.STOP_CONTAINER,
    nri.VALIDATE_CONTAINER_ADJUSTMENT,
)
_AT_ONCE = LIMIT - (64 << 10)  # bytes of pods and containers in one message of Synchronize
_SHUTDOWN = 1.0  # seconds that a plugin has to hear that the runtime ends
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. registration: to register, and to take in what there is; request: to answer anything else."""

    registration: float
    request: float


class Peer:
    """One plugin, from its connection on. launched: its process, if it is one of ours; `config`: what Configure brings it."""

    def __init__(
        self,
        patience: Callable[[], Patience],
        update: Callable[[Peer, nri.UpdateContainersRequest], Awaitable[nri.UpdateContainersResponse]],
        lost: Callable[[Peer], None],
        *,
        index: str = "",
        base: str = "",
        config: str = "",
        launched: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.index, self.base = index, base
        self.launched = launched
        self.is_lost = False
        self._patience = patience
        self._update = update
        self._config = config
        self._lost = lost
        self._events = 0
        self._policy = nri.FailurePolicy()
        self._registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._old: set[int] = set()  # events that it wants by StateChange
        self.connection = Connection(self._serve, self._connection_lost)

    @property
    def name(self) -> str:
        """As users know it: INDEX-NAME."""
        return f"{self.index or '??'}-{self.base or 'plugin'}"

    @property
    def is_configured(self) -> bool:
        """Whether it is known, and knows the runtime."""
        return self._events != 0 and not self.is_lost

    def wants(self, event: int) -> bool:
        """Whether it asked to be told."""
        return bool(self._events & (1 << (event - 1))) and not self.is_lost

    # -- its beginning --

    async def register(self) -> None:
        """Wait until it has said who it is, and configure it. Raises Error."""
        patience = self._patience()
        try:
            async with asyncio.timeout(patience.registration):
                await self._registered
        except TimeoutError:
            raise Error("unavailable", f"did not register within {patience.registration:g} s", subject=self._subject) from None
        request = nri.ConfigureRequest(
            config=self._config,
            runtime_name="ocirt",
            runtime_version=ocirt.__version__,
            registration_timeout=int(patience.registration * 1000),
            request_timeout=int(patience.request * 1000),
            NRI_version=VERSION,
        )
        answer = await self._must("Configure", request, nri.ConfigureResponse, patience.request)
        if answer.events & ~ALL:
            raise Error("invalid", f"wants events that there are not: {answer.events & ~ALL:#x}", subject=self._subject)
        self._events = answer.events or ALL
        self._policy = answer.failure_policy

    async def synchronize(
        self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]
    ) -> Sequence[nri.ContainerUpdate]:
        """Tell it what there is, in several messages if need be: what it wants changed of it. Raises Error."""
        for request in parts(pods, containers):
            answer = await self._must("Synchronize", request, nri.SynchronizeResponse, self._patience().registration)
            if answer.more != request.more or (request.more and answer.update):
                raise Error("unsupported", "does not take what there is in parts", subject=self._subject)
        return answer.update

    async def shutdown(self) -> None:
        """Tell it that the runtime ends."""
        try:
            await self.connection.call("Shutdown", b"", _SHUTDOWN)
        except (AnswerError, LostError, TimeoutError):
            pass  # it will see that the connection does

    def close(self) -> None:
        """End the connection to it."""
        self.connection.close()

    async def _must(self, method: str, request: Message, answer: type[M], seconds: float) -> M:
        try:
            return await self._call(method, request, answer, seconds)
        except TimeoutError:
            raise Error("unavailable", f"did not answer {method} within {seconds:g} s", subject=self._subject) from None
        except (AnswerError, LostError, TooLargeError) as err:
            raise Error("unavailable", f"failed to answer {method}", subject=self._subject, cause=str(err)) from None

    # -- its life --

    async def ask(self, event: int, request: Message, answer: type[M]) -> M | None:
        """Its answer to an event; None: it did not ask for it, or is gone now, and what it was asked about goes on without it.

        Raises Error: it says no; or it did not answer, and wanted that to count as a no; or "exhausted": what it is to be asked
        about fits into no message, which is not its fault.
        """
        if not self.wants(event):
            return None
        seconds = self._patience().request
        try:
            if event in self._old:
                return await self._state_change(event, request, answer, seconds)
            try:
                return await self._call(METHODS[event], request, answer, seconds)
            except AnswerError as err:
                if err.code != status.UNIMPLEMENTED or event in _OWN_ANSWER:
                    raise
                found = await self._state_change(event, request, answer, seconds)
                self._old.add(event)
                _log.info("%s has no %s: it is told by StateChange", self._subject, METHODS[event])
                return found
        except AnswerError as err:
            raise Error("kernel", f"{METHODS[event]} failed", subject=self._subject, cause=str(err)) from None
        except TooLargeError as err:
            what = f"is too large for {METHODS[event]} of {self._subject}"
            raise Error("exhausted", what, subject=_named(request), cause=str(err)) from None
        except (LostError, TimeoutError) as err:
            self._failed(event, err, seconds)
            return None

    async def validate(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        """Ask whether what all plugins want is allowed. Raises Error if not, and also if it does not answer."""
        event = nri.VALIDATE_CONTAINER_ADJUSTMENT
        if not self.wants(event):
            return
        answer = await self.ask(event, request, nri.ValidateContainerAdjustmentResponse)
        if answer is None:
            raise Error("kernel", "did not validate the container", subject=self._subject)
        if answer.reject:
            raise Error("kernel", "rejects the container", subject=self._subject, cause=answer.reason)

    def _failed(self, event: int, err: Exception, seconds: float) -> None:
        why = f"no answer within {seconds:g} s" if isinstance(err, TimeoutError) else str(err)
        kept = isinstance(err, TimeoutError) and self._policy.keep_connected
        _log.error("%s: %s: %s%s", self._subject, METHODS[event], why, "" if kept else "; it is asked no more")
        if not kept:
            self.is_lost = True
            self.close()
        if self._policy.fail_request:
            raise Error("unavailable", f"failed to handle {METHODS[event]}", subject=self._subject, cause=why) from None

    async def _state_change(self, event: int, request: Message, answer: type[M], seconds: float) -> M:
        change = nri.StateChangeEvent(event=event)  # type: ignore[arg-type]
        change.pod.CopyFrom(request.pod)  # type: ignore[attr-defined]
        if "container" in request.DESCRIPTOR.fields_by_name:
            change.container.CopyFrom(request.container)  # type: ignore[attr-defined]
        await self._call("StateChange", change, nri.Empty, seconds)
        return answer()

    async def _call(self, method: str, request: Message, answer: type[M], seconds: float) -> M:
        payload = await self.connection.call(method, request.SerializeToString(), seconds)
        try:
            return answer.FromString(payload)
        except DecodeError as err:
            raise LostError(f"its answer to {method} cannot be read: {err}") from None

    # -- what it asks --

    async def _serve(self, method: str, payload: bytes) -> bytes:
        try:
            if method == "RegisterPlugin":
                self._register(nri.RegisterPluginRequest.FromString(payload))
                return nri.Empty().SerializeToString()
            if method == "UpdateContainers":
                request = nri.UpdateContainersRequest.FromString(payload)
                return (await self._update(self, request)).SerializeToString()
        except DecodeError as err:
            raise Error("invalid", f"the request of {method} cannot be read", cause=str(err)) from None
        raise Error("unsupported", f"there is no method {method[:80]!r}")

    def _register(self, request: nri.RegisterPluginRequest) -> None:
        if self.launched is None:
            check_index(request.plugin_idx)
            check_base(request.plugin_name)
            self.index, self.base = request.plugin_idx, request.plugin_name
        if not self._registered.done():
            self._registered.set_result(None)

    def _connection_lost(self) -> None:
        if not self._registered.done():
            self._registered.set_exception(Error("unavailable", "has ended the connection", subject=self._subject))
            self._registered.exception()  # somebody may not wait for it yet, or any more
        self.is_lost = True
        self._lost(self)

    @property
    def _subject(self) -> str:
        return f"NRI plugin {self.name}"


def check_index(index: str) -> None:
    """Raises Error("invalid") unless it is two digits."""
    if len(index) != 2 or not index.isascii() or not index.isdecimal():
        raise Error("invalid", f"{index[:80]!r} is no index of a plugin", hint="two digits: plugins are asked in this order")


def check_base(name: str) -> None:
    """Raises Error("invalid") for a name with other characters than letters, digits and `_.+-`."""
    if not name or not all(one.isascii() and (one.isalnum() or one in "_.+-") for one in name):
        raise Error("invalid", f"{name[:80]!r} is no name of a plugin", hint="letters, digits, and _.+-")


def _named(request: Message) -> str:
    """What an event is about: a container, or a pod."""
    if "container" in request.DESCRIPTOR.fields_by_name:
        return f"container {request.container.id}"  # type: ignore[attr-defined]
    return f"pod {request.pod.id}"  # type: ignore[attr-defined]


def parts(pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]) -> list[nri.SynchronizeRequest]:
    """All of these in as few messages as hold them. There is always one, and all but the last have `more`.

    What does not fit into one alone is left out: the plugin is better there without it than not there.
    """
    found = [nri.SynchronizeRequest()]
    left = _AT_ONCE
    for name, objects in (("pods", pods), ("containers", containers)):
        for one in objects:
            size = one.ByteSize() + 8  # of its tag and its length
            if size > _AT_ONCE:
                _log.warning("%s: %d bytes are too many for Synchronize: plugins do not see it", one.id, size)
                continue
            if size > left and left < _AT_ONCE:
                found[-1].more = True
                found.append(nri.SynchronizeRequest())
                left = _AT_ONCE
            left -= size
            getattr(found[-1], name).add().CopyFrom(one)
    return found
