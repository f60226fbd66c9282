"""Archives of images: skopeo, podman, umoci, containerd and docker read what `save` writes, and `load` reads what they write.

Whatever way an image takes, its ID stays, and where its manifest is kept, its digest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.drivers import Containerd, Machine, Podman, call, need, ours, program
from conformance.goprograms import containerd2
from conformance.imagetools import Ocirt, X, digest, podmans
from conformance.test_docker import Dockerd
from tests.support.layouts import blob, described, directory, image, index, layer, layout
from tests.support.runtime import wait_for


def test_skopeo_reads_ours(made: Ocirt, skopeo: Callable[..., str], tmp_path: Path) -> None:
    """As an OCI archive by name, as a directory, and as an archive of docker's."""
    identity, manifest = made.image(X)
    made.call("tag", X, "localhost/y:2").ok()
    made.call("save", "-o", tmp_path / "saved.tar", X, "localhost/y:2").ok()
    made.call("save", "-d", tmp_path / "saved", X).ok()
    for place in (
        f"oci-archive:{tmp_path}/saved.tar:{X}",
        f"oci-archive:{tmp_path}/saved.tar:localhost/y:2",
        f"oci:{tmp_path}/saved",
    ):
        assert digest(skopeo("inspect", "--raw", place)) == manifest
        assert digest(skopeo("inspect", "--config", "--raw", place)) == identity
    assert digest(skopeo("inspect", "--config", "--raw", f"docker-archive:{tmp_path}/saved.tar:{X}")) == identity


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_we_read_skopeos(made: Ocirt, skopeo: Callable[..., str], tmp_path: Path, kind: str) -> None:
    """Under the name, with the ID, and in a layout with skopeo's digest."""
    identity, _ = made.image(X)
    made.call("save", "-d", tmp_path / "saved", X).ok()
    written = tmp_path / "written"
    skopeo("copy", f"oci:{tmp_path}/saved", f"{kind}:{written}:{X}")
    other = made.another()
    assert other.call("load", written).ok().out == f"Loaded image: {X}\n"
    assert other.image(X)[0] == identity
    # skopeo compresses plain layers on the way into a layout, and makes a manifest of its own then.
    if kind != "docker-archive":
        assert other.image(X)[1] == digest(skopeo("inspect", "--raw", f"{kind}:{written}:{X}"))


def test_an_index_of_skopeos(made: Ocirt, skopeo: Callable[..., str], tmp_path: Path) -> None:
    """All platforms there and back: the index keeps its digest, and each platform's image its ID."""
    images = [image(layer("a", name), architecture=name) for name in ("amd64", "arm64", "s390x")]
    top = index(*(one.descriptor(platform=one.platform) for one in images))
    target = described(top, annotations={"org.opencontainers.image.ref.name": X})
    files = layout([target], dict([blob(top)]), *(one.blobs() for one in images))
    skopeo("copy", "--all", f"oci:{directory(tmp_path / 'layout', files)}:{X}", f"oci-archive:{tmp_path}/all.tar:{X}")
    other = made.another()
    for one in images:
        other.call("load", "--platform", f"linux/{one.platform['architecture']}", tmp_path / "all.tar").ok()
        assert other.image(X) == (one.id, digest(top.decode()))
    other.call("load", "--all-platforms", tmp_path / "all.tar").ok()
    other.call("save", "-o", tmp_path / "saved.tar", X).ok()
    for one in images:
        override = ("--override-arch", one.platform["architecture"])
        assert digest(skopeo(*override, "inspect", "--config", "--raw", f"oci-archive:{tmp_path}/saved.tar:{X}")) == one.id


def test_podman_reads_ours(made: Ocirt, podman: Podman, tmp_path: Path) -> None:
    """With the names, of one image and of many."""
    identity, _ = made.image(X)
    made.call("save", "-o", tmp_path / "one.tar", X).ok()
    podman.call("load", "-i", tmp_path / "one.tar").ok()
    assert podmans(podman, X) == identity
    podman.call("rmi", "--all", "--force").ok()
    made.call("tag", X, "docker.io/library/ocirt-y:2").ok()
    made.call("save", "-o", tmp_path / "two.tar", X, "docker.io/library/ocirt-y:2").ok()
    podman.call("load", "-i", tmp_path / "two.tar").ok()
    assert podmans(podman, X) == podmans(podman, "docker.io/library/ocirt-y:2") == identity


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci-dir"])
def test_we_read_podmans(made: Ocirt, podman: Podman, tmp_path: Path, kind: str) -> None:
    """With the ID that podman has."""
    made.call("save", "-o", tmp_path / "one.tar", X).ok()
    podman.call("load", "-i", tmp_path / "one.tar").ok()
    podman.call("save", "--format", kind, "-o", tmp_path / "written", X).ok()
    other = made.another()
    name = () if kind != "oci-dir" else ("--name", X)
    assert X in other.call("load", *name, tmp_path / "written").ok().out
    assert other.image(X)[0] == podmans(podman, X) == made.image(X)[0]


def test_podman_saves_many(made: Ocirt, podman: Podman, tmp_path: Path) -> None:
    """In one archive, with layers that are links."""
    made.call("save", "-o", tmp_path / "one.tar", X).ok()
    podman.call("load", "-i", tmp_path / "one.tar").ok()
    podman.call("import", made.machine.image, "localhost/z:3").ok()
    podman.call("tag", X, "localhost/y:2").ok()
    podman.call("save", "--multi-image-archive", "-o", tmp_path / "many.tar", X, "localhost/y:2", "localhost/z:3").ok()
    other = made.another()
    lines = other.call("load", tmp_path / "many.tar").ok().out.splitlines()
    assert sorted(lines) == [f"Loaded image: {name}" for name in (X, "localhost/y:2", "localhost/z:3")]
    for name in (X, "localhost/y:2", "localhost/z:3"):
        assert other.image(name)[0] == podmans(podman, name)


def test_umoci(made: Ocirt, machine: Machine, tmp_path: Path) -> None:
    """It finds our image by its name; and a layout of its own has only a tag."""
    need("umoci")
    umoci = program("umoci") or "umoci"
    made.call("save", "-d", tmp_path / "saved", X).ok()
    assert call([umoci, "ls", "--layout", str(tmp_path / "saved")], env=machine.env).ok().out.split() == [X]
    own = str(tmp_path / "own")
    call([umoci, "init", "--layout", own], env=machine.env).ok()
    call([umoci, "new", "--image", f"{own}:v1"], env=machine.env).ok()
    call([umoci, "insert", "--image", f"{own}:v1", str(machine.rootfs / "bin"), "/bin"], env=machine.env).ok()
    other = made.another()
    assert other.call("load", "--name", "localhost/umoci", own).ok().out == "Loaded image: localhost/umoci:v1\n"
    shown = json.loads(call([umoci, "stat", "--image", f"{own}:v1", "--json"], env=machine.env).ok().out)
    assert len(json.loads(other.call("history", "--json", "localhost/umoci:v1").ok().out)) == len(shown["history"])


@pytest.fixture(params=["installed", "2"])
def containerd(request: pytest.FixtureRequest, machine: Machine, no_leaks: list[Path]) -> Iterator[Containerd]:
    """The machine's containerd, and one of version 2, with an empty store."""
    if request.param == "installed":
        need("containerd", "ctr")
    name = f"images-{request.param}-{request.node.name.partition('[')[0]}"
    started = Containerd(machine, name, programs=None if request.param == "installed" else containerd2())
    try:
        wait_for(started.ready, "containerd", 20)
        yield started
    finally:
        started.stop()
        shutil.rmtree(machine.path / f"{name}-containerd")


def test_containerd(made: Ocirt, containerd: Containerd, tmp_path: Path) -> None:
    """Into it, and out of it again: by its socket while it runs, and by its directory when it is stopped."""
    env = made.machine.env
    made.call("tag", X, "localhost/y:2").ok()
    made.call("save", "-o", tmp_path / "saved.tar", X, "localhost/y:2").ok()
    ctr = [*containerd.argv(), "--namespace", "k8s.io", "images"]
    call([*ctr, "import", "--no-unpack", str(tmp_path / "saved.tar")], env=env).ok()
    identity, manifest = made.image(X)
    rows = [line.split() for line in call([*ctr, "list"], env=env).ok().out.splitlines()[1:]]
    assert {(row[0], row[2]) for row in rows} == {(X, manifest), ("localhost/y:2", manifest)}
    # The CRI plugin names each image by its ID as well.
    call([*ctr, "tag", X, identity], env=env).ok()
    programs = containerd.programs
    by_socket, by_directory = made.another(), made.another().another()
    by_socket.call("load", "--from-containerd", containerd.address, path=programs).ok()
    by_socket.call("load", "--all-platforms", "--from-containerd", containerd.address, path=programs).ok()
    root = Path(containerd.address.removesuffix(".sock")) / "root"
    by_directory.call("load", "--from-containerd", root).failed(r"containerd is running \(stop it, or name its socket")
    by_socket.call("load", "--from-containerd", containerd.address, "-n", "none", path=programs).failed(
        "no images in the namespace none"
    )
    containerd.stop()
    by_directory.call("load", "--from-containerd", root).ok()
    for other in (by_socket, by_directory):
        assert other.call("images", "--names").ok().out.split() == [X, "localhost/y:2"]
        assert other.image(X) == (identity, manifest)
    by_directory.call("load", "--from-containerd", root, "-n", "none").failed(r"no namespace none \(there are: k8s.io\)")


def test_containerd_that_let_go_of_a_layer(made: Ocirt, containerd: Containerd, tmp_path: Path) -> None:
    """Images that are whole come; the others are named."""
    env = made.machine.env
    made.call("save", "-o", tmp_path / "saved.tar", X).ok()
    small = image(layer("small", "one"))
    target = small.descriptor(annotations={"org.opencontainers.image.ref.name": "localhost/small:1"})
    made.call("load", directory(tmp_path / "small", layout([target], small.blobs()))).ok()
    made.call("save", "-o", tmp_path / "small.tar", "localhost/small:1").ok()
    ctr = [*containerd.argv(), "--namespace", "k8s.io"]
    for name in ("saved.tar", "small.tar"):
        call([*ctr, "images", "import", "--no-unpack", str(tmp_path / name)], env=env).ok()
    layers = json.loads(made.call("inspect", X).ok().out)[0]["Layers"]
    call([*ctr, "content", "rm", layers[0]["Digest"]], env=env).ok()
    by_socket, by_directory = made.another(), made.another().another()
    result = by_socket.call("load", "--from-containerd", containerd.address, path=containerd.programs)
    result.failed(f"{X}: ctr: .*{layers[0]['Digest']}", rc=1)
    containerd.stop()
    root = Path(containerd.address.removesuffix(".sock")) / "root"
    blob = f"blobs/sha256/{layers[0]['Digest'].partition(':')[2]}"
    # containerd takes it away some time after it has let go of it, which may be never.
    (root / "io.containerd.content.v1.content" / blob).unlink(missing_ok=True)
    by_directory.call("load", "--from-containerd", root).failed(f"there is no {blob}")
    for other in (by_socket, by_directory):
        assert other.call("images", "--names").ok().out == "localhost/small:1\n"


def test_docker(made: Ocirt, machine: Machine, no_leaks: list[Path], tmp_path: Path) -> None:
    """docker loads ours, and we what it saves, by the same ID."""
    need("docker", "dockerd", "containerd")
    dockerd = Dockerd(machine, {"ocirt": ours()}, "images-docker")
    try:
        wait_for(dockerd.ready, "dockerd", 30)
        made.call("tag", X, "docker.io/library/ocirt-y:2").ok()
        made.call("save", "-o", tmp_path / "saved.tar", X, "docker.io/library/ocirt-y:2").ok()

        def docker(*args: str | Path) -> str:
            return call([program("docker") or "docker", *map(str, args)], env=dockerd.env).ok().out

        docker("load", "-i", tmp_path / "saved.tar")
        identity, _ = made.image(X)
        for name in (X, "ocirt-y:2"):
            assert docker("image", "inspect", "--format", "{{.Id}}", name).strip() == identity
        docker("save", "-o", tmp_path / "dockers.tar", X, "ocirt-y:2")
        docker("save", "-o", tmp_path / "nameless.tar", identity)
    finally:
        dockerd.stop()
    other = made.another()
    lines = other.call("load", tmp_path / "dockers.tar").ok().out.splitlines()
    assert sorted(lines) == ["Loaded image: docker.io/library/ocirt-y:2", f"Loaded image: {X}"]
    assert other.image(X)[0] == other.image("ocirt-y:2")[0] == identity
    assert other.another().call("load", tmp_path / "nameless.tar").ok().out == f"Loaded image ID: {identity}\n"
