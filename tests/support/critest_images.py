"""Images like those that critest pulls: the machine's busybox, and what each spec looks for, under their names."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocirt_images import platforms
from tests.support.build import compiled
from tests.support.bundle import busybox
from tests.support.images import Image, Layer, image, layer, tree
from tests.support.registry import LocalRegistry

# Hosts that critest names; one registry stands for all.
HOSTS = ("registry.k8s.io", "gcr.io", "k8s.gcr.io")
_E2E, _CRI_TOOLS = "e2e-test-images", "k8s-staging-cri-tools"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSWD = """root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
default-user:x:1000:1000::/home/default-user:/bin/sh
"""
_GROUP = """root:x:0:
nobody:x:65534:
www-data:x:33:
default-user:x:1000:
group-defined-in-image:x:50000:default-user
"""
# Debian's busybox has neither of these two.
_PGREP = """#!/bin/sh
for place in /proc/[0-9]*; do
    read -r name <"$place/comm" && [ "$name" = "$1" ] && echo "${place#/proc/}" && found=1
done 2>/dev/null
[ -n "$found" ]
"""
_IPCS = """#!/bin/sh
cat /proc/sysvipc/shm
"""
# Debian's shell runs its own `ls`, and not the one in /bin that a spec masks: there it has another name, in its order of names.
_LS = """#!/bin/sh
exec busybox lr "$@"
"""
_OWN_LS, _OTHER_LS = b"\0ls\0ls", b"\0lr\0ls"
# A server's first process has the server's name, and writes its number down; a client gets a page.
_SERVER = """#!/bin/sh
echo "NAME: started" >&2
mkdir -p /var/run /www
echo here >/www/index.html
echo $$ >/var/run/NAME.pid
httpd -f -p PORT -h /www &
wait
"""


def _root(place: Path) -> Layer:
    """Busybox under the names of all its applets, users and groups."""
    for name in ("bin", "etc", "root", "tmp", "var", "usr", "home/default-user"):
        (place / name).mkdir(parents=True)
    (place / "tmp").chmod(0o1777)
    binary = busybox().read_bytes()
    assert binary.count(_OWN_LS) == 1
    (place / "bin" / "busybox").write_bytes(binary.replace(_OWN_LS, _OTHER_LS))
    (place / "bin" / "busybox").chmod(0o755)
    for name in subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name not in ("busybox", "ls"):
            os.link(place / "bin" / "busybox", place / "bin" / name)
    scripts = {"bin/ls": _LS, "bin/pgrep": _PGREP, "bin/ipcs": _IPCS}
    for name, text in {**scripts, "etc/passwd": _PASSWD, "etc/group": _GROUP}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755 if name.startswith("bin/") else 0o644)
    return layer(tree(place))


def _server(place: Path, name: str, port: int) -> Layer:
    folder = place / f"{name}-{port}" / "usr" / "sbin"
    folder.mkdir(parents=True)
    (folder / name).write_text(_SERVER.replace("NAME", name).replace("PORT", str(port)))
    (folder / name).chmod(0o755)
    return layer(tree(folder.parents[1]))


def _effective_user(place: Path) -> Layer:
    """A program of root's that tells whose rights it has."""
    (place / "root").mkdir()
    shutil.copy(compiled("euid"), place / "root" / "nnp")
    (place / "root" / "nnp").chmod(0o4755)
    return layer(tree(place / "root"))


@dataclass(frozen=True)
class Made:
    """An image, and the name and tags that critest asks for."""

    repository: str
    image: Image
    tags: tuple[str, ...]


def make_all(place: Path) -> list[Made]:
    """All that critest asks for by a tag. place: a directory for what goes into layers."""
    (place / "root").mkdir(parents=True)
    (place / "nnp").mkdir()
    base = _root(place / "root")
    architecture = platforms.host().architecture
    found: list[Made] = []

    def add(repository: str, *tags: str, above: Layer | None = None, **config: Any) -> None:
        """An image that no other one is equal to."""
        wanted = {"Cmd": ["sh"], "Env": [_PATH], **config}
        layers = [base, above or layer({"mark": f"{repository} {tags}".encode()})]
        made = image(layers, config=wanted, platform={"os": "linux", "architecture": architecture})
        found.append(Made(repository, made, tags))

    add(f"{_E2E}/busybox", "1.29-2")
    for name, repository, tag, port in (
        ("nginx", f"{_E2E}/nginx", "1.14-2", 80),
        ("httpd", f"{_E2E}/httpd", "2.4.39-4", 80),
        ("nginx", f"{_CRI_TOOLS}/hostnet-nginx-{architecture}", "latest", 12003),
    ):
        add(repository, tag, above=_server(place, name, port), Cmd=[f"/usr/sbin/{name}", "master process"])
    add(f"{_E2E}/nonewprivs", "1.3", above=_effective_user(place / "nnp"), Cmd=["/nnp"])
    for suffix, user in (
        ("user-uid", "1002"),
        ("user-username", "www-data"),
        ("user-uid-group", "1003:1004"),
        ("user-username-group", "www-data:1004"),
        ("predefined-group", "1000"),
    ):
        add(f"{_CRI_TOOLS}/test-image-{suffix}", "latest", User=user)
    for suffix in ("latest", "1", "2", "3"):
        add(f"{_CRI_TOOLS}/test-image-{suffix}", "latest")
    for tag in ("test", "all"):
        add(f"{_CRI_TOOLS}/test-image-tag", tag)
    add(f"{_CRI_TOOLS}/test-image-tags", "1", "2", "3")
    add("pause", "3.9")
    return found


def push_all(registry: LocalRegistry, made: list[Made]) -> None:
    """Have a registry hold them."""
    for one in made:
        registry.add(one.repository, one.image, *one.tags)


def certificates(place: Path, registry: LocalRegistry) -> None:
    """certs.d: every host that critest names is this registry."""
    for host in HOSTS:
        (place / host).mkdir(parents=True)
        (place / host / "hosts.toml").write_text(f'[host."{registry.url}"]\ncapabilities = ["pull", "resolve"]\n')
