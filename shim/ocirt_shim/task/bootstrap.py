"""How containerd starts a shim, and what it wants to hear: flags, environment and standard input in; an address out. No I/O here.

There are three ways to say the address, by the age of containerd:

- up to 1.6: the address alone;
- 1.7 to 2.2, which set MAX_SHIM_VERSION: JSON, {"version", "address", "protocol"};
- from 2.3 on, which send BootstrapParams on standard input: a BootstrapResult.
"""

from __future__ import annotations

from _blake2 import blake2b

from ocirt import jsonlite
from ocirt.errors import Error
from ocirt_api.messages.bootstrap import BootstrapParams, BootstrapResult
from ocirt_api.messages.google import Any
from ocirt_api.messages.options import Options
from ocirt_api.wire import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = "ttrpc"
NEWEST, OLDEST = 3, 2  # versions of the Task service
# Containers that have one of these in common share a shim, the first that is there. The first is what other shims take, too.
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
SOCKETS = "/run/containerd/s"
_DEBUG = -4  # LogLevel of bootstrap.proto
# Go's `flag`: one dash or two, the value behind a space or `=`.
_TEXTS = ("address", "bundle", "debug-socket", "id", "namespace", "publish-binary", "socket")
_SWITCHES = ("debug", "info", "v", "version")
ACTIONS = ("start", "delete")


class Asked:
    """What the command line and standard input say."""

    def __init__(self) -> None:
        self.action = ""
        self.id = ""
        self.namespace = ""
        self.address = ""  # of containerd's gRPC, which names its shims' sockets
        self.events = ""  # where events go, over ttrpc
        self.bundle = ""
        self.debug = self.info = self.version = False
        self.sockets = SOCKETS
        self.options = Options()
        self.form = "address"  # of the answer: address, json, protobuf
        self.newest = OLDEST  # the version of the Task service to announce


def read(arguments: list[str], environment: Mapping[str, str]) -> Asked:
    """What the command line says. Raises Error("usage")."""
    asked = Asked()
    values: dict[str, str] = {}
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        if name in _SWITCHES:
            values[name] = "" if equals and value.lower() in ("false", "f", "0") else "yes"
        elif name not in _TEXTS:
            raise Error("usage", f"flag provided but not defined: -{name}")
        elif not equals and not words:
            raise Error("usage", f"flag needs an argument: -{name}")
        else:
            values[name] = value if equals else words.pop(0)
    asked.action = words[0] if words else ""
    asked.id = values.get("id", "")
    asked.namespace = values.get("namespace", "")
    asked.address = values.get("address", "")
    asked.bundle = values.get("bundle", "")
    asked.debug = bool(values.get("debug"))
    asked.info = bool(values.get("info"))
    asked.version = bool(values.get("v") or values.get("version"))
    asked.events = environment.get("TTRPC_ADDRESS", "") or (asked.address and asked.address + ".ttrpc")
    newest = environment.get("MAX_SHIM_VERSION", "")
    if newest.isdecimal():
        asked.form = "json"
        asked.newest = min(max(int(newest), OLDEST), NEWEST)
    return asked


def check(asked: Asked) -> None:
    """Raise Error("usage") for a start or a delete that cannot be."""
    if asked.action not in ACTIONS:
        word = repr(asked.action) if asked.action else "nothing"
        raise Error("usage", f"start or delete is expected, not {word}", hint="containerd calls this program, not a person")
    for name, value in (("id", asked.id), ("namespace", asked.namespace)):
        if not value or "/" in value or value in (".", ".."):
            raise Error("usage", f"{value!r} is no {name}", subject=f"-{name}")


def take_input(asked: Asked, data: bytes) -> None:
    """What standard input of `start` says: BootstrapParams, or of an older containerd the runtime's options, or nothing.

    Options can be read as BootstrapParams, so those are believed only if they say what the command line does.
    Raises Error("invalid").
    """
    if not data:
        return
    try:
        params = BootstrapParams.decode(data)
    except DecodeError:
        params = BootstrapParams()
    if (params.instance_id, params.namespace) != (asked.id, asked.namespace):
        asked.options = read_options(data)
        return
    asked.form, asked.newest = "protobuf", NEWEST
    asked.debug = asked.debug or params.log_level <= _DEBUG
    asked.address = params.containerd_grpc_address or asked.address
    asked.events = params.containerd_ttrpc_address or asked.events
    asked.sockets = params.socket_dir or asked.sockets
    for extension in params.extensions:
        if extension.value is not None and extension.value.type_url.rpartition("/")[2] == Options.TYPE_URL:
            asked.options = options_of(extension.value)


def read_options(data: bytes) -> Options:
    """The options of a runtime, of an `Any` as bytes. Raises Error("invalid")."""
    try:
        return options_of(Any.decode(data))
    except DecodeError as err:
        raise Error("invalid", str(err), subject="standard input") from None


def options_of(value: Any | None) -> Options:
    """The options in an `Any`, as containerd's shim for runc has them; those of another type are not for us.

    Raises Error("invalid").
    """
    if value is None or value.type_url.rpartition("/")[2] != Options.TYPE_URL:
        return Options()
    try:
        return Options.decode(value.value)
    except DecodeError as err:
        raise Error("invalid", str(err), subject="options") from None


def answer(asked: Asked, address: str) -> bytes:
    """What `start` prints."""
    if asked.form == "protobuf":
        return BootstrapResult(version=asked.newest, address=address, protocol=PROTOCOL).encode()
    if asked.form == "json":
        return jsonlite.dumps({"version": asked.newest, "address": address, "protocol": PROTOCOL}).encode() + b"\n"
    return address.encode()


def group(asked: Asked, annotations: Mapping[str, str]) -> str:
    """What a shim is for: the container alone, or all that have this in common."""
    return next((annotations[name] for name in GROUPS if annotations.get(name)), asked.id)


def socket_path(asked: Asked, grouping: str) -> str:
    """Where the shim's socket is: another for each containerd, namespace and group, and none that another kind of shim takes."""
    name = "\0".join((asked.address, asked.namespace, grouping)).encode("utf-8", "surrogateescape")
    return f"{asked.sockets.rstrip('/')}/ocirt-{blake2b(name, digest_size=20).hexdigest()}"
