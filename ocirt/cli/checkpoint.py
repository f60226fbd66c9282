"""`ocirt checkpoint`: write the state of a container's processes into files, by CRIU."""

from __future__ import annotations

import posix

from ocirt import paths
from ocirt.containers.checkpoint import checkpoint
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Options

SWITCHES = ("auto-dedup", "ext-unix-sk", "file-locks", "lazy-pages", "shell-job", "tcp-established")
_MORE = ("leave-running", "link-remap", "pre-dump", "tcp-skip-in-flight")


def run(options: Options, args: list[str]) -> int:
    """Checkpoint container args[0]. Raises Error, OSError."""
    flags = common(options, (*SWITCHES, *_MORE))
    flags["parent-path"] = options.get("parent-path")
    flags["page-server"] = _page_server(options.get("page-server"))
    flags["status-fd"] = _status_fd(options) if flags["lazy-pages"] else -1
    if flags["parent-path"].startswith("/"):
        raise Error("usage", "--parent-path must be relative", hint="to the images")
    paths.make_directories(flags["image-path"], 0o700)
    if flags["parent-path"]:
        _check_parent(paths.join(flags["image-path"], flags["parent-path"]))
    for text in checkpoint(options.root, args[0], flags):
        from ocirt.cli import log  # noqa: PLC0415

        log.write(options, "warning", text)
    return 0


def common(options: Options, switches: tuple[str, ...]) -> dict[str, Any]:
    """The flags that `checkpoint` and `restore` have both, by name, and `switches`. Raises Error("usage")."""
    for kind in options.get("empty-ns"):
        if kind != "network":
            raise Error("usage", f'namespace "{kind}" is not supported', hint="network is, and always left empty")
    flags: dict[str, Any] = {name: options.get(name) for name in switches}
    work = options.get("work-path")
    return flags | {
        "image-path": paths.absolute(options.get("image-path") or "checkpoint"),
        "work-path": paths.absolute(work) if work else "",
        "manage-cgroups-mode": options.get("manage-cgroups-mode"),
    }


def _check_parent(path: str) -> None:
    try:
        posix.close(posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC))
    except OSError as err:
        raise Error("usage", f"invalid --parent-path: stat {path}: {posix.strerror(err.errno or 0).lower()}") from None


def _page_server(text: str) -> tuple[str, int] | None:
    """ADDRESS:PORT, an IPv6 address in brackets; None if the flag was not given."""
    if not text:
        return None
    address, colon, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        address = ""
    if not colon or not address or not port:
        raise Error("usage", "Use --page-server ADDRESS:PORT to specify page server")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 1 << 16):
        raise Error("usage", "Invalid port number")
    return address, int(port)


def _status_fd(options: Options) -> int:
    """The descriptor that is told when lazy pages can be fetched, -1 for none. Raises Error("usage")."""
    fd: int = options.get("status-fd") if options.given("status-fd") else -1
    if fd == -1:
        return -1
    import fcntl  # noqa: PLC0415

    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL)
    except (OSError, ValueError, OverflowError):
        raise Error("usage", f"invalid --status-fd argument {fd}: bad file descriptor") from None
    if not mode & (posix.O_WRONLY | posix.O_RDWR):
        raise Error("usage", f"invalid --status-fd argument {fd}: not writable")
    return fd
