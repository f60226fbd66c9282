"""The ImageService over gRPC, with registries on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_images import mediatypes, platforms
from ocirt_images.digest import Digest
from ocirt_images.store import Store
from tests.support import images, registry_faults
from tests.support.cri_services import eventually, refused, serving
from tests.support.registry import LocalRegistry
from tests.support.registry_auth import Basic, Bearer

pytestmark = pytest.mark.ocirt_only("peers know nothing of images")

HERE = {"os": "linux", "architecture": platforms.host().architecture}


def made(seed: int, layers: int = 2, size: int = 20_000, **config: str) -> images.Image:
    """An image, which is another one for each seed."""
    return images.image(
        [images.random_layer(seed * 100 + number, size) for number in range(layers)],
        config={"Cmd": ["/bin/sh"], "Labels": {"seed": str(seed)}, **config},
        platform=HERE,
    )


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        yield found


@pytest.fixture(autouse=True)
def no_files_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of mirrors, and neither proxies nor policies."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OCIRT_CERTS_D", str(tmp_path / "certs.d"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "certs.d"


def test_one_id_everywhere(registry: LocalRegistry, tmp_path: Path) -> None:
    digest = registry.add("team/app", made(1), "1")
    name = f"{registry.address}/team/app"

    async def run() -> None:
        async with serving(tmp_path) as node:
            found = await node.pull(f"{name}:1")
            assert found == images.digest(made(1).config)
            (listed,) = await node.list()
            assert listed.id == found
            assert list(listed.repo_tags) == [f"{name}:1"]
            assert list(listed.repo_digests) == [f"{name}@{digest}"]
            assert listed.size > 40_000
            assert not listed.pinned
            for said in (f"{name}:1", f"{name}@{digest}", found, found[7:], found[7:20], found[:20], f"{name}:other@{digest}"):
                assert await node.status(said) == listed, said
                assert await node.list(said) == [listed], said
            streamed = [one async for answer in node.image.StreamImages(cri.StreamImagesRequest()) for one in answer.images]
            assert streamed == [listed]
            verbose = await node.image.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=found), verbose=True))
            assert '"seed": "1"' in verbose.info["info"]

    asyncio.run(run())


def test_what_is_not_there(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as node:
            for name in ("localhost/none:1", "sha256:" + "0" * 64, "0" * 64, "abc", "busybox"):
                assert await node.status(name) is None
                await node.remove(name)
            assert await node.list() == []
            assert await node.list("busybox") == []

    asyncio.run(run())


def test_bad_names(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as node:
            for name in ("", "localhost/Case", "a b", "x:y:z", "localhost/x@sha256:1"):
                for ask in (node.status, node.remove, node.pull):
                    with refused(grpc.StatusCode.INVALID_ARGUMENT) as found:
                        await ask(name)
                    assert found.text.startswith("image.image: "), found.text

    asyncio.run(run())


def test_a_digest_decides(registry: LocalRegistry, tmp_path: Path) -> None:
    """By digest there is no tag, and the one beside a digest counts for nothing."""
    digest = registry.add("app", made(1), "old")
    registry.add("app", made(2), "new")
    name = f"{registry.address}/app"

    async def run() -> None:
        async with serving(tmp_path) as node:
            found = await node.pull(f"{name}@{digest}")
            assert found == await node.pull(f"{name}:new@{digest}") == images.digest(made(1).config)
            (listed,) = await node.list()
            assert list(listed.repo_tags) == []
            assert list(listed.repo_digests) == [f"{name}@{digest}"]
            await node.remove(f"{name}@{digest}")
            assert await node.list() == []

    asyncio.run(run())


def test_an_index_is_named_by_its_own_digest(registry: LocalRegistry, tmp_path: Path) -> None:
    other = {"os": "linux", "architecture": "s390x"}
    index = images.index([(other, images.image([images.random_layer(7)], platform=other)), (HERE, made(1))])
    registry.add("app", index, "1")
    name = f"{registry.address}/app"

    async def run() -> None:
        async with serving(tmp_path) as node:
            assert await node.pull(f"{name}:1") == images.digest(made(1).config)
            (listed,) = await node.list()
            assert list(listed.repo_digests) == [f"{name}@{index.digest}"]
            assert await node.status(f"{name}@{made(1).digest}") == listed

    asyncio.run(run())


def test_removal_by_one_tag_is_removal_of_all(registry: LocalRegistry, tmp_path: Path) -> None:
    """In all registries; and an image that shares layers with it stays whole."""
    registry.add("app", made(1), "1", "2", "3")
    shared = images.image([*made(1).layers, images.random_layer(9)], config={"User": "x"}, platform=HERE)
    registry.add("above", shared, "1")

    async def run() -> None:
        with LocalRegistry() as other:
            other.add("else/where", made(1), "9")
            async with serving(tmp_path) as node:
                for tag in ("1", "2", "3"):
                    await node.pull(f"{registry.address}/app:{tag}")
                await node.pull(f"{other.address}/else/where:9")
                kept = await node.pull(f"{registry.address}/above:1")
                (all_tags,) = await node.list(images.digest(made(1).config))
                assert len(all_tags.repo_tags) == 4
                assert len(all_tags.repo_digests) == 2
                await node.remove(f"{registry.address}/app:2")
                assert [one.id for one in await node.list()] == [kept]
                for tag in ("1", "2", "3"):
                    assert await node.status(f"{registry.address}/app:{tag}") is None
                assert await node.status(all_tags.id) is None
                assert len(node.store.layers.list()) == 3
                assert (await node.images.catalog.get(kept)).is_unpacked

    asyncio.run(run())


def test_removals_at_once(registry: LocalRegistry, tmp_path: Path) -> None:
    registry.add("app", made(1), "1")

    async def run() -> None:
        async with serving(tmp_path) as node:
            for _ in range(3):
                found = await node.pull(f"{registry.address}/app:1")
                assert await node.status(found) is not None
                await asyncio.gather(*(node.remove(f"{registry.address}/app:1") for _ in range(5)))
                assert await node.status(found) is None
                assert not node.store.content.has(Digest(made(1).digest))

    asyncio.run(run())


def test_users(registry: LocalRegistry, tmp_path: Path) -> None:
    """The group is left out; nobody named is root; number and name exclude each other."""
    wanted = {"1002": (1002, ""), "www-data": (None, "www-data"), "1003:1004": (1003, ""), "web:1004": (None, "web"), "": (0, "")}
    for number, user in enumerate(wanted):
        registry.add("app", made(number + 1, User=user), f"t{number}")

    async def run() -> None:
        async with serving(tmp_path) as node:
            for number, (uid, name) in enumerate(wanted.values()):
                found = await node.pull(f"{registry.address}/app:t{number}")
                image = await node.status(found)
                assert image is not None
                assert (image.uid.value if image.HasField("uid") else None, image.username) == (uid, name)
            assert len(await node.list()) == len(wanted)

    asyncio.run(run())


def test_pinned_images(registry: LocalRegistry, tmp_path: Path) -> None:
    registry.add("sandbox/pause", made(1), "3.9")
    registry.add("app", made(2), "1")

    async def run() -> None:
        async with serving(tmp_path, pinned=(f"{registry.address}/*/pause:*",)) as node:
            pause = await node.pull(f"{registry.address}/sandbox/pause:3.9")
            await node.pull(f"{registry.address}/app:1")
            assert [one.id for one in await node.list() if one.pinned] == [pause]

    asyncio.run(run())


def test_a_deadline(registry: LocalRegistry, tmp_path: Path) -> None:
    registry.add("app", made(1), "1")
    request = cri.PullImageRequest(image=cri.ImageSpec(image=f"{registry.address}/app:1"))

    async def run() -> None:
        async with serving(tmp_path) as node:
            with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
                await node.image.PullImage(request, timeout=0.001)
            assert await node.pull(f"{registry.address}/app:1") == images.digest(made(1).config)

    asyncio.run(run())


def test_who_gives_up_ends_the_download(registry: LocalRegistry, tmp_path: Path) -> None:
    """Unless another one waits for it; and the next one has what came."""
    registry.add("app", made(1, layers=1, size=3_000_000), "1")
    blob = made(1, layers=1, size=3_000_000).layers[0].digest
    name = f"{registry.address}/app:1"
    go = threading.Event()

    async def run() -> None:
        async with serving(tmp_path) as node:
            registry.plant(registry_faults.stuck(1_000_000, go), path=blob)
            first = asyncio.create_task(node.pull(name))
            await eventually(lambda: registry.asked("GET", blob), "it is asked for")
            second = asyncio.create_task(node.pull(name))
            await asyncio.sleep(0.3)
            first.cancel()
            await asyncio.sleep(0.3)
            assert len(node.images.pulls) == 1
            assert not second.done()
            second.cancel()
            await eventually(lambda: not node.images.pulls, "the pull ends")
            await eventually(lambda: not node.store.leases.list(), "so it does where it is made", 5)
            assert registry.asked("GET", blob) == 1
            go.set()
            assert await node.pull(name)
            assert [one.range for one in registry.seen if blob in one.path and one.method == "GET"][-1].startswith("bytes=")

    asyncio.run(run())


def test_two_pulls_are_one(registry: LocalRegistry, tmp_path: Path) -> None:
    registry.add("app", made(1), "1")
    name = f"{registry.address}/app:1"
    go = threading.Event()
    registry.plant(registry_faults.held(go), method="HEAD", path="/manifests/")
    registry.plant(registry_faults.held(go), path="/manifests/")

    async def run() -> None:
        async with serving(tmp_path) as node:
            pulls = [asyncio.create_task(node.pull(name)) for _ in range(4)]
            await eventually(lambda: registry.seen, "it is asked for")
            await asyncio.sleep(0.2)
            go.set()
            found = await asyncio.gather(*pulls)
            assert set(found) == {images.digest(made(1).config)}
            assert registry.asked("GET", "/manifests/") == registry.asked("HEAD", "/manifests/") == 1
            for layer in made(1).layers:
                assert registry.asked("GET", layer.digest) == 1

    asyncio.run(run())


def test_pulls_by_others_are_none_of_it(registry: LocalRegistry, tmp_path: Path) -> None:
    """Who has no credential learns nothing by joining who has; not even from the store."""
    registry.auth = Basic({"alice": "secret"})
    registry.add("app", made(1), "1")
    name = f"{registry.address}/app:1"

    async def run() -> None:
        async with serving(tmp_path) as node:
            ours = asyncio.create_task(node.pull(name, username="alice", password="secret"))
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                await node.pull(name)
            assert await ours
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                await node.pull(name, username="alice", password="guess")

    asyncio.run(run())


def test_credentials(registry: LocalRegistry, tmp_path: Path) -> None:
    """In the order: user and password, identity token, `auth`, registry token; for the image's server alone."""
    registry.auth = auth = Bearer(users={"alice": "secret"}, identities={"refresh": "alice"}, anonymous=())
    registry.add("app", made(1), "1")
    name = f"{registry.address}/app:1"
    encoded, wrong = "YWxpY2U6c2VjcmV0", "YWxpY2U6d3Jvbmc="

    async def run() -> None:
        async with serving(tmp_path) as node:
            for given in (
                {"username": "alice", "password": "secret", "identity_token": "wrong", "auth": wrong},
                {"identity_token": "refresh", "auth": wrong},
                {"username": "alice", "identity_token": "refresh"},
                {"auth": encoded, "registry_token": "wrong"},
                {"auth": encoded, "server_address": registry.address},
                {"auth": encoded, "server_address": f"https://{registry.address}/v2/"},
            ):
                assert await node.pull(name, **given), given
                await node.remove(name)
            assert registry.asked("GET", "/token") + registry.asked("POST", "/token") == 6
            auth.tokens["ours"] = ({"repository:app": {"pull"}}, float("inf"))
            assert await node.pull(name, registry_token="ours")
            for given in ({}, {"auth": wrong}, {"auth": encoded, "server_address": "other.example"}):
                with refused(grpc.StatusCode.UNAUTHENTICATED):
                    await node.pull(name, **given)
            with refused(grpc.StatusCode.INVALID_ARGUMENT) as bad:
                await node.pull(name, auth="no base64")
            assert bad.text.startswith("auth.auth: ")

    asyncio.run(run())


def test_a_file_of_credentials(registry: LocalRegistry, tmp_path: Path) -> None:
    """For who brings none; it is read at each pull."""
    registry.auth = Basic({"alice": "secret"})
    registry.add("app", made(1), "1")
    file = tmp_path / "auth.json"

    async def run() -> None:
        async with serving(tmp_path, auth_file=str(file)) as node:
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                await node.pull(f"{registry.address}/app:1")
            file.write_text(f'{{"auths": {{"{registry.address}": {{"auth": "YWxpY2U6c2VjcmV0"}}}}}}')
            assert await node.pull(f"{registry.address}/app:1")

    asyncio.run(run())


def test_words_for_the_kubelet(registry: LocalRegistry, tmp_path: Path) -> None:
    """The first word of an UNKNOWN is a reason that the kubelet shows; other errors have a code that says it."""
    registry.add("app", made(1), "1")
    other = {"os": "linux", "architecture": "s390x"}
    registry.add("foreign", images.image([images.random_layer(1)], platform=other), "1")
    registry.put_manifest("broken", b'{"schemaVersion": 2}', mediatypes.MANIFEST, "1")
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')

    async def run() -> None:
        async with serving(tmp_path / "a") as node:
            with refused(grpc.StatusCode.UNKNOWN) as gone:
                await node.pull("127.0.0.1:9/app:1")
            assert gone.text.startswith("RegistryUnavailable: 127.0.0.1:9/app:1: "), gone.text
            with refused(grpc.StatusCode.NOT_FOUND) as unknown:
                await node.pull(f"{registry.address}/app:2")
            assert "tag 2" in unknown.text
            registry.plant(registry_faults.status(503), path="/manifests/", times=None)
            with refused(grpc.StatusCode.UNKNOWN) as broken:
                await node.pull(f"{registry.address}/app:1")
            assert broken.text.startswith("RegistryUnavailable: "), broken.text
            registry.heal()
            registry.plant(registry_faults.wrong_bytes, path="/blobs/", times=None)
            with refused(grpc.StatusCode.DATA_LOSS):
                await node.pull(f"{registry.address}/app:1")
            registry.heal()
            with refused(grpc.StatusCode.NOT_FOUND) as foreign:
                await node.pull(f"{registry.address}/foreign:1")
            assert "linux/s390x" in foreign.text
            with refused(grpc.StatusCode.UNKNOWN) as broken:
                await node.pull(f"{registry.address}/broken:1")
            assert f"{registry.address}/broken" in broken.text or "sha256:" in broken.text
        async with serving(tmp_path / "b", policy=str(policy)) as node:
            with refused(grpc.StatusCode.UNKNOWN) as untrusted:
                await node.pull(f"{registry.address}/app:1")
            assert untrusted.text.startswith("SignatureValidationFailed: "), untrusted.text
            assert await node.list() == []

    asyncio.run(run())


def test_a_mirror(registry: LocalRegistry, tmp_path: Path, no_files_of_the_machine: Path) -> None:
    """As containerd's certs.d has it; the image keeps the name that it was asked for by. No restart for a new one."""
    registry.add("team/app", made(1), "1")

    async def run() -> None:
        async with serving(tmp_path) as node:
            with refused(grpc.StatusCode.UNKNOWN):
                await node.pull("registry.invalid/team/app:1")
            folder = no_files_of_the_machine / "registry.invalid"
            folder.mkdir(parents=True)
            (folder / "hosts.toml").write_text(f'[host."{registry.url}"]\ncapabilities = ["pull", "resolve"]\n')
            await node.pull("registry.invalid/team/app:1")
            (listed,) = await node.list()
            assert list(listed.repo_tags) == ["registry.invalid/team/app:1"]

    asyncio.run(run())


def test_the_space_of_images(registry: LocalRegistry, tmp_path: Path) -> None:
    registry.add("app", made(1, size=500_000), "1")

    async def run() -> None:
        async with serving(tmp_path) as node:

            async def used() -> tuple[int, int]:
                (found,) = (await node.image.ImageFsInfo(cri.ImageFsInfoRequest())).image_filesystems
                assert found.timestamp > 0
                assert found.fs_id.mountpoint == str(node.store.root)
                return found.used_bytes.value, found.inodes_used.value

            before = await used()
            await node.pull(f"{registry.address}/app:1")
            size, inodes = await used()
            assert size - before[0] >= 2 * 2 * 500_000  # blobs and trees of two layers
            assert inodes - before[1] >= 2 * 5 + 4
            (image,) = await node.list()
            assert image.size == size - before[0]
            await node.remove(f"{registry.address}/app:1")
            assert await used() == before

    asyncio.run(run())


def test_what_others_do_to_the_store(registry: LocalRegistry, tmp_path: Path) -> None:
    """The `ocirt` command's images are there at once."""
    registry.add("app", made(1), "1")

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/app:1")
            await node.list()
            with Store.open(node.store.root, sync=False) as other:
                other.images.tag(f"{registry.address}/app:1", "localhost/mine:latest")
                (image,) = await node.list()
                assert list(image.repo_tags) == [f"{registry.address}/app:1", "localhost/mine:latest"]
                other.images.delete(f"{registry.address}/app:1")
                other.images.delete("localhost/mine:latest")
            assert await node.list() == []

    asyncio.run(run())


def test_the_process_that_pulls(registry: LocalRegistry, tmp_path: Path) -> None:
    """It has nothing of grpc, ends when it is idle, and when it is killed the next pull goes on from there."""
    registry.add("app", made(1, layers=1, size=3_000_000), "1")
    blob = made(1, layers=1, size=3_000_000).layers[0].digest
    name = f"{registry.address}/app:1"
    go = threading.Event()

    async def run() -> None:
        async with serving(tmp_path, idle=0.5) as node:
            registry.plant(registry_faults.stuck(2_000_000, go), path=blob)
            pull = asyncio.create_task(node.pull(name))
            await eventually(lambda: node.images.pulls and node.images.pulls[0].moved >= 1_000_000, "a part is here")
            assert node.images.pulls[0].size == len(made(1, layers=1, size=3_000_000).layers[0].blob)
            pid = node.images.worker_pid
            assert pid
            assert not maps(pid, "cygrpc", "_upb")
            os.kill(pid, signal.SIGKILL)
            with refused(grpc.StatusCode.UNKNOWN) as killed:
                await pull
            assert "SIGKILL" in killed.text
            go.set()
            assert await node.pull(name)
            other = node.images.worker_pid
            assert other not in (None, pid)
            await eventually(lambda: not Path(f"/proc/{other}").exists(), "it ends")
            await node.remove(name)
            assert await node.pull(name)

    asyncio.run(run())


def maps(pid: int, *names: str) -> list[str]:
    """Those of these that are in the names of files that a process has mapped."""
    mapped = Path(f"/proc/{pid}/maps").read_text()
    return [name for name in names if name in mapped]


def test_the_end_during_a_pull(registry: LocalRegistry, tmp_path: Path) -> None:
    """A daemon that ends gives up what is under way, and leaves no process."""
    registry.add("app", made(1, layers=1, size=3_000_000), "1")
    blob = made(1, layers=1, size=3_000_000).layers[0].digest
    go = threading.Event()

    async def run() -> int:
        async with serving(tmp_path) as node:
            registry.plant(registry_faults.stuck(1_000_000, go), path=blob)
            pull = asyncio.create_task(node.pull(f"{registry.address}/app:1"))
            await eventually(lambda: node.images.pulls and node.images.pulls[0].size, "it has begun")
            found = node.images.worker_pid
            assert found
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await pull
        return found

    pid = asyncio.run(run())
    go.set()
    assert not Path(f"/proc/{pid}").exists()


def test_pulls_take_turns(registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at once; who waits can give up."""
    monkeypatch.setattr("ocirt_cri.images.images._AT_ONCE", 2)
    go = threading.Event()
    for number in range(5):
        registry.add(f"app{number}", made(number), "1")
    registry.plant(registry_faults.held(go), path="/manifests/", times=None)

    async def run() -> None:
        async with serving(tmp_path) as node:
            pulls = [asyncio.create_task(node.pull(f"{registry.address}/app{number}:1")) for number in range(5)]
            await eventually(lambda: registry.asked("GET", "/manifests/") == 2, "two are asked for")
            await asyncio.sleep(0.3)
            assert registry.asked("GET", "/manifests/") == 2
            assert len(node.images.pulls) == 5
            waits = next(number for number in range(5) if not registry.asked("GET", f"/app{number}/"))
            pulls[waits].cancel()
            await eventually(lambda: len(node.images.pulls) == 4, "one gave up")
            go.set()
            assert len(set(await asyncio.gather(*(pulls[number] for number in range(5) if number != waits)))) == 4
            assert not registry.asked("GET", f"/app{waits}/")

    asyncio.run(run())
