"""For plugins of NRI that are written in Python; with ocirt, or with any other runtime that has NRI.

    from ocirt_cri.nri.plugin import Container, ContainerAdjustment, Plugin, PodSandbox, run

    class Greeting(Plugin):
        def create_container(self, pod: PodSandbox, container: Container) -> ContainerAdjustment:
            adjust = ContainerAdjustment()
            adjust.env.add(key="GREETING", value=f"hello from {pod.name}")
            return adjust

    run(Greeting())

A plugin has the methods of the events that it wants. It says no by raising an exception, whose text the runtime is told. Methods
are called one after the other, in a thread of their own.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from ocirt_api import status
from ocirt_api.nri.api_pb2 import (
    LAST,
    ConfigureRequest,
    ConfigureResponse,
    Container,
    ContainerAdjustment,
    ContainerEviction,
    ContainerUpdate,
    CreateContainerResponse,
    Empty,
    FailurePolicy,
    LinuxResources,
    PodSandbox,
    RegisterPluginRequest,
    StateChangeEvent,
    StopContainerResponse,
    SynchronizeRequest,
    SynchronizeResponse,
    UpdateContainerResponse,
    UpdateContainersRequest,
    UpdateContainersResponse,
    ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
)
from ocirt_api.nri.mux import PLUGIN, RUNTIME
from ocirt_api.ttrpc import Refused, RequestReceived, ResponseReceived
from ocirt_cri.nri import calls
from ocirt_cri.nri.link import Link

__all__ = [
    "Container",
    "ContainerAdjustment",
    "ContainerEviction",
    "ContainerUpdate",
    "EndedError",
    "FailurePolicy",
    "LinuxResources",
    "Plugin",
    "PluginError",
    "PodSandbox",
    "ValidateContainerAdjustmentRequest",
    "run",
]

SOCKET = "/var/run/nri/nri.sock"
_PIECE = 1 << 16
_PATIENCE = 30.0  # seconds for the runtime to answer
_PAUSE = 1.0  # seconds between attempts to connect again


class PluginError(Exception):
    """The runtime does not do what the plugin asks."""


class EndedError(PluginError):
    """The runtime has ended the connection before it answered."""


class Plugin:
    """The base of plugins. Of the methods below `configure` and `synchronize` may be there anyway; the events that a plugin is
    told are those of the other methods that it defines.

    run_pod_sandbox(pod), update_pod_sandbox(pod, overhead, resources), post_update_pod_sandbox(pod), stop_pod_sandbox(pod),
    remove_pod_sandbox(pod): nothing is returned.
    create_container(pod, container): a ContainerAdjustment, or None; or such a thing and ContainerUpdates of others, as a tuple.
    update_container(pod, container, resources), stop_container(pod, container): ContainerUpdates, or None.
    post_create_container, start_container, post_start_container, post_update_container, remove_container(pod, container):
    nothing is returned.
    validate_container_adjustment(request): nothing; an exception rejects the container.
    """

    failure_policy: FailurePolicy | None = None  # what becomes of a request, and of the plugin, if it does not answer in time

    def configure(self, config: str, runtime: str, version: str) -> None:
        """What the runtime has for it (a file of nri.config_dir), and who that is."""

    def synchronize(self, pods: list[PodSandbox], containers: list[Container]) -> Iterable[ContainerUpdate] | None:
        """What there is already. Returns what is to be changed of it."""
        del pods, containers
        return None

    def shutdown(self) -> None:
        """The runtime ends."""

    def update_containers(
        self, updates: Iterable[ContainerUpdate] = (), evict: Iterable[ContainerEviction] = ()
    ) -> list[ContainerUpdate]:
        """Change, or end, containers unasked: from any thread, and also within a method. Returns the updates that failed.

        Raises PluginError.
        """
        if self._stub is None:
            raise PluginError("the plugin does not run")
        request = UpdateContainersRequest(update=list(updates), evict=list(evict))
        return list(self._stub.call("UpdateContainers", request, UpdateContainersResponse).failed)

    _stub: _Stub | None = None


def run(plugin: Plugin, *, name: str = "", index: str = "", path: str = SOCKET, reconnect: bool = False) -> None:
    """Be a plugin until the runtime ends the connection. Raises OSError, PluginError.

    A runtime that has started this process has said what it is called, and has given it a socket. Else it connects to `path`, as
    `index`-`name`; with `reconnect` also whenever the runtime is there again, and this only ends by a PluginError.
    """
    name = os.environ.get("NRI_PLUGIN_NAME") or name
    index = os.environ.get("NRI_PLUGIN_IDX") or index
    if inherited := os.environ.get("NRI_PLUGIN_SOCKET"):
        with socket.socket(fileno=int(inherited)) as connection:
            _serve(plugin, connection, name, index)
        return
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                _serve(plugin, connection, name, index)
        except (OSError, EndedError):
            if not reconnect:
                raise
        if not reconnect:
            return
        time.sleep(_PAUSE)


def _serve(plugin: Plugin, connection: socket.socket, name: str, index: str) -> None:
    stub = _Stub(plugin, connection)
    plugin._stub = stub
    try:
        stub.serve(name, index)
    finally:
        plugin._stub = None


class _Stub:
    """The connection. One thread reads, one calls the plugin's methods, any may ask the runtime."""

    def __init__(self, plugin: Plugin, connection: socket.socket) -> None:
        self._plugin = plugin
        self._socket = connection
        self._link = Link(serves=PLUGIN, calls=RUNTIME)
        self._lock = threading.Lock()  # of the link, and of what is sent
        self._waiting: dict[int, queue.SimpleQueue[ResponseReceived | None]] = {}
        self._requests: queue.SimpleQueue[RequestReceived | None] = queue.SimpleQueue()
        self._pods: list[PodSandbox] = []
        self._containers: list[Container] = []
        self._events = events_of(plugin)

    def serve(self, name: str, index: str) -> None:
        """Until the connection ends."""
        worker = threading.Thread(target=self._work, name="NRI", daemon=True)
        worker.start()
        failed: list[Exception] = []
        registering = threading.Thread(target=self._register, args=(name, index, failed), name="NRI registration", daemon=True)
        registering.start()
        try:
            while data := self._read():
                with self._lock:
                    events = self._link.receive(data)
                for event in events:
                    self._take(event)
        finally:
            self._requests.put(None)
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            for one in waiting.values():
                one.put(None)
        worker.join()
        registering.join()
        if failed:
            raise failed[0]

    def call(self, method: str, request: Message, answer: type[Any]) -> Any:
        """Ask the runtime. Raises PluginError."""
        found: queue.SimpleQueue[ResponseReceived | None] = queue.SimpleQueue()
        with self._lock:
            stream, sent = self._link.request(calls.RUNTIME_SERVICE, method, request.SerializeToString())
            self._waiting[stream] = found
            self._socket.sendall(sent)
        try:
            response = found.get(timeout=_PATIENCE)
        except queue.Empty:
            raise PluginError(f"the runtime did not answer {method} within {_PATIENCE:g} s") from None
        if response is None:
            raise EndedError("the runtime has ended the connection")
        if response.status.code != status.OK:
            raise PluginError(response.status.message)
        return answer.FromString(response.payload)

    def _read(self) -> bytes:
        try:
            return self._socket.recv(_PIECE)
        except ConnectionResetError:
            return b""

    def _register(self, name: str, index: str, failed: list[Exception]) -> None:
        try:
            self.call("RegisterPlugin", RegisterPluginRequest(plugin_name=name, plugin_idx=index), Empty)
        except (PluginError, OSError) as err:
            failed.append(err)
            self._shut()

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is already

    def _take(self, event: RequestReceived | ResponseReceived | Refused) -> None:
        if isinstance(event, Refused):
            with self._lock:
                self._socket.sendall(event.answer)
        elif isinstance(event, ResponseReceived):
            with self._lock:
                waiting = self._waiting.pop(event.stream, None)
            if waiting is not None:
                waiting.put(event)
        else:
            self._requests.put(event)

    def _work(self) -> None:
        while (event := self._requests.get()) is not None:
            code, text, payload = status.OK, "", b""
            try:
                payload = self._answer(event.request.method, event.request.payload).SerializeToString()
            except NotImplementedError as err:
                code, text = status.UNIMPLEMENTED, str(err)
            except Exception as err:  # noqa: BLE001  (whatever it is, the runtime is told)
                code, text = status.UNKNOWN, str(err) or type(err).__name__
                sys.stderr.write(f"{event.request.method}: {type(err).__name__}: {err}\n")
            with self._lock:
                try:
                    self._socket.sendall(self._link.respond(event.stream, payload, code=code, text=text))
                except OSError:
                    return  # the connection has ended

    def _answer(self, method: str, payload: bytes) -> Message:
        if method == "Configure":
            request = ConfigureRequest.FromString(payload)
            self._plugin.configure(request.config, request.runtime_name, request.runtime_version)
            return ConfigureResponse(events=self._events, failure_policy=self._plugin.failure_policy)
        if method == "Synchronize":
            return self._synchronize(SynchronizeRequest.FromString(payload))
        if method == "Shutdown":
            self._plugin.shutdown()
            return Empty()
        if method == "StateChange":
            change = StateChangeEvent.FromString(payload)
            self._tell(calls.METHODS[change.event], change)
            return Empty()
        if method not in calls.REQUESTS:
            raise NotImplementedError(f"there is no method {method[:80]!r}")
        return self._tell(method, calls.REQUESTS[method].FromString(payload))

    def _synchronize(self, request: SynchronizeRequest) -> SynchronizeResponse:
        self._pods += request.pods
        self._containers += request.containers
        if request.more:
            return SynchronizeResponse(more=True)
        pods, self._pods = self._pods, []
        containers, self._containers = self._containers, []
        return SynchronizeResponse(update=list(self._plugin.synchronize(pods, containers) or ()))

    def _tell(self, method: str, request: Any) -> Message:
        function: Callable[..., Any] | None = getattr(self._plugin, calls.snake(method), None)
        if function is None:
            raise NotImplementedError(f"this plugin has no {method}")
        if method == "ValidateContainerAdjustment":
            try:
                function(request)
            except Exception as err:  # noqa: BLE001  (this is how it rejects)
                return ValidateContainerAdjustmentResponse(reject=True, reason=str(err) or type(err).__name__)
            return ValidateContainerAdjustmentResponse()
        if method == "UpdatePodSandbox":
            function(request.pod, request.overhead_linux_resources, request.linux_resources)
        elif "PodSandbox" in method:
            function(request.pod)
        elif method == "CreateContainer":
            found = function(request.pod, request.container)
            adjust, updates = found if isinstance(found, tuple) else (found, ())
            return CreateContainerResponse(adjust=adjust, update=list(updates or ()))
        elif method == "UpdateContainer":
            return UpdateContainerResponse(update=list(function(request.pod, request.container, request.linux_resources) or ()))
        elif method == "StopContainer":
            return StopContainerResponse(update=list(function(request.pod, request.container) or ()))
        else:
            function(request.pod, request.container)
        return Empty()  # as good as any other message without a field


def events_of(plugin: Plugin) -> int:
    """The events that a plugin has methods for, as Configure is answered. Raises PluginError if there are none."""
    found = sum(1 << (event - 1) for event in range(1, LAST) if hasattr(plugin, calls.snake(calls.METHODS[event])))
    if not found:
        names = ", ".join(calls.snake(calls.METHODS[event]) for event in range(1, LAST))
        raise PluginError(f"{type(plugin).__name__} has none of the methods of events ({names})")
    return found
