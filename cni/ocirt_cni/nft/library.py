"""libnftables(3) by ctypes: commands in the language of nft(8), without a process.

It is loaded when the first command is run, which costs 4 ms; a process of `nft` costs twice as much for every transaction.
"""

from __future__ import annotations

from ctypes import CDLL, c_char_p, c_int, c_uint, c_void_p

from ocirt_cni.errors import KERNEL, UNSUPPORTED, Error

_NAME = "libnftables.so.1"


class Refused(Error):
    """A transaction that was refused as a whole; nothing of it was done. The cause is what libnftables said."""


class Nft:
    """A context of libnftables, for the network namespace that the thread is in when commands run. Not for several threads."""

    def __init__(self) -> None:
        """Raises Error(UNSUPPORTED) if the library is not installed."""
        self._context = None
        try:
            library = CDLL(_NAME)
        except OSError as err:
            hint = "install libnftables (with Debian: libnftables1)"
            raise Error(UNSUPPORTED, f"{_NAME} cannot be loaded", cause=str(err), hint=hint) from None
        library.nft_ctx_new.restype = c_void_p
        library.nft_ctx_new.argtypes = [c_uint]
        for name, *arguments in (
            ("nft_ctx_free",),
            ("nft_ctx_buffer_output",),
            ("nft_ctx_buffer_error",),
            ("nft_run_cmd_from_buffer", c_char_p),
            ("nft_ctx_get_output_buffer",),
            ("nft_ctx_get_error_buffer",),
        ):
            function = getattr(library, name)
            function.argtypes = [c_void_p, *arguments]
            function.restype = c_char_p if name.endswith("_buffer") and "get" in name else c_int
        self._library = library
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def __del__(self) -> None:
        self.close()  # a context has sockets, which a process that goes on would keep

    def run(self, commands: str) -> str:
        """Run commands, a line each, as one transaction; what they print. Raises Refused."""
        code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if code:
            raise Refused(KERNEL, "nftables refused a change", cause=error.decode(errors="replace").strip().replace("\n", " | "))
        return output.decode(errors="replace")
