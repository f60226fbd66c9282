"""`ocirt pull` and what comes after it, as processes: from a registry that others wrote and from ours, which counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ocirt_images import mediatypes, platforms
from ocirt_images.snapshots import detach
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.archives import END, directory, file, header, link
from tests.support.bundle import make_rootfs
from tests.support.docker_registry import DockerRegistry, docker_registry
from tests.support.registry import LocalRegistry
from tests.support.runtime import Runtime, wait_for

pytestmark = pytest.mark.ocirt_only("peers know nothing of images")

SAID = "alice\n/app/x\nupper\nnew\npasswd\n"
RUNS = {
    "Cmd": ["sh", "-c", "id -un; pwd; cat /etc/new; ls /etc | grep -v host | grep -v group"],
    "WorkingDir": "/app/x",
    "User": "alice",
}
BOX = "test/box:1"
USER = 1000


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> images.Image:
    """Busybox, and above it a file that is new."""
    rootfs = make_rootfs(tmp_path_factory.mktemp("box") / "rootfs")
    layers = [images.layer(images.tree(rootfs)), images.layer({"etc/new": b"upper\n"}, "zstd")]
    return images.image(layers, config=RUNS, platform=here())


def here() -> images.Json:
    """This machine's platform."""
    return {"os": "linux", "architecture": platforms.host().architecture}


@pytest.fixture
def puller(runtime: Runtime, place: Path) -> Runtime:
    """The command with a store of its own, and nothing of the machine's proxies."""
    runtime.env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    runtime.env |= {"OCIRT_IMAGE_ROOT": str(place / "images"), "OCIRT_CERTS_D": str(place / "certs.d")}
    return runtime


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        yield found


@pytest.fixture
def real(tmp_path: Path, box: images.Image) -> Iterator[DockerRegistry]:
    """Debian's, with busybox."""
    with docker_registry(tmp_path) as found:
        found.add("test/box", box, "1")
        yield found


def whole(runtime: Runtime) -> None:
    """Nothing is wrong with the store, and nothing is under way in it."""
    assert runtime.call("fsck").ok().out == ""
    assert runtime.env is not None
    assert os.listdir(Path(runtime.env["OCIRT_IMAGE_ROOT"]) / "staging") == []


@contextmanager
def started(command: list[str], runtime: Runtime) -> Iterator[subprocess.Popen[str]]:
    """A command in the background, which does not outlive this."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=runtime.env) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def user(runtime: Runtime, clone: Path, place: Path) -> Iterator[Runtime]:
    """The command of a user with a store of their own."""
    for path in (place, place / "images"):
        path.mkdir(exist_ok=True)
        os.chown(path, USER, USER)
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
    found = Runtime([*prefix, str(clone / "build" / "ocirt")], place, runtime.token + "u", None)
    found.env = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "XDG_RUNTIME_DIR": str(place),
        "OCIRT_IMAGE_ROOT": str(place / "images"),
    }
    yield found
    assert found.clean_up() == []


@pytest.fixture
def more_ids(tmp_path: Path) -> Iterator[None]:
    """/etc/subuid and /etc/subgid give the user ids from 200000 on."""
    with ExitStack() as mounts:
        for name in ("subuid", "subgid"):
            (tmp_path / name).write_text(f"{USER}:200000:65536\n")
            Path(f"/etc/{name}").touch()
            subprocess.run(["mount", "--bind", tmp_path / name, f"/etc/{name}"], check=True)
            mounts.callback(detach, f"/etc/{name}")
        yield


def test_a_user_pulls(user: Runtime, registry: LocalRegistry, place: Path) -> None:
    """overlayfs' marks are the user's own then: a directory that hides what lower layers have in it, a name that is gone."""
    rootfs = make_rootfs(place / "rootfs")
    layers = [
        images.layer(images.tree(rootfs)),
        images.layer({"etc/.wh..wh..opq": b"", "etc/new": b"upper\n", "bin/.wh.cat": b""}),
    ]
    registry.add(
        "test/box", images.image(layers, config={"Cmd": ["sh", "-c", "ls /etc; test ! -e /bin/cat"]}, platform=here()), "1"
    )
    user.call("pull", f"{registry.address}/test/box:1").ok()
    said = user.call("run", "--image", f"{registry.address}/test/box:1", "--name", user.new_id()).ok().out.split()
    assert sorted(set(said) - {"hostname", "hosts", "resolv.conf"}) == ["new"]
    whole(user)


def owned(registry: LocalRegistry, place: Path) -> str:
    """An image whose files have many owners, at the registry; its name."""
    lower = (
        directory(b"srv", 0o700, uid=33, gid=33)
        + file(b"srv/secret", b"www", mode=0o600, uid=33, gid=33)
        + file(b"bin/set", b"s", mode=0o4755, uid=7, gid=29)
        + file(b"srv/gone", b"x", uid=33)
        + file(b"far", b"", uid=300_000, gid=70_000)
        + header(b"null", b"3", mode=0o666, device=(1, 3))
        + END
    )
    upper = link(b"srv/linked", b"srv/secret") + file(b"srv/.wh.gone") + END
    config = {
        "Cmd": ["sh", "-c", "id -u; cat /srv/secret /srv/linked; stat -c '%n %u %g %a' /srv /srv/* /bin/set /far"],
        "User": "33:33",
    }
    layers = [images.layer(images.tree(make_rootfs(place / "rootfs"))), images.layer(lower), images.layer(upper)]
    registry.add("test/owned", images.image(layers, config=config, platform=here()), "1")
    return f"{registry.address}/test/owned:1"


OWNED = ["/srv 33 33 700", "/srv/linked 33 33 600", "/srv/secret 33 33 600", "/bin/set 7 29 4755", "/far 0 0 644"]


def test_owners_of_a_user(user: Runtime, more_ids: None, registry: LocalRegistry, place: Path) -> None:
    """Files keep the owners that the user has ids for; a service that is not root reads its own. And all of it can go again."""
    name = owned(registry, place)
    user.call("pull", name).ok()
    found = user.call("run", "--image", name, "--name", user.new_id()).ok().out.split("\n")
    assert [found[0].split("www")[0], *found[1:]] == ["33", "wwwwww" + OWNED[0], *OWNED[1:], ""]
    secret = min(place.glob("images/layers/*/fs/srv/secret"))
    assert (secret.stat().st_uid, secret.parent.stat().st_uid) == (200_032, 200_032)
    assert secret.stat().st_mode & 0o7777 == 0o600
    whole(user)
    user.call("bundle", name, place / "demo").ok()
    assert (place / "demo" / "rootfs" / "srv" / "secret").stat().st_uid == 200_032
    assert user.call("run", "--bundle", place / "demo", user.new_id()).ok().out.split("\n")[1:] == found[1:]
    # Every way in which a tree goes: with its name, as a leftover, and by a repair.
    user.call(
        "run", "--keep", "--image", name, "--user", "0", "--name", f"{user.token}-kept", "--", "chown", "5", "/etc/passwd"
    ).ok()
    user.call("delete", f"{user.token}-kept").ok()
    user.call("prune").ok()
    assert os.listdir(place / "images" / "writable") == []
    subprocess.run(["cp", "-a", "--no-target-directory", secret.parents[2], place / "images" / "layers" / "99"], check=True)
    user.call("fsck", "--repair").ok()
    whole(user)
    user.call("rmi", name).ok()
    assert os.listdir(place / "images" / "layers") == []
    whole(user)


def test_owners_of_a_user_without_further_ids(user: Runtime, registry: LocalRegistry, place: Path) -> None:
    """All is the user's own, as before."""
    name = owned(registry, place)
    user.call("pull", name).ok()
    secret = min(place.glob("images/layers/*/fs/srv/secret"))
    assert secret.stat().st_uid == USER
    said = user.call("run", "--image", name, "--user", "0", "--name", user.new_id()).ok().out
    assert said.startswith("0\nwwwwww/srv 0 0 700\n")
    user.call("rmi", name).ok()
    whole(user)


def test_layers_of_before_there_were_further_ids(
    user: Runtime, registry: LocalRegistry, place: Path, request: pytest.FixtureRequest
) -> None:
    """They stay as they are, are run, and go."""
    name = owned(registry, place)
    user.call("pull", name).ok()
    request.getfixturevalue("more_ids")
    user.call("pull", name).ok()
    said = user.call("run", "--image", name, "--user", "0", "--name", user.new_id()).ok().out
    assert said.startswith("0\nwwwwww/srv 0 0 700\n")
    user.call("rmi", name).ok()
    assert os.listdir(place / "images" / "layers") == []


def test_newuidmap_that_refuses(user: Runtime, more_ids: None, place: Path) -> None:
    """Then nothing is done by halves."""
    (place / "programs").mkdir()
    for name in ("newuidmap", "newgidmap"):
        (place / "programs" / name).write_text("#!/bin/sh\nexit 1\n")
        (place / "programs" / name).chmod(0o755)
    assert user.env is not None
    user.env["PATH"] = f"{place}/programs:{user.env['PATH']}"
    user.call("images").failed("newuidmap or newgidmap failed", rc=1)
    assert os.listdir(place / "images") == []


def test_pull_bundle_run(puller: Runtime, real: DockerRegistry, place: Path, box: images.Image) -> None:
    name = f"{real.address}/{BOX}"
    assert puller.call("pull", name).ok().out == f"{name}\n"
    assert puller.call("images", "-q", "--no-trunc").ok().out == f"{images.digest(box.config)}\n"
    puller.call("bundle", name, place / "demo").ok()
    assert puller.call("run", "--bundle", place / "demo", puller.new_id()).ok().out == SAID
    whole(puller)
    # Once more there is nothing to do, by whichever name.
    done = puller.call("pull", "--json", f"{real.address}/test/box@{box.digest}").ok()
    assert [json.loads(line)["event"] for line in done.out.splitlines() if '"LayerProgress"' in line] == []
    assert puller.call("run", "--image", name, "--name", puller.new_id()).ok().out == SAID


def test_an_image_that_is_not_here_is_pulled_to_run_it(puller: Runtime, registry: LocalRegistry, box: images.Image) -> None:
    registry.add("test/box", box, "1")
    args = ("run", "--image", f"{registry.address}/{BOX}", "--name")
    done = puller.call(*args, puller.new_id()).ok()
    assert done.out == SAID  # what the pull says is on stderr
    assert f"{registry.address}/{BOX}" in done.err
    assert registry.asked("GET", "/blobs/") == 3
    assert puller.call(*args, puller.new_id(), "--", "echo", "again").ok().out == "again\n"
    assert registry.asked("GET", "/blobs/") == 3
    whole(puller)


def test_an_image_that_cannot_be_pulled(puller: Runtime, registry: LocalRegistry, box: images.Image) -> None:
    registry.add("test/box", box, "2")
    done = puller.call("run", "--image", f"{registry.address}/{BOX}", "--name", puller.new_id())
    assert done.failed(r"^ocirt: .*test/box:1: .* has no tag 1: .*\(there are: 2\)$", rc=1).out == ""
    assert len(done.err.splitlines()) == 1
    whole(puller)


def test_an_image_that_was_loaded_is_unpacked_to_run_it(puller: Runtime, place: Path, box: images.Image) -> None:
    (place / "box.tar").write_bytes(archive(box, "localhost/box:1"))
    puller.call("load", place / "box.tar").ok()
    assert puller.call("images", "--json").ok().json()[0]["unpacked"] is None
    assert puller.call("run", "--image", "localhost/box:1", "--name", puller.new_id()).ok().out == SAID
    assert puller.call("images", "--json").ok().json()[0]["unpacked"] > 0
    whole(puller)


def archive(image: images.Image, name: str) -> bytes:
    """An OCI layout in an archive (image-spec, image-layout.md)."""
    entry = image.descriptor | {"annotations": {"io.containerd.image.name": name}}
    entries: dict[str, bytes | tarfile.TarInfo] = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": images.encode({"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": [entry]}),
    }
    for data in (*image.blobs.values(), image.manifest):
        entries[f"blobs/{images.digest(data).replace(':', '/')}"] = data
    return images.tar(entries)


def test_ctrl_c(puller: Runtime, registry: LocalRegistry, place: Path, box: images.Image) -> None:
    """It says that it can go on, and it does: not a byte comes twice."""
    layer = box.layers[0]
    registry.add("test/box", box, "1")
    event = threading.Event()
    at = len(layer.blob) // 2
    registry.plant(faults.stuck(at, event), path=layer.digest)
    name = f"{registry.address}/{BOX}"
    command = puller.argv("pull", "-q", name)
    coming = place / "images/ingest" / layer.digest.replace(":", "-")
    with started(command, puller) as process:
        wait_for(lambda: coming.exists() and coming.stat().st_size == at, "half of the layer", seconds=30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    event.set()
    assert (process.returncode, err) == (130, "ocirt: cancelled; run it again to go on\n")
    assert puller.call("images", "--names").ok().out == ""
    whole(puller)
    registry.forget()
    puller.call("pull", "-q", name).ok()
    asked = [one.range for one in registry.seen if one.method == "GET" and layer.digest in one.path]
    assert asked == [f"bytes={at}-{len(layer.blob) - 1}"]
    assert puller.call("run", "--image", name, "--name", puller.new_id()).ok().out == SAID
    whole(puller)


@pytest.mark.parametrize("fault", ["429", "stuck head"])
def test_ctrl_c_while_it_waits_for_the_registry(puller: Runtime, registry: LocalRegistry, box: images.Image, fault: str) -> None:
    """Nobody waits for the end of Retry-After, or for an answer."""
    registry.add("test/box", box, "1")
    event, asked = threading.Event(), threading.Event()

    def seen(_reply: object, _seen: object) -> None:
        asked.set()

    registry.plant(seen, times=None)
    registry.plant(faults.too_many("59") if fault == "429" else faults.unanswered(event), times=None)
    command = puller.argv("pull", f"{registry.address}/{BOX}")
    with started(command, puller) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    event.set()
    assert process.returncode == 130
    assert err.endswith("ocirt: cancelled; run it again to go on\n")
    whole(puller)
