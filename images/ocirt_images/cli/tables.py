"""The verbs, their flags and what is said of them, in the shape of the runtime's own tables, which are read by the same code.

Plain data: it is loaded for help, completion and manual pages too, without the libraries that the verbs need.
"""

from __future__ import annotations

_PLATFORM = "the platform that is meant, such as linux/arm64 (default: this machine's)"
_INSECURE = "talk to the registry without TLS, or without checking its certificate"
_QUIET = "print nothing but names or IDs"
_JSON_LINES = "print what happens as lines of JSON"
_IMAGE = 'Where "<image>" is a name, an ID, a digest, or the beginning of an ID that no other image has.'
_REFERENCE = "A name is HOST[:PORT]/PATH[:TAG][@DIGEST]; with a digest, the digest decides."

# (fewest positional arguments, most or -1, flags); see ocirt/cli/options.py for the signs
VERBS: dict[str, tuple[int, int, str]] = {
    "fsck": (0, 0, "json quiet,q repair"),
    "history": (1, 1, "json no-trunc quiet,q"),
    "images": (0, -1, "digests filter,f* json names no-trunc quiet,q"),
    "inspect": (1, -1, ""),
    "load": (0, 1, "all-platforms from-containerd= input,i= json name= namespace,n= platform= quiet,q"),
    "login": (0, 1, "insecure password-stdin username,u="),
    "logout": (0, 1, "all,a"),
    "prune": (0, 0, "all,a json older= quiet,q"),
    "pull": (1, -1, "all-platforms insecure json no-sync platform= quiet,q"),
    "push": (1, 2, "insecure json platform= quiet,q"),
    "rmi": (1, -1, "force,f quiet,q"),
    "save": (1, -1, "directory,d= output,o= platform="),
    "tag": (2, -1, ""),
}

# (arguments, description, texts of the flags); the summaries stand in ocirt/cli/elsewhere.py
TEXTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "fsck": (
        "",
        (
            "One finding a line. The exit status is 1 if damage is left; what a killed command left half done is none,\n"
            "as the next command finishes it. A store without damage is not changed."
        ),
        {"json": "print the findings as JSON", "quiet": "print nothing", "repair": "repair what can be repaired"},
    ),
    "history": (
        "<image>",
        _IMAGE + "\n\nOne line for each step that made it, the last one first.",
        {"json": "print JSON", "no-trunc": "print whole commands and digests", "quiet": "print only the digests of layers"},
    ),
    "images": (
        "[<image>...]",
        "Those that are named (a repository without a tag names all of its tags), or all.",
        {
            "digests": "show digests",
            "filter": (
                "show only some: dangling=true|false, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE, "
                "until=TIME|AGE"
            ),
            "json": "print JSON",
            "names": "print only names",
            "no-trunc": "print whole IDs",
            "quiet": "print only IDs",
        },
    ),
    "inspect": ("<image>...", _IMAGE, {}),
    "load": (
        "[<archive>]",
        (
            "An archive is a tar (plain, gzip or zstd) or a directory: an OCI image layout, or what docker save and podman save\n"
            "write. Without one it is read from standard input.\n\n"
            "With --from-containerd all images of a containerd are taken: by its socket while it runs, by its directory else."
        ),
        {
            "all-platforms": "keep the images for all platforms that are in the archive",
            "from-containerd": "take the images of a containerd: its socket or its directory",
            "input": "the archive",
            "json": _JSON_LINES,
            "name": "the name for an image that has none or only a tag in the archive",
            "namespace": 'the namespace of containerd (default: "k8s.io")',
            "platform": _PLATFORM,
            "quiet": _QUIET,
        },
    ),
    "login": (
        "[<registry>]",
        "The registry is docker.io if none is given. Name and password are asked for, and tried before they are kept.",
        {
            "insecure": _INSECURE,
            "password-stdin": "read the password from standard input",
            "username": "the name",
        },
    ),
    "logout": ("[<registry>]", "The registry is docker.io if none is given.", {"all": "forget those for all registries"}),
    "prune": (
        "",
        "Without --all: what no image, container or work at hand needs, such as layers of a removed image.",
        {
            "all": "remove all images first that no container uses",
            "json": "print JSON",
            "older": "only what came so long ago or earlier, such as 24h or 7d",
            "quiet": "print nothing",
        },
    ),
    "pull": (
        "<reference>...",
        _REFERENCE + "\nInterrupted, it can be run again, and goes on where it was.",
        {
            "all-platforms": "fetch what the image has for other platforms too, for push and save; it is not unpacked",
            "insecure": _INSECURE,
            "json": _JSON_LINES,
            "no-sync": "do not wait for the disk: a loss of power then may damage the store",
            "platform": _PLATFORM,
            "quiet": _QUIET,
        },
    ),
    "push": (
        "<image> [<reference>]",
        _IMAGE + "\n\nIt is pushed to where its name says, or to another reference.",
        {"insecure": _INSECURE, "json": _JSON_LINES, "platform": "push the image for this platform alone", "quiet": _QUIET},
    ),
    "rmi": (
        "<image>...",
        _IMAGE + "\n\nThe image is deleted with its last name. An ID with several names needs --force, or all of them.",
        {"force": "remove all names of an ID; no error for an image that is not there", "quiet": "print nothing"},
    ),
    "save": (
        "<image>...",
        (
            _IMAGE + "\n\nWhat is written is an OCI image layout that docker load and podman load read too: a tar on standard\n"
            "output, or where a flag says. The same images always make the same bytes."
        ),
        {
            "directory": "write a directory instead of a tar",
            "output": "write the tar to this file",
            "platform": "write the image for this platform alone (default: all that is here)",
        },
    ),
    "tag": ("<image> <reference>...", _IMAGE, {}),
}

# Kinds of values and arguments, for completion (see ocirt/cli/values.py). A tuple of words is a kind too.
VALUES: dict[str, str | tuple[str, ...]] = {
    "directory": "directory",
    "filter": ("dangling=", "reference=", "label=", "before=", "since=", "until="),
    "from-containerd": "file",
    "input": "file",
    "name": "value",
    "older": "value",
    "namespace": ("k8s.io", "default", "moby"),
    "output": "file",
    "platform": ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/ppc64le", "linux/riscv64", "linux/s390x"),
    "username": "value",
}
ARGUMENTS: dict[str, str | tuple[str, ...]] = {
    "archive": "file",
    "image": "image",
    "reference": "image",
    "registry": "value",
}
