"""More than a hundred broken bundles: what is wrong, where the error must point to, and a word that it must say.

`DOCUMENTS` are changes, by JSON pointer, to what `ocirt spec` writes; `FILES` are whole files, made when they are needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from ocirt.cli.spec import default
from tests.unit.spec.documents import GONE

USER = {"/linux/namespaces/-": {"type": "user"}}
MAP = {"containerID": 0, "hostID": 100000, "size": 65536}
RLIMIT = {"type": "RLIMIT_CORE", "hard": 1, "soft": 1}
DEVICE = {"type": "c", "path": "/dev/x", "major": 1, "minor": 3}
ERRNO = {"defaultAction": "SCMP_ACT_ERRNO"}
# What is said of a path that is no cgroup of one's own: systemd's are not paths.
NO_GROUP = "slice:prefix:name" if os.environ.get("OCIRT_TEST_MANAGER") == "systemd" else "below the root"
ARGUMENT = {"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}

# name -> (changes, pointer, a word of the message or hint)
DOCUMENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what must be there
    "no version": ({"/ociVersion": GONE}, "config.json", 'lacks "ociVersion"'),
    "no process": ({"/process": GONE}, "config.json", 'lacks "process"'),
    "no root": ({"/root": GONE}, "config.json", 'lacks "root"'),
    "no linux": ({"/linux": GONE}, "config.json", 'lacks "linux"'),
    "no root path": ({"/root/path": GONE}, "/root", 'lacks "path"'),
    "no args": ({"/process/args": GONE}, "/process", "args must not be empty"),
    "no cwd": ({"/process/cwd": GONE}, "/process", 'lacks "cwd"'),
    "no destination": ({"/mounts/2/destination": GONE}, "/mounts/2", 'lacks "destination"'),
    "no namespace type": ({"/linux/namespaces/1/type": GONE}, "/linux/namespaces/1", 'lacks "type"'),
    "no hard limit": ({"/process/rlimits/0/hard": GONE}, "/process/rlimits/0", 'lacks "hard"'),
    # wrong types
    "version is a number": ({"/ociVersion": 1.2}, "/ociVersion", "a string is needed"),
    "process is a list": ({"/process": []}, "/process", "an object is needed"),
    "args is a text": ({"/process/args": "sh -c true"}, "/process/args", "in brackets"),
    "args holds a number": ({"/process/args": ["sleep", 1]}, "/process/args/1", "in quotes"),
    "args holds null": ({"/process/args": ["sh", None]}, "/process/args/1", "no room for null"),
    "env is an object": ({"/process/env": {"A": "b"}}, "/process/env", "an array of strings"),
    "env holds a list": ({"/process/env": [["A=b"]]}, "/process/env/0", "a string is needed"),
    "cwd is true": ({"/process/cwd": True}, "/process/cwd", "a string is needed"),
    "terminal is a text": ({"/process/terminal": "false"}, "/process/terminal", "without quotes"),
    "terminal is 0": ({"/process/terminal": 0}, "/process/terminal", "a boolean is needed"),
    "uid is a text": ({"/process/user/uid": "0"}, "/process/user/uid", "without quotes"),
    "uid is false": ({"/process/user/uid": False}, "/process/user/uid", "an integer"),
    "umask is octal": ({"/process/user/umask": "022"}, "/process/user/umask", "022 is 18"),
    "user is a number": ({"/process/user": 0}, "/process/user", "an object is needed"),
    "capabilities is a list": ({"/process/capabilities": ["CAP_KILL"]}, "/process/capabilities", "an object is needed"),
    "root is a text": ({"/root": "rootfs"}, "/root", "an object is needed"),
    "readonly is a text": ({"/root/readonly": "yes"}, "/root/readonly", "true or false"),
    "mounts is an object": ({"/mounts": {}}, "/mounts", "an array of objects"),
    "mount is a text": ({"/mounts/0": "proc"}, "/mounts/0", "an object is needed"),
    "options is a text": ({"/mounts/1/options": "nosuid,noexec"}, "/mounts/1/options", "in brackets"),
    "hooks is a list": ({"/hooks": []}, "/hooks", "an object is needed"),
    "hook is a text": ({"/hooks": {"prestart": ["/bin/x"]}}, "/hooks/prestart/0", "an object is needed"),
    "annotation is a number": ({"/annotations": {"a": 1}}, "/annotations/a", "in quotes"),
    "linux is null in quotes": ({"/linux": "null"}, "/linux", "an object is needed"),
    "namespaces is an object": ({"/linux/namespaces": {}}, "/linux/namespaces", "an array of objects"),
    "namespace is a text": ({"/linux/namespaces/0": "pid"}, "/linux/namespaces/0", "an object is needed"),
    "limit is a text": ({"/linux/resources/memory": {"limit": "64m"}}, "/linux/resources/memory/limit", "an integer"),
    "sysctl is a number": ({"/linux/sysctl": {"net.a": 1}}, "/linux/sysctl/net.a", "in quotes"),
    "seccomp is a list": ({"/linux/seccomp": []}, "/linux/seccomp", "an object is needed"),
    # deep pointers
    "a deep argument": (
        {"/linux/seccomp": {**ERRNO, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [ARGUMENT]}]}},
        "/linux/seccomp/syscalls/0/args/0/index",
        "0 to 5",
    ),
    "a deep device": (
        {"/linux/resources/blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": -1}]}},
        "/linux/resources/blockIO/throttleReadBpsDevice/0/rate",
        "out of range",
    ),
    "a deep name": ({"/annotations": {"a/b~c": []}}, "/annotations/a~1b~0c", "a string is needed"),
    # numbers
    "minus zero point five": ({"/process/user/uid": -0.5}, "/process/user/uid", "fraction"),
    "uid beyond 32 bits": ({"/process/user/uid": 1 << 32}, "/process/user/uid", "out of range"),
    "uid is nobody at all": ({"/process/user/uid": 0xFFFFFFFF}, "/process/user/uid", "no one"),
    "limit is 2^64": ({"/process/rlimits/0/hard": 1 << 64}, "/process/rlimits/0/hard", "out of range"),
    "memory is 2^63": ({"/linux/resources/memory": {"limit": 1 << 63}}, "/linux/resources/memory/limit", "out of range"),
    "a number of 300 digits": ({"/process/oomScoreAdj": 10**300}, "/process/oomScoreAdj", "out of range"),
    "score": ({"/process/oomScoreAdj": 1001}, "/process/oomScoreAdj", "-1000 to 1000"),
    "soft above hard": ({"/process/rlimits": [{**RLIMIT, "soft": 2}]}, "/process/rlimits/0/soft", "above the hard"),
    # strings
    "NUL in args": ({"/process/args": ["sh\0x"]}, "/process/args/0", "NUL"),
    "NUL in a path": ({"/root/path": "root\0fs"}, "/root/path", "NUL"),
    "NUL in a name": ({"/annotations": {"a\0": "b"}}, "/annotations/a\\x00", "NUL"),
    "empty name": ({"/annotations": {"": "b"}}, "/annotations/", "an empty name"),
    "empty program": ({"/process/args": [""]}, "/process/args/0", "name of the program is empty"),
    "empty root": ({"/root/path": ""}, "/root/path", "is empty"),
    "relative cwd": ({"/process/cwd": "tmp"}, "/process/cwd", "not an absolute path"),
    "no equals sign": ({"/process/env": ["PATH"]}, "/process/env/0", 'has no "="'),
    "version 2": ({"/ociVersion": "2.0.0"}, "/ociVersion", "not supported"),
    "version is a word": ({"/ociVersion": "one"}, "/ociVersion", "is not a version"),
    "long host name": ({"/hostname": "x" * 65}, "/hostname", "at most 64 bytes"),
    # names
    "namespace": ({"/linux/namespaces/1/type": "netwrok"}, "/linux/namespaces/1/type", 'did you mean "network"'),
    "propagation": ({"/linux/rootfsPropagation": "slve"}, "/linux/rootfsPropagation", "did you mean"),
    "limit's name": ({"/process/rlimits/0/type": "NOFILE"}, "/process/rlimits/0/type", "RLIMIT_NOFILE"),
    "action": ({"/linux/seccomp": {"defaultAction": "ALLOW"}}, "/linux/seccomp/defaultAction", "SCMP_ACT_ALLOW"),
    "device type": ({"/linux/devices": [{**DEVICE, "type": "d"}]}, "/linux/devices/0/type", "one of c, b"),
    "sysctl of the host": ({"/linux/sysctl": {"kernel.panic": "1"}}, "/linux/sysctl/kernel.panic", "whole host"),
    "sysctl by dots": ({"/linux/sysctl": {"net.../x": "1"}}, "/linux/sysctl/net...~1x", "not the name"),
    "page size": (
        {"/linux/resources/hugepageLimits": [{"pageSize": "2 MB", "limit": 1}]},
        "/linux/resources/hugepageLimits/0/pageSize",
        "not the size of a page",
    ),
    "cpus": ({"/linux/resources/cpu": {"cpus": "3-1"}}, "/linux/resources/cpu/cpus", "not a list"),
    "unified file": ({"/linux/resources/unified": {"../x.y": ""}}, "/linux/resources/unified/..~1x.y", "not a file"),
    # what does not go together
    "two of a namespace": ({"/linux/namespaces/-": {"type": "pid"}}, "/linux/namespaces/5", "a second namespace"),
    "no mount namespace": (
        {**USER, "/linux/uidMappings": [MAP], "/linux/gidMappings": [MAP], "/linux/namespaces/4": {"type": "cgroup"}},
        "/linux/namespaces",
        "without a mount namespace",
    ),
    "host name without uts": ({"/linux/namespaces/3": {"type": "cgroup"}}, "/hostname", "needs a UTS namespace"),
    "user namespace without mappings": (USER, "/linux/uidMappings", "needs a mapping"),
    "mappings without a user namespace": ({"/linux/uidMappings": [MAP]}, "/linux/uidMappings", "without a user namespace"),
    "mapping of nobody": (
        {**USER, "/linux/uidMappings": [{**MAP, "size": 0}], "/linux/gidMappings": [MAP]},
        "/linux/uidMappings/0/size",
        "maps no ids",
    ),
    "mappings that overlap": (
        {**USER, "/linux/uidMappings": [MAP, MAP], "/linux/gidMappings": [MAP]},
        "/linux/uidMappings/1/containerID",
        "overlaps",
    ),
    "effective without permitted": (
        {"/process/capabilities/permitted": []},
        "/process/capabilities/effective/0",
        "not permitted",
    ),
    "bind without a source": ({"/mounts/-": {"destination": "/x", "options": ["bind"]}}, "/mounts/7/source", "needs a source"),
    "mount over proc": ({"/mounts/-": {"destination": "/proc/sys", "type": "tmpfs"}}, "/mounts/7/destination", "inside /proc"),
    "neither type nor bind": ({"/mounts/-": {"destination": "/x"}}, "/mounts/7/options", "neither a bind mount"),
    "swap without memory": ({"/linux/resources/memory": {"swap": 1}}, "/linux/resources/memory/swap", "needs one of memory"),
    "notify nobody": ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}, "/linux/seccomp", "socket of an agent"),
    "errno of nothing": (
        {"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}},
        "/linux/seccomp/defaultErrnoRet",
        "returns no errno",
    ),
    "root cgroup": ({"/linux/cgroupsPath": "/.."}, "/linux/cgroupsPath", NO_GROUP),
}


def _good() -> bytes:
    return json.dumps(default()).encode()


def _with(text: bytes, other: bytes) -> bytes:
    found = _good()
    assert text in found
    return found.replace(text, other, 1)


def _uid(text: bytes) -> bytes:
    return _with(b'"uid": 0', b'"uid": ' + text)


_MIB = 1 << 20
_NAME = b'"hostname"'

# name -> (the file, subject, a word)
FILES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty": (lambda: b"", "config.json", "line 1, column 1"),
    "blank": (lambda: b" \n\t", "config.json", "a value is expected"),
    "null": (lambda: b"null", "config.json", "an object is needed"),
    "a number": (lambda: b"1", "config.json", "an object is needed"),
    "a list of one": (lambda: b"[" + _good() + b"]", "config.json", "without brackets"),
    "half of it": (lambda: _good()[:900], "config.json", "line 1, column"),
    "two of it": (lambda: _good() * 2, "config.json", "after the end"),
    "YAML": (lambda: b"ociVersion: 1.0.2\n", "config.json", "line 1, column 1"),
    "comment": (lambda: b"// x\n" + _good(), "config.json", "line 1, column 1"),
    "trailing comma": (lambda: _with(b'"hostname": "runc"', b'"hostname": "runc",'), "config.json", "line 1, column"),
    "single quotes": (lambda: _good().replace(b'"', b"'"), "config.json", "line 1, column 2"),
    "byte order mark": (lambda: b"\xef\xbb\xbf" + _good(), "config.json", "line 1, column 1"),
    "UTF-16": (lambda: _good().decode().encode("utf-16"), "config.json", "not UTF-8"),
    "Latin-1": (lambda: _with(b"runc", b"r\xfcnc"), "config.json", "not UTF-8"),
    "overlong NUL": (lambda: _with(b"runc", b"\xc0\x80"), "config.json", "not UTF-8"),
    "surrogate in UTF-8": (lambda: _with(b"runc", b"\xed\xa0\x80"), "config.json", "not UTF-8"),
    "half a surrogate pair": (lambda: _with(b"runc", b"\\ud800"), "config.json", "surrogate"),
    "the other half": (lambda: _with(b'"TERM=xterm"', b'"\\uDC00=x"'), "config.json", "surrogate"),
    "half in a name": (lambda: _with(_NAME, b'"\\ud83d"'), "config.json", "surrogate"),
    "NUL byte": (lambda: _with(b"runc", b"ru\0nc"), "config.json", "line 1, column"),
    "NUL escape": (lambda: _with(b'"runc"', b'"ru\\u0000nc"'), "/hostname", "NUL"),
    "newline in a string": (lambda: _with(b"runc", b"ru\nnc"), "config.json", "line 1, column"),
    "duplicate name": (lambda: _with(_NAME, b'"hostname": "a", "hostname"'), "config.json", '"hostname" stands twice'),
    "duplicate by escape": (lambda: _with(_NAME, b'"hostname": "a", "host\\u006eame"'), "config.json", "stands twice"),
    "deep duplicate": (lambda: _uid(b'0, "uid": 1'), "config.json", '"uid" stands twice'),
    "NaN": (lambda: _uid(b"NaN"), "config.json", "NaN is not JSON"),
    "Infinity": (lambda: _uid(b"-Infinity"), "config.json", "Infinity is not JSON"),
    "1e999": (lambda: _uid(b"1e999"), "/process/user/uid", "an integer"),
    "-1e999": (lambda: _uid(b"-1e999"), "/process/user/uid", "an integer"),
    "1e3": (lambda: _uid(b"1e3"), "/process/user/uid", "exponent: 1000"),
    "-0.0": (lambda: _uid(b"-0.0"), "/process/user/uid", "exponent: 0"),
    "01": (lambda: _uid(b"01"), "config.json", "line 1, column"),
    "+1": (lambda: _uid(b"+1"), "config.json", "line 1, column"),
    "0x10": (lambda: _uid(b"0x10"), "config.json", "line 1, column"),
    "5000 digits": (lambda: _uid(b"1" * 5000), "config.json", "digits"),
    "10 MB of digits": (lambda: _uid(b"1" * (10 * _MIB)), "config.json", "digits"),
    "nested 2000 deep": (lambda: b"[" * 2000, "config.json", "nested too deeply"),
    "nested, in braces": (lambda: b'{"a":' * 100000, "config.json", "nested too deeply"),
    "nested where it counts": (lambda: _uid(b"[" * 5000 + b"]" * 5000), "config.json", "too deeply"),
    "10 MB of nesting": (lambda: b"[" * (10 * _MIB), "config.json", "values"),
    "10 MB of nesting, closed": (lambda: b"[" * (5 * _MIB) + b"]" * (5 * _MIB), "config.json", "values"),
    "10 MB of numbers": (lambda: b"[" + b"1," * (5 * _MIB) + b"1]", "config.json", "values"),
    "10 MB of objects": (lambda: b"[" + b"{}," * (3 * _MIB) + b"{}]", "config.json", "values"),
    "300000 arguments that are numbers": (
        lambda: _with(b'"args": ["sh"]', b'"args": [' + b"1," * 300000 + b"1]"),
        "/process/args/0",
        "a string is needed",
    ),
    "100000 names": (
        lambda: b"{" + b",".join(b'"%x":0' % number for number in range(100000)) + b"}",
        "config.json",
        'lacks "ociVersion"',
    ),
    "100000 namespaces": (
        lambda: _with(b'"namespaces": [', b'"namespaces": [' + b'{"type":"pid"},' * 100000),
        "/linux/namespaces/1",
        "a second namespace",
    ),
    "8 MB of one character": (lambda: _with(b"runc", "\U0001f433".encode() * (2 * _MIB)), "/hostname", "at most 64 bytes"),
    "17 MB": (lambda: _good() + b" " * (17 * _MIB), "", "larger than 16 MiB"),
}
