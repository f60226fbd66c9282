"""The command, with a store of its own, called in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt.cli import options
from ocirt.cli.main import command
from tests.support.layouts import Files, tar


class Cli:
    """Runs command lines."""

    def __init__(self, place: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.place = place
        self.root = place / "images"
        self._capture = capture

    def __call__(self, *args: str | Path) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of `ocirt --image-root ROOT args`."""
        self._capture.readouterr()
        status = command(options.Options("ocirt"), ["--image-root", str(self.root), *map(str, args)])
        out, err = self._capture.readouterr()
        return status, out, err

    def ok(self, *args: str | Path) -> str:
        """Standard output of a command line that must work."""
        status, out, err = self(*args)
        assert status == 0, err
        return out

    def failed(self, *args: str | Path) -> str:
        """The one line of a command line that must not."""
        status, out, err = self(*args)
        assert (status, err.count("\n")) == (1, 1), (status, out, err)
        assert err.startswith("ocirt: "), err
        return err.removeprefix("ocirt: ").rstrip("\n")

    def load(self, files: Files) -> str:
        """Load an archive; the lines that say what came."""
        path = self.place / "archive.tar"
        path.write_bytes(tar(files))
        return self.ok("load", path)


@pytest.fixture
def cli(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.delenv("OCIRT_IMAGE_ROOT", raising=False)
    monkeypatch.setattr("os.isatty", lambda fd: False)  # whoever runs the tests may have a terminal
    # And ids of their own: the process of the tests stays who it is.
    monkeypatch.setattr("ocirt_images.snapshots.namespace.enter_own", lambda: None)
    return Cli(tmp_path, capfd)
