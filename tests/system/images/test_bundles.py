"""Bundles of images, and containers without a bundle of the caller's, by the command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt_images.errors import Error
from ocirt_images.snapshots import ANNOTATION, Snapshots, detach
from ocirt_images.store import Store
from ocirt_images.store.checks import fsck
from tests.support.layers import busybox_image, fill, listing, stored
from tests.support.runtime import Result, Runtime, wait_for

USER = 1000
BOX = "docker.io/library/busybox:latest"

pytestmark = pytest.mark.ocirt_only("peers know nothing of images")


@pytest.fixture
def images(place: Path, runtime: Runtime) -> Path:
    """The root of a store with busybox, which the runtime uses."""
    root = place / "images"
    with Store.open(root) as store:
        busybox_image(store, Cmd=["sh", "-c", "id -un; pwd; cat /etc/new; ls /etc"], WorkingDir="/app/x", User="alice")
    runtime.env = os.environ | {"OCIRT_IMAGE_ROOT": str(root)}
    return root


def writables(root: Path) -> list[str]:
    with Store.open(root) as store:
        return [record.key for record in store.writables.list()]


def contents(path: Path) -> dict[str, str]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return listing(fd)
    finally:
        os.close(fd)


SAID = "alice\n/app/x\nupper\ngroup\nhostname\nnew\npasswd\n"


def run_image(runtime: Runtime, *args: str, image: str = "busybox", **options: Any) -> Result:
    return runtime.call("run", "--image", image, "--name", runtime.new_id(), *args, **options)


def test_a_bundle_needs_no_store(runtime: Runtime, images: Path, place: Path) -> None:
    made = place / "demo"
    runtime.call("bundle", "busybox", made).ok()
    with Store.open(images) as store:
        store.images.delete(BOX)
        assert store.layers.list() == []
    shutil.rmtree(images)
    config = json.loads((made / "config.json").read_text())
    assert ANNOTATION not in config["annotations"]
    assert config["process"]["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 29]}
    assert runtime.call("run", "--bundle", made, runtime.new_id()).ok().out == SAID
    assert (made / "rootfs" / "app" / "x").is_dir()
    assert runtime.call("check", made).ok().out == "no findings\n"


def test_a_bundle_with_other_wishes(runtime: Runtime, images: Path, place: Path) -> None:
    made = place / "demo"
    flags = ["--env", "A=1", "--env", "TAKEN", "--cwd", "/mnt", "--user", "5:audio", "--hostname", "there", "--read-only"]
    assert runtime.env is not None
    script = "id -u; id -g; pwd; echo $A $TAKEN; hostname; touch /x"
    runtime.call("bundle", *flags, "busybox", made, "--", "sh", "-c", script, env={**runtime.env, "TAKEN": "2"}).ok()
    done = runtime.call("run", "--bundle", made, runtime.new_id())
    assert done.out == "5\n29\n/mnt\n1 2\nthere\n"
    assert "Read-only file system" in done.err
    runtime.call("bundle", "--entrypoint", '["echo", "-n"]', "busybox", place / "two", "a", "b").ok()
    assert runtime.call("run", "--bundle", place / "two", runtime.new_id()).ok().out == "a b"


def test_a_copy_keeps_everything(runtime: Runtime, images: Path, place: Path) -> None:
    """Owners, modes, times, links, holes, attributes and devices."""

    def maker(path: Path) -> None:
        fill(path, {"f": "x" * 5000, "d/e": "", "bin/sh": "", "set": "s"})
        os.link(path / "f", path / "d" / "same")
        os.symlink("/nowhere", path / "link")
        os.mkfifo(path / "fifo")
        os.mknod(path / "null", 0o020666, os.makedev(1, 3))
        with (path / "holes").open("wb") as file:
            file.seek(10 << 20)
            file.write(b"end")
        os.setxattr(path / "f", "user.a", b"1")
        os.setxattr(path / "d", "trusted.b", b"2")
        os.chown(path / "set", 12, 34)
        os.lchown(path / "link", 56, 78)
        (path / "set").chmod(0o6755)
        os.setxattr(path / "set", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        (path / "d").chmod(0o500)
        for name in ("f", "d", "link", "fifo", "."):
            os.utime(path / name, ns=(10**9 + 1, 2 * 10**9 + 3), follow_symlinks=False)

    with Store.open(images) as store:
        image = stored(store, "box.test/odd:1", [maker])
        origin = Snapshots(store).layers(image.chain_id)[0]
    runtime.call("bundle", "box.test/odd:1", place / "demo").ok()
    rootfs = place / "demo" / "rootfs"
    names = [".", "f", "d", "d/e", "d/same", "link", "fifo", "null", "holes", "set"]
    for name in names:
        one, two = (os.stat(path / name, follow_symlinks=False) for path in (origin, rootfs))
        fields = ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns", "st_nlink")
        assert [getattr(one, field) for field in fields] == [getattr(two, field) for field in fields], name
        attributes = [
            {
                each: os.getxattr(path / name, each, follow_symlinks=False)
                for each in os.listxattr(path / name, follow_symlinks=False)
            }
            for path in (origin, rootfs)
        ]
        assert attributes[0] == attributes[1], name
    assert (rootfs / "f").samefile(rootfs / "d" / "same")
    assert (rootfs / "holes").read_bytes() == (origin / "holes").read_bytes()
    assert (rootfs / "holes").stat().st_blocks * 512 < 1 << 20
    assert contents(rootfs) == contents(origin)


def test_a_mounted_bundle(runtime: Runtime, images: Path, place: Path) -> None:
    """What is written lies in the store, which keeps it as long as the bundle is there."""
    made = place / "demo"
    runtime.call("bundle", "--mount", "busybox", made, "--", "touch", "/tmp/written").ok()
    try:
        runtime.call("run", "--bundle", made, runtime.new_id()).ok()
        with Store.open(images) as store:
            store.images.delete(BOX)
            [record] = store.writables.list()
            assert record.key == f"bundle:{made}"
            assert json.loads((made / "config.json").read_text())["annotations"][ANNOTATION] == str(record.id)
            assert (record.path / "tmp" / "written").exists()
            assert Snapshots(store).prune().keys == []
            assert len(store.layers.list()) == 2
        runtime.call("run", "--bundle", made, runtime.new_id()).ok()
    finally:
        detach(made / "rootfs")
    shutil.rmtree(made)
    with Store.open(images) as store:
        assert Snapshots(store).prune().keys == [record.key]
        assert store.layers.list() == []


def test_a_bundle_that_is_mounted_again(runtime: Runtime, images: Path, place: Path) -> None:
    """After a reboot the bundle is there and its mount is not: a run says so, and `bundle --mount DIR` has all as it was."""
    made = place / "demo"
    script = "echo again >>/tmp/written; cat /tmp/written"
    runtime.call("bundle", "--mount", "busybox", made, "--", "sh", "-c", script).ok()
    try:
        assert runtime.call("run", "--bundle", made, runtime.new_id()).ok().out == "again\n"
        runtime.call("bundle", "--mount", "busybox", made).failed(f"`ocirt bundle --mount {made}` mounts it again", rc=1)
        with Store.open(images) as store:
            store.images.delete(BOX)
    finally:
        detach(made / "rootfs")
    config = (made / "config.json").read_text().replace("again", "then")
    (made / "config.json").write_text(config)  # edited, as people do
    said = f"nothing is mounted at {made}/rootfs .*`ocirt bundle --mount {made}` mounts it again"
    runtime.call("run", "--bundle", made, runtime.new_id()).failed(said, rc=1)
    assert os.listdir(made / "rootfs") == [], "not even mount points were made in it"
    checked = runtime.call("check", made)
    assert checked.rc == 1
    assert "/root/path" in checked.out
    assert "nothing is mounted" in checked.out
    assert runtime.call("prune", "--json").ok().json()["writables"] == []
    runtime.call("bundle", "--mount", made).ok()
    try:
        assert runtime.call("run", "--bundle", made, runtime.new_id()).ok().out == "again\nthen\n"
        runtime.call("bundle", "--mount", made).ok()  # it is there: nothing to do
        mounts = Path("/proc/self/mountinfo").read_text()
        assert mounts.count(f" {made}/rootfs ") == 1
        assert (made / "config.json").read_text() == config
    finally:
        detach(made / "rootfs")
    assert fsck(images) == []


def test_two_who_mount_it_again_at_once(runtime: Runtime, images: Path, place: Path) -> None:
    """One of them does."""
    made = place / "demo"
    runtime.call("bundle", "--mount", "busybox", made).ok()
    detach(made / "rootfs")
    callers = [subprocess.Popen(runtime.argv("bundle", "--mount", str(made)), env=runtime.env) for _ in range(6)]
    assert [one.wait() for one in callers] == [0] * 6
    assert Path("/proc/self/mountinfo").read_text().count(f" {made}/rootfs ") == 1
    detach(made / "rootfs")


def test_what_cannot_be_mounted_again(runtime: Runtime, images: Path, place: Path) -> None:
    made = place / "demo"
    none = "no bundle that `ocirt bundle --mount IMAGE DIRECTORY` made"
    runtime.call("bundle", "--mount", place / "nothing").failed(none, rc=1)
    runtime.call("bundle", "busybox", made).ok()
    runtime.call("bundle", "--mount", made).failed(none, rc=1)  # a copy
    assert runtime.call("run", "--bundle", made, runtime.new_id()).ok().out == SAID
    runtime.call("bundle", made).failed("requires a minimum of 2 argument", rc=1)
    runtime.call("bundle", "--mount", "busybox", place / "two").ok()
    detach(place / "two" / "rootfs")
    runtime.call("bundle", "--mount", "--user", "0", place / "two").failed("--user: a bundle is mounted again as it is", rc=1)
    (place / "two").rename(place / "three")
    runtime.call("bundle", "--mount", place / "three").failed(f"no writable layer 1 for it .it was made as {place}/two", rc=1)
    (place / "three").rename(place / "two")
    with Store.open(images) as store:
        store.writables.delete(f"bundle:{place}/two")
    runtime.call("bundle", "--mount", place / "two").failed("no writable layer 1 for it .another store may have it", rc=1)
    assert os.listdir(place / "two" / "rootfs") == []


@pytest.mark.parametrize("mount", [[], ["--mount"]])
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--user", "bob", "busybox"], "/etc/passwd of the image: no user 'bob'"),
        (["--user", "alice:nobody", "busybox"], "/etc/group of the image: no group 'nobody': asked for as 'alice:nobody'"),
        (["--entrypoint", "", "busybox"], f"{BOX}: no command"),
        (["--network", "bridge", "busybox"], "--network 'bridge' \\(none or host\\)"),
        (["--cwd", "x", "busybox"], "working directory 'x': not an absolute path"),
        (["nothere"], "nothere: no such image"),
    ],
)
def test_a_bundle_that_cannot_be_made(
    runtime: Runtime, images: Path, place: Path, args: list[str], said: str, mount: list[str]
) -> None:
    """It leaves nothing behind."""
    runtime.call("bundle", *mount, *args, place / "demo").failed(said, rc=1)
    assert not (place / "demo").exists()
    (place / "demo").mkdir()
    runtime.call("bundle", *mount, *args, place / "demo").failed(said, rc=1)
    assert os.listdir(place / "demo") == []
    assert writables(images) == []


def test_an_image_for_another_system(runtime: Runtime, images: Path, place: Path) -> None:
    with Store.open(images) as store, pytest.raises(Error, match="an image for windows/amd64"):
        stored(store, "box.test/windows:1", [], system="windows")
    said = "box.test/windows:1: an image for windows/amd64"
    runtime.call("bundle", "box.test/windows:1", place / "demo").failed(said, rc=1)
    run_image(runtime, image="box.test/windows:1").failed(said, rc=1)
    assert not (place / "demo").exists()


def test_a_bundle_that_is_there(runtime: Runtime, images: Path, place: Path) -> None:
    made = place / "demo"
    made.mkdir()
    (made / "mine").write_text("")
    for mount in ([], ["--mount"]):
        runtime.call("bundle", *mount, "busybox", made).failed(f"{made}: it is there, and not an empty directory", rc=1)
    assert os.listdir(made) == ["mine"]
    runtime.call("bundle", "busybox", place / "no" / "demo").failed("its parent is not there", rc=1)
    # What is a directory is a root file system still, and has no use for what is said of images.
    runtime.call("bundle", made, place / "of-a-directory").ok()
    runtime.call("bundle", "--env", "A=1", made, place / "x").failed("--env is for an image", rc=1)
    runtime.call("bundle", "./nothere", place / "x").failed("not a directory", rc=1)
    runtime.call("bundle", "--writable", "busybox", place / "x").failed("--writable is for a root file system", rc=1)


def test_a_container_of_an_image(runtime: Runtime, images: Path, place: Path) -> None:
    """Nothing of it is in sight of the host while it runs, and nothing is left of it; the exit status is its own."""
    assert run_image(runtime).ok().out == SAID
    before = Path("/proc/self/mountinfo").read_text()
    script = "touch /etc/x; stat -f -c %T /; hostname; id -u; exit 7"
    done = run_image(runtime, "--user", "0", "--", "sh", "-c", script)
    name = f"{runtime.token}-2"
    assert (done.rc, done.err) == (7, "")
    assert done.out.split() == ["overlayfs", name, "0"] or done.out.split()[1:] == [name, "0"]
    assert Path("/proc/self/mountinfo").read_text() == before
    assert writables(images) == []
    assert "etc/x" not in {path for layer in (images / "layers").iterdir() for path in contents(layer / "fs")}


def test_flags_of_the_command_are_its_own(runtime: Runtime, images: Path) -> None:
    assert run_image(runtime, "echo", "-d", "--image", "x").ok().out == "-d --image x\n"
    assert run_image(runtime, "--", "echo", "--", "-d").ok().out == "-- -d\n"


def test_a_read_only_root_and_a_volume(runtime: Runtime, images: Path) -> None:
    with Store.open(images) as store:
        busybox_image(store, "box.test/volumes:1", Volumes={"/home": {}}, WorkingDir="/made/at/start")
    script = "pwd; touch /etc/x; echo $?; touch /home/x; echo $?"
    done = run_image(runtime, "--read-only", "--", "sh", "-c", script, image="box.test/volumes:1")
    assert done.out == "/made/at/start\n1\n0\n"


def test_the_network_of_the_host(runtime: Runtime, images: Path) -> None:
    inside = run_image(runtime, "--network", "host", "--", "readlink", "/proc/self/ns/net").ok().out
    assert inside == os.readlink("/proc/self/ns/net") + "\n"
    assert run_image(runtime, "--", "readlink", "/proc/self/ns/net").ok().out != inside


def test_a_detached_container(runtime: Runtime, images: Path, tmp_path: Path) -> None:
    """It keeps what it wrote, and the layers of an image that is gone, until it is deleted and pruned."""
    name = runtime.new_id()
    args = ("run", "-d", "--name", name, "--image", "busybox", "--user", "0", "--", "sleep", "1000")
    runtime.detached(*args, out=tmp_path / "out").ok()
    runtime.exec(name, "touch", "/etc/written").ok()
    runtime.detached(*args, out=tmp_path / "again").failed("has a container of this name already", rc=1)
    state = runtime.state(name)
    assert state["annotations"][ANNOTATION]
    with Store.open(images) as store:
        store.images.delete(BOX)
        snapshots = Snapshots(store)
        assert snapshots.prune().keys == []
        [record] = store.writables.list()
        assert (record.path / "etc" / "written").exists()
        assert snapshots.usage(record).inodes == 5  # the root, etc, what was written there, and the working directory's two
        assert state["bundle"] == str(record.path.parent / "bundle")
    assert runtime.exec(name, "cat", "/etc/new").ok().out == "upper\n"
    assert fsck(images) == []
    assert runtime.call("prune", "--json").ok().json()["writables"] == []
    runtime.delete(name, "--force").ok()
    pruned = runtime.call("prune", "--json").ok().json()
    assert pruned["writables"] == [f"container:{runtime.root}:{name}"]
    assert pruned["layers"] == 2
    assert os.listdir(images / "writable") == []


def test_keep(runtime: Runtime, images: Path) -> None:
    """`--keep` keeps the container, so its files too."""
    run_image(runtime, "--keep", "--", "true").ok()
    assert writables(images) == [f"container:{runtime.root}:{runtime.token}-1"]
    runtime.delete(f"{runtime.token}-1").ok()
    with Store.open(images) as store:
        assert len(Snapshots(store).prune().keys) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--user", "bob"], "no user 'bob'"),
        (["--", "/not/there"], "/not/there"),
        (["--name", "a/b"], "'a/b' is no container's ID"),
        (["--entrypoint", "[1]"], "not a JSON list"),
        (["--bundle", "x"], "--bundle and --image"),
        (["--network", "x"], "none or host"),
    ],
)
def test_a_container_that_cannot_be_made(runtime: Runtime, images: Path, args: list[str], said: str) -> None:
    run_image(runtime, *args).failed(said, rc=1)
    assert writables(images) == []
    assert os.listdir(images / "writable") == []
    assert not runtime.root.exists() or [one for one in os.listdir(runtime.root) if one[0].isalnum()] == []


def test_the_name_of_a_container_that_is_there(runtime: Runtime, images: Path, bundle: Any) -> None:
    """One that has a bundle: it keeps its place, and nothing is left of the other."""
    name = runtime.create(bundle(args=["true"]))
    runtime.call("run", "--image", "busybox", "--name", name).failed("exists", rc=1)
    assert runtime.status(name) == "created"
    assert writables(images) == []


def test_flags_of_an_image_are_for_an_image(runtime: Runtime, bundle: Any) -> None:
    made = bundle()
    runtime.call("run", "--env", "A=1", "--bundle", made.path, runtime.new_id()).failed(
        "flag provided but not defined: -env", rc=1
    )


def test_a_runtime_that_is_killed(runtime: Runtime, images: Path) -> None:
    """What it leaves goes with `prune`, once the container is deleted."""
    name = runtime.new_id()
    argv = runtime.argv("run", "--image", "busybox", "--name", name, "--", "sleep", "1000")
    with subprocess.Popen(argv, env=runtime.env, stdin=subprocess.DEVNULL) as process:
        wait_for(lambda: (runtime.root / name).exists() and runtime.call("state", name).out.find("running") > 0, "the container")
        process.send_signal(signal.SIGKILL)
    with Store.open(images) as store:
        assert Snapshots(store).prune().keys == []
    runtime.delete(name, "--force").ok()
    with Store.open(images) as store:
        assert len(Snapshots(store).prune().keys) == 1


def test_the_store_is_free_while_a_container_runs(runtime: Runtime, images: Path) -> None:
    """A repair takes the exclusive lock."""
    name = runtime.new_id()
    argv = runtime.argv("run", "--image", "busybox", "--name", name, "--", "sleep", "1000")
    with subprocess.Popen(argv, env=runtime.env, stdin=subprocess.DEVNULL) as process:
        wait_for(lambda: (runtime.root / name).exists() and runtime.call("state", name).out.find("running") > 0, "the container")
        subprocess.run(["flock", "--exclusive", "--nonblock", images / "lock", "true"], check=True)
        runtime.kill(name, "KILL").ok()
        assert process.wait(10) == 137
    assert writables(images) == []


# Without root


@pytest.fixture
def rootless(runtime: Runtime, clone: Path, place: Path) -> Iterator[Runtime]:
    """The runtime of a user who has a store of their own."""
    with Store.open(place / "images") as store:
        busybox_image(store, Cmd=["sh", "-c", "id -u; cat /etc/new; touch /etc/mine"])
    subprocess.run(["chown", "-R", f"{USER}:{USER}", place], check=True)
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
    user = Runtime([*prefix, str(clone / "build" / "ocirt")], place, runtime.token + "u", None)
    user.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(place), "OCIRT_IMAGE_ROOT": str(place / "images")}
    yield user
    assert user.clean_up() == []


def test_a_bundle_of_a_user(rootless: Runtime, place: Path) -> None:
    [hidden] = place.glob("images/layers/*/fs/etc/passwd")
    hidden.chmod(0)  # as /etc/shadow is in some images
    rootless.call("bundle", "busybox", place / "demo").ok()
    assert (place / "demo" / "rootfs" / "etc" / "passwd").read_text() == hidden.read_text()
    assert (place / "demo" / "rootfs" / "etc" / "passwd").stat().st_mode & 0o777 == 0
    assert rootless.call("run", "--bundle", place / "demo", rootless.new_id()).ok().out == "0\nupper\n"
    assert (place / "demo" / "rootfs" / "etc" / "mine").stat().st_uid == USER
    rootless.call("bundle", "--mount", "busybox", place / "two").failed(
        "--mount: a mount of a user's is seen by nobody else", rc=1
    )


def test_a_container_of_a_user(rootless: Runtime, place: Path) -> None:
    """The runtime itself is in a user namespace; overlayfs works there by user.overlay.*."""
    done = run_image(rootless, "--", "sh", "-c", "id -u; cat /etc/new; rm /etc/new; ls /etc/new; cat /proc/self/uid_map")
    assert done.ok().out.split() == ["0", "upper", "0", str(USER), "1"]
    assert writables(place / "images") == []
    assert "etc/new" in contents(place / "images" / "layers" / "2" / "fs")
    assert run_image(rootless, "--", "sh", "-c", "exit 9").rc == 9
    run_image(rootless, "-d").failed("--detach and --image without root", rc=1)
    run_image(rootless, "--user", "alice").failed("user 1000 is not in the user namespace: it has 0 ", rc=1)
    assert writables(place / "images") == []


def test_a_user_with_more_ids(rootless: Runtime, place: Path, tmp_path: Path) -> None:
    """By newuidmap(1) and newgidmap(1), both for a bundle and for a runtime that enters the namespace itself."""
    with contextlib.ExitStack() as mounts:
        for name in ("subuid", "subgid"):
            (tmp_path / name).write_text(f"{USER}:200000:65536\n")
            Path(f"/etc/{name}").touch()
            subprocess.run(["mount", "--bind", tmp_path / name, f"/etc/{name}"], check=True)
            mounts.callback(detach, f"/etc/{name}")
        script = "id -u; touch /tmp/mine; cat /proc/self/uid_map"
        wanted = ["1000", "0", str(USER), "1", "1", "200000", "65536"]
        rootless.call("bundle", "--user", "alice", "busybox", place / "demo", "--", "sh", "-c", script).ok()
        assert rootless.call("run", "--bundle", place / "demo", rootless.new_id()).ok().out.split() == wanted
        assert (place / "demo" / "rootfs" / "tmp" / "mine").stat().st_uid == 200_999
        assert run_image(rootless, "--user", "alice", "--", "sh", "-c", script).ok().out.split() == wanted
        assert writables(place / "images") == []
