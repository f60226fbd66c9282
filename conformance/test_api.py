"""The .proto files of api/ beside those of the Go modules: each message, field, enum, service and method is the same.

A Go program that is linked with the others' generated code prints the descriptors that this code registers. Comments, files
and the order of things are ours; names, numbers, types and labels have to be theirs.
"""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from conformance import goprograms
from conformance.descriptors import differences, facts

API = Path(__file__).resolve().parents[1] / "api"
# The newest releases.
MODULES = {
    "github.com/container-storage-interface/spec": "v1.13.0",
    "github.com/containerd/cgroups/v3": "v3.1.3",
    "github.com/containerd/containerd/api": "v1.12.0",
    "github.com/containerd/nri": "v0.12.5",
    "github.com/containerd/ttrpc": "v1.2.10",
    "k8s.io/cri-api": "v0.37.2",
    "k8s.io/kubelet": "v0.37.2",
}
IMPORTS = (
    "github.com/container-storage-interface/spec/lib/go/csi",
    "github.com/containerd/cgroups/v3/cgroup1/stats",
    "github.com/containerd/cgroups/v3/cgroup2/stats",
    "github.com/containerd/containerd/api/events",
    "github.com/containerd/containerd/api/runtime/bootstrap/v1",
    "github.com/containerd/containerd/api/runtime/sandbox/v1",
    "github.com/containerd/containerd/api/runtime/task/v2",
    "github.com/containerd/containerd/api/runtime/task/v3",
    "github.com/containerd/containerd/api/services/ttrpc/events/v1",
    "github.com/containerd/containerd/api/types",
    "github.com/containerd/containerd/api/types/runc/options",
    "github.com/containerd/containerd/api/types/runtimeoptions/v1",
    "github.com/containerd/nri/pkg/api",
    "github.com/containerd/ttrpc",
    "k8s.io/cri-api/pkg/apis/runtime/v1",
    "k8s.io/kubelet/pkg/apis/pluginregistration/v1",
)
PROGRAM = """\
package main

import (
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
IMPORTS)

func main() {
	set := &descriptorpb.FileDescriptorSet{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
		return true
	})
	data, err := proto.Marshal(set)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(data)
}
""".replace("IMPORTS", "".join(f'\t_ "{path}"\n' for path in IMPORTS))
PACKAGES = (
    "containerd.events",
    "containerd.runc.v1",
    "containerd.runtime.bootstrap.v1",
    "containerd.runtime.sandbox.v1",
    "containerd.services.events.ttrpc.v1",
    "containerd.task.v2",
    "containerd.task.v3",
    "containerd.types",
    "containerd.v1.types",
    "csi.v1",
    "google.rpc",
    "io.containerd.cgroups.v1",
    "io.containerd.cgroups.v2",
    "nri.pkg.api.v1alpha1",
    "pluginregistration",
    "runtime.v1",
    "runtimeoptions.v1",
    "ttrpc",
)
# What of these packages we have no use for, and why.
LEFT_OUT = {
    "containerd.events.ContainerCreate": "published by containerd alone",
    "containerd.events.ContainerDelete": "published by containerd alone",
    "containerd.events.ContainerUpdate": "published by containerd alone",
    "containerd.events.ContentCreate": "published by containerd alone",
    "containerd.events.ContentDelete": "published by containerd alone",
    "containerd.events.NamespaceCreate": "published by containerd alone",
    "containerd.events.NamespaceDelete": "published by containerd alone",
    "containerd.events.NamespaceUpdate": "published by containerd alone",
    "containerd.events.SnapshotCommit": "published by containerd alone",
    "containerd.events.SnapshotPrepare": "published by containerd alone",
    "containerd.events.SnapshotRemove": "published by containerd alone",
    "containerd.types.Descriptor": "of an image's content, which no shim sees",
    "containerd.types.fieldpath": "an option for a generator of Go code",
    "containerd.types.fieldpath_all": "an option for a generator of Go code",
}


@pytest.fixture(scope="module")
def theirs() -> FileDescriptorSet:
    """What the Go modules register."""
    place = goprograms.build("descriptors", MODULES, ["."], go="1.26", files={"main.go": PROGRAM})
    done = subprocess.run([place / "descriptors"], capture_output=True, check=True)
    return FileDescriptorSet.FromString(done.stdout)


@pytest.fixture(scope="module")
def ours() -> FileDescriptorSet:
    """What the stubs register."""
    found = FileDescriptorSet()
    for source in sorted(API.rglob("*.proto")):
        module = importlib.import_module(".".join(source.relative_to(API).with_suffix("").parts) + "_pb2")
        module.DESCRIPTOR.CopyToProto(found.file.add())
    return found


def is_left_out(name: str) -> bool:
    """Is this fact one of a top-level name of LEFT_OUT?"""
    full = name.split()[1]
    return any(full == each or full.startswith(each + ".") for each in LEFT_OUT)


@pytest.mark.parametrize("package", PACKAGES)
def test_is_the_same_as_in_the_go_module(package: str, ours: FileDescriptorSet, theirs: FileDescriptorSet) -> None:
    """A package of ours has what theirs has, but for LEFT_OUT, and nothing else."""
    wanted = {name: fact for name, fact in facts(theirs, package).items() if not is_left_out(name)}
    assert wanted
    found = differences(facts(ours, package), wanted)
    assert not found, "\n".join(found)


def test_nothing_of_ours_is_in_another_package(ours: FileDescriptorSet) -> None:
    """Each of our packages is compared, but for the one that nobody else has."""
    assert {file.package for file in ours.file} - {"ocirt.shim.v1"} == set(PACKAGES)


def test_what_is_left_out_exists(theirs: FileDescriptorSet) -> None:
    """LEFT_OUT holds nothing that is gone."""
    there = {name.split()[1] for package in PACKAGES for name in facts(theirs, package)}
    assert not set(LEFT_OUT) - there


def test_the_cri_is_whole(ours: FileDescriptorSet) -> None:
    """The two services have their 43 methods."""
    methods = [name for name in facts(ours, "runtime.v1") if name.startswith("method ")]
    assert len([name for name in methods if ".RuntimeService." in name]) == 37
    assert len([name for name in methods if ".ImageService." in name]) == 6


def test_a_difference_is_named(ours: FileDescriptorSet) -> None:
    """Numbers, names, types, streams and options that differ are found."""
    wanted = facts(ours, "runtime.v1")
    changed = FileDescriptorSet.FromString(ours.SerializeToString())
    for file in changed.file:
        if file.name == "ocirt_api/cri/pods.proto":
            ips = next(message for message in file.message_type if message.name == "PodSandboxNetworkStatus")
            ips.field[0].number = 7
            ips.field[1].name = "more_ips"
        elif file.name == "ocirt_api/cri/api.proto":
            file.service[0].method[0].server_streaming = True
            del file.service[1].method[0]
        elif file.name == "ocirt_api/cri/events.proto":
            file.enum_type[0].value[1].number = 9
        elif file.name == "ocirt_api/cri/images.proto":
            auth = next(message for message in file.message_type if message.name == "AuthConfig")
            next(each for each in auth.field if each.name == "password").ClearField("options")
    assert differences(facts(changed, "runtime.v1"), wanted) == [
        "field runtime.v1.AuthConfig.password: ours is '2 optional string', theirs '2 optional string [debug_redact = True]'",
        "field runtime.v1.PodSandboxNetworkStatus.additional_ips: missing, theirs is 2 repeated .runtime.v1.PodIP",
        "field runtime.v1.PodSandboxNetworkStatus.ip: ours is '7 optional string', theirs '1 optional string'",
        "field runtime.v1.PodSandboxNetworkStatus.more_ips: they have none",
        "method runtime.v1.ImageService.ListImages: missing, theirs is (.runtime.v1.ListImagesRequest) returns "
        "(.runtime.v1.ListImagesResponse)",
        "method runtime.v1.RuntimeService.Version: ours is '(.runtime.v1.VersionRequest) returns "
        "(stream .runtime.v1.VersionResponse)', theirs '(.runtime.v1.VersionRequest) returns (.runtime.v1.VersionResponse)'",
        "value runtime.v1.ContainerEventType.CONTAINER_STARTED_EVENT: ours is '9', theirs '1'",
    ]
