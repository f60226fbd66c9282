"""The verbs for images as processes: pipes, signals, kills, full disks, users, terminals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.build import ROOT, copy_clone
from tests.support.isolation import mount, umount
from tests.support.layouts import Image, image, layer, named, tar
from tests.support.terminal import Terminal

pytestmark = pytest.mark.ocirt_only("runc has no images")

X = "localhost/x:1"
COMMAND = ROOT / "build" / "ocirt"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


@pytest.fixture(scope="module")
def big() -> Image:
    """An image with a layer of some megabytes that no compression makes smaller."""
    return image(layer("a", "one"), layer("big", os.urandom(4 << 20).hex(), compression=""), Cmd=["sh"])


@pytest.fixture
def archive(tmp_path: Path, big: Image) -> Path:
    path = tmp_path / "archive.tar"
    path.write_bytes(tar(named(big, X)))
    return path


def line(root: Path, *args: str | Path) -> list[str | Path]:
    return [COMMAND, "--image-root", root, *args]


def run(root: Path, *args: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        line(root, *args), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, **options
    )


def ok(root: Path, *args: str | Path) -> str:
    done = run(root, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def loading(root: Path, data: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A load that has got `data` on its standard input and waits for more."""
    command = line(root, "load", "--json")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data)
        process.stdin.flush()
        while b"LayerProgress" not in process.stdout.readline():
            assert process.poll() is None
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_from_one_store_to_another(tmp_path: Path, archive: Path) -> None:
    """By a pipe, and the same bytes come out again."""
    one, other = tmp_path / "one", tmp_path / "other"
    ok(one, "load", archive)
    with subprocess.Popen(line(one, "save", X), stdout=subprocess.PIPE) as saving:
        done = subprocess.run(line(other, "load", "-q"), stdin=saving.stdout, capture_output=True, text=True, check=True)
    assert saving.returncode == 0
    assert done.stdout == ok(one, "images", "-q", "--no-trunc")
    ok(one, "save", "-o", tmp_path / "a.tar", X)
    ok(other, "save", "-o", tmp_path / "b.tar", X)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_ctrl_c(tmp_path: Path, archive: Path) -> None:
    """Status 130 and one line; what came stays, and the next load goes on."""
    root, data = tmp_path / "root", archive.read_bytes()
    with loading(root, data[: len(data) // 2]) as process:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)  # its input stays open: the end of that would be an error of its own
        assert process.stderr is not None
        err = process.stderr.read()
    assert (process.returncode, err) == (130, b"ocirt: cancelled; run it again to go on\n")
    assert sum(path.stat().st_size for path in (root / "ingest").iterdir()) > 1 << 20
    assert ok(root, "images", "--names") == ""
    assert ok(root, "load", archive) == f"Loaded image: {X}\n"
    assert run(root, "fsck").stdout == ""


def test_ctrl_c_that_is_ignored(tmp_path: Path, archive: Path) -> None:
    """As under nohup."""
    root, data = tmp_path / "root", archive.read_bytes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with loading(root, data[: len(data) // 2]) as process:
            process.send_signal(signal.SIGINT)
            process.communicate(data[len(data) // 2 :], timeout=30)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert process.returncode == 0
    assert ok(root, "images", "--names") == f"{X}\n"


def test_a_load_that_is_killed(tmp_path: Path, archive: Path) -> None:
    """Nothing is wrong with the store, and the next load goes on."""
    root, data = tmp_path / "root", archive.read_bytes()
    with loading(root, data[: len(data) // 2]) as process:
        process.kill()
        process.wait(timeout=30)
    assert run(root, "fsck").returncode == 0
    assert ok(root, "load", archive) == f"Loaded image: {X}\n"
    assert run(root, "fsck").stdout == ""


def test_two_loads_at_once(tmp_path: Path, archive: Path, big: Image) -> None:
    """One brings the layer; the other waits, and takes over when the first is killed."""
    root, data = tmp_path / "root", archive.read_bytes()
    with loading(root, data[: len(data) // 2]) as first:
        with subprocess.Popen(line(root, "load", "--json", archive), stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            seen = ""
            while "LayerWaiting" not in seen:
                text = second.stdout.readline()
                assert text, seen
                seen += text
            first.kill()
            seen += second.stdout.read()
        assert second.returncode == 0
    assert '"event": "Done"' in seen
    assert ok(root, "images", "-q", "--no-trunc") == f"{big.id}\n"
    assert run(root, "fsck").stdout == ""


def test_a_reader_that_leaves(tmp_path: Path, archive: Path) -> None:
    """No word, and the status of SIGPIPE."""
    root = tmp_path / "root"
    ok(root, "load", archive)
    with subprocess.Popen(line(root, "save", X), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_full_disk(tmp_path: Path, archive: Path) -> None:
    """One line that says what to do; space comes back."""
    place = tmp_path / "small"
    place.mkdir()
    mount("tmpfs", str(place), "tmpfs", 0, "size=4m")
    try:
        done = run(place / "root", "load", archive)
        assert (done.returncode, done.stdout) == (1, "")
        last = done.stderr.splitlines()[-1]
        assert last.startswith("ocirt: ")
        assert "no space left" in last
        assert "ocirt prune" in last
        assert "unfinished download" in ok(place / "root", "prune")
        done = run(tmp_path / "other", "load", archive)
        done = run(tmp_path / "other", "save", "-o", place / "saved.tar", X)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "no space left on device" in done.stderr
        assert [path.name for path in place.iterdir()] == ["root"]
    finally:
        umount(str(place))


def test_by_a_user(no_leaks: list[Path], archive: Path) -> None:
    """The store is below the user's own directory, and needs no root."""
    home = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(home)
    (home / "clone").mkdir()
    command = copy_clone(home / "clone")
    (home / "data").mkdir()
    shutil.copy(archive, home / "archive.tar")
    for path in (home, home / "data"):
        os.chown(path, 65534, 65534)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_DATA_HOME": str(home / "data")}

    def call(*args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*NOBODY, command, *args], env=env, capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )

    assert call("load", home / "archive.tar").stdout == f"Loaded image: {X}\n"
    assert call("images", "--names").stdout == f"{X}\n"
    assert (home / "data/ocirt/images/database").stat().st_uid == 65534
    done = call("--image-root", "/root/ocirt-images", "images")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "permission denied" in done.stderr


def test_bars(tmp_path: Path, archive: Path) -> None:
    """On a terminal: the layer's bar, redrawn, and what came of it below."""
    command = [str(word) for word in line(tmp_path / "root", "load", archive)]
    with Terminal(command, env=os.environ | {"TERM": "xterm"}) as terminal:
        assert terminal.wait() == 0
        shown = terminal.output.decode()
    assert "\x1b[" in shown
    assert "2 of 2 layers, " in shown
    assert shown.rstrip().endswith(f"Loaded image: {X}")


def test_a_list_reads_no_layers(tmp_path: Path, archive: Path) -> None:
    """It is as quick for big images: no blob is opened but manifests and configurations."""
    root = tmp_path / "root"
    ok(root, "load", archive)
    layers = {path.name for path in (root / "blobs/sha256").iterdir() if path.stat().st_size > 4096}
    log = tmp_path / "log"
    command = ["strace", "-f", "-e", "trace=openat,open", "-o", log, *line(root, "images")]
    subprocess.run(command, check=True, capture_output=True)
    text = log.read_text()
    assert "blobs/sha256" in text
    assert len(layers) == 1
    assert not [name for name in layers if name in text]
