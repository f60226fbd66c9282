"""`ocirt delete`: remove what a container holds."""

from __future__ import annotations

from ocirt.containers.delete import delete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Delete container args[0]. Raises Error."""
    warn(options, delete(options.root, args[0], force=options.get("force")))
    return 0


def warn(options: Options, said: list[str]) -> None:
    """Log what hooks complained of."""
    if said:
        from ocirt.cli import log  # noqa: PLC0415

        for text in said:
            log.write(options, "warning", text)
