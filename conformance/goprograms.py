"""Programs of others, built from their Go modules by the ordinary Go client, in a module of ours that is thrown away."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from conformance.drivers import program
from tests.system.conftest import entered

BUILD = Path(__file__).resolve().parents[1] / "build" / "conformance"


def build(
    name: str,
    modules: Mapping[str, str],
    packages: Sequence[str],
    *,
    go: str = "1.19",
    files: Mapping[str, str] | None = None,
    more: str = "",
    flags: Sequence[str] = (),
    tests: bool = False,
) -> Path:
    """The directory of the programs of `packages`; `modules`: path to version, all that they need. `go`: the language's version.

    `files`: sources of the module itself, by name, for a program of ours (the package `.`, which then has the name `name`).
    `more`: what else its go.mod says. `flags`: of `go build`. `tests`: it is the tests of a package, as PACKAGE.test.

    What was built once from the same versions is used again. Skips the test where there is no Go, or its modules cannot be had.
    """
    client = program("go")
    if client is None:
        pytest.skip("not installed: go")
    text = f"module {name}\n\ngo {go}\n\nrequire (\n" + "".join(f"\t{path} {modules[path]}\n" for path in modules) + ")\n" + more
    own = dict(files or {})
    key = hashlib.sha256("\n".join([text, *packages, *own.values(), *flags]).encode()).hexdigest()[:12]
    found = BUILD / f"{name}-{key}"
    if found.exists():
        return found
    place = BUILD / f"{name}-{key}.{os.getpid()}"
    place.mkdir(parents=True)
    try:
        for file, content in {"go.mod": text, **own}.items():
            (place / file).write_text(content)
        (place / "bin").mkdir()
        verb = ["test", "-c"] if tests else ["build"]
        argv = [client, *verb, "-mod=mod", *flags, "-o", f"{place / 'bin'}/", *packages]
        done = _call(argv, place)
        if done.returncode and ("403" in done.stderr or "dial tcp" in done.stderr):
            pytest.skip(f"the Go modules of {name} cannot be had here: {done.stderr.strip()[-300:]}")
        if done.returncode and re.search(r"requires go|toolchain not available", done.stderr, re.IGNORECASE):
            pytest.skip(f"{name} needs Go {go} or later: {done.stderr.strip()[-300:]}")
        assert done.returncode == 0, done.stderr
        (place / "bin").rename(found)
    finally:
        shutil.rmtree(place)
    return found


def _call(argv: Sequence[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Call the client in `place`, on the machine's own network: what it has not kept it has to fetch."""
    with entered().on_host_network():
        return subprocess.run(
            argv, cwd=place, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True, check=False
        )


def source(name: str, path: str, version: str) -> Path:
    """The directory of a module's sources. Skips the test where there is no Go, or the module cannot be had."""
    client = program("go")
    if client is None:
        pytest.skip("not installed: go")
    place = BUILD / f"{name}.{os.getpid()}"
    place.mkdir(parents=True)
    try:
        (place / "go.mod").write_text(f"module {name}\n\ngo 1.19\n\nrequire {path} {version}\n")
        argv = [client, "mod", "download", "-json", f"{path}@{version}"]
        done = _call(argv, place)
        if done.returncode:
            pytest.skip(f"the Go module {path} cannot be had here: {(done.stderr or done.stdout).strip()[-300:]}")
        argv = [client, "list", "-mod=mod", "-m", "-f", "{{.Dir}}", path]
        return Path(subprocess.run(argv, cwd=place, capture_output=True, text=True, check=True).stdout.strip())
    finally:
        shutil.rmtree(place)


def containerd2(version: str = "v2.2.9") -> Path:
    """The directory of containerd, its shim and ctr of the second major version, which Debian 12 does not have.

    From 2.3 on it starts shims in another way.
    """
    module = "github.com/containerd/containerd/v2"
    names = ("containerd", "containerd-shim-runc-v2", "ctr")
    return build("containerd", {module: version}, [f"{module}/cmd/{name}" for name in names], go="1.24")


def kube(version: str = "1.34.4") -> Path:
    """A kubelet, kubectl, an API server and its etcd in one program (kube.go), of modules that were published.

    Kubernetes' repository names folders instead. What is built takes ten minutes of two processors, and 4 GB of disk.
    """
    client = program("go")
    if client is None:
        pytest.skip("not installed: go")
    place = BUILD / f"kube.{os.getpid()}"
    place.mkdir(parents=True)
    try:
        (place / "go.mod").write_text("module kube\n\ngo 1.24\n")
        done = _call([client, "mod", "download", "-json", f"k8s.io/kubernetes@v{version}"], place)
        if done.returncode:
            pytest.skip(f"the Go module k8s.io/kubernetes cannot be had here: {(done.stderr or done.stdout).strip()[-300:]}")
        theirs = Path(json.loads(done.stdout)["GoMod"]).read_text()
    finally:
        shutil.rmtree(place)
    parts = [part for part in re.findall(r"^\s*(\S+) => [.]/staging/", theirs, re.MULTILINE) if "/sample-" not in part]
    modules = {"k8s.io/kubernetes": f"v{version}", **dict.fromkeys(parts, f"v0.{version.partition('.')[2]}")}
    for part in ("github.com/spf13/cobra", "go.etcd.io/etcd/server/v3"):
        modules[part] = re.findall(rf"^\s*{re.escape(part)} (\S+)", theirs, re.MULTILINE)[0]
    replaced = "".join(f"\t{part} => {part} {modules[part]}\n" for part in parts)
    names = [f"{package}.gitVersion=v{version}" for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")]
    major, minor = version.split(".")[:2]
    names += [f"k8s.io/client-go/pkg/version.gitMajor={major}", f"k8s.io/client-go/pkg/version.gitMinor={minor}"]
    said = " ".join(f"-X {name}" for name in names)
    found = build(
        "kube",
        modules,
        ["."],
        go=(re.findall(r"^go (\S+)", theirs, re.MULTILINE) or ["1.24"])[0],
        files={"main.go": Path(__file__).with_name("kube.go").read_text()},
        more=f"\ngodebug default=go1.24\n\nreplace (\n{replaced})\n",
        flags=["-trimpath", "-tags", "selinux,notest,grpcnotrace", "-ldflags", f"-s -w {said}"],
    )
    return found / "kube"


def crictl() -> str:
    """The machine's crictl, or one that is built."""
    module = "sigs.k8s.io/cri-tools"
    return program("crictl") or str(build("crictl", {module: "v1.34.0"}, [f"{module}/cmd/crictl"], go="1.24") / "crictl")


def critest() -> str:
    """The machine's critest, or one that is built, whose version has specs of NRI."""
    module = "sigs.k8s.io/cri-tools"
    packages, flags = [f"{module}/cmd/critest"], ["-ldflags", "-s -w"]
    if there := program("critest"):
        return there
    return str(build("critest", {module: "v1.37.0"}, packages, go="1.26", flags=flags, tests=True) / "critest.test")


def hostpath(version: str = "v1.17.0") -> Path | None:
    """The hostpath driver of CSI's own: the machine's, or one that is built of its Go module; None where that cannot be had."""
    if there := program("hostpathplugin"):
        return Path(there)
    module = "github.com/kubernetes-csi/csi-driver-host-path"
    try:
        return (
            build(
                "hostpath",
                {module: version},
                [f"{module}/cmd/hostpathplugin"],
                go="1.25",
                flags=["-ldflags", f"-X main.version={version}"],
            )
            / "hostpathplugin"
        )
    except pytest.skip.Exception:
        return None
