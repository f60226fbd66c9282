"""The help texts: one paragraph and one line per flag for each verb, in the shape of runc's help."""

from __future__ import annotations

from ocirt.cli import elsewhere, log, options, out

_BUNDLE = "path to the root of the bundle directory, defaults to the current directory"
_CONSOLE = "path to an AF_UNIX socket which will receive a descriptor of the console's master end"
_ID = 'Where "<container-id>" is the name of the container.'
_NEW_ID = 'Where "<container-id>" is your name for the container; it must be unique below the state root.'
_FORMAT = 'select one of: table or json (default: "table")'

# Flags that mean the same wherever they stand: name -> text
_COMMON = {
    "config": "name of the configuration file inside the bundle (default: config.json)",
    "console-socket": _CONSOLE,
    "detach": "detach from the container's process",
    "no-new-keyring": "do not make a new session keyring: the container gets the caller's",
    "no-pivot": "do not use pivot_root; for a root file system in a ramdisk",
    "no-subreaper": "do not become a subreaper of what the container leaves behind",
    "pid-file": "file to write the process id to",
    "preserve-fds": "pass N more descriptors to the container: stdio + LISTEN_FDS + N (default: 0)",
}
_CREATE = _COMMON | {
    "bundle": _BUNDLE,
    "pidfd-socket": "path to an AF_UNIX socket which will receive a descriptor of the init process",
}
_CRIU = {
    "auto-dedup": "drop from the images what later ones hold anew",
    "empty-ns": "leave a namespace empty: network, which always is (obsolete)",
    "ext-unix-sk": "allow Unix sockets that are connected to the outside",
    "file-locks": "handle file locks",
    "image-path": "directory of the images (default: checkpoint)",
    "lazy-pages": "fetch memory when it is used first (userfaultfd)",
    "manage-cgroups-mode": "what CRIU does with cgroups: soft, full, strict or ignore (default: soft)",
    "shell-job": "allow a session and a terminal from outside",
    "tcp-established": "allow open TCP connections",
    "work-path": "directory of logs and the like (default: that of the images)",
}

_IMAGE = {
    "cwd": "the working directory, instead of the image's",
    "entrypoint": "the program, or a JSON list of words, instead of the image's entrypoint and command; empty for none",
    "env": "NAME=VALUE, or NAME for the value that it has here",
    "hostname": "the host name in the container",
    "network": "none (nothing but lo; the default for root) or host",
    "no-new-privs": "let no program gain rights by its set-user-ID bit",
    "read-only": "make the root file system read-only; the image's volumes can be written to, in memory",
    "size": "what may be written to the root file system (of a bundle, with --mount), such as 10g; the store's disk needs quotas",
    "user": "NAME, UID, NAME:GROUP or UID:GID, instead of the image's",
}

# verb -> (summary, arguments, description, texts of the flags)
VERBS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "apparmor": (
        "print the AppArmor profile for containers that have none of their own, or load it",
        "[profile]",
        (
            'The profile\'s name is ocirt-default, or "[profile]". A container has it by process.apparmorProfile in its\n'
            "config.json, or exec --apparmor. To load this text over an older one: ocirt apparmor | apparmor_parser --replace"
        ),
        {"load": "load it, unless the kernel has a profile of that name; by apparmor_parser(8)"},
    ),
    "bundle": (
        "make a bundle from an image, or for a root file system that is there",
        "<rootfs> <directory> [command...]  || <image> <directory> [command...]  || --mount <directory>",
        (
            "Write <directory>/config.json, which runs the command (or the image's, or sh) in <rootfs>, a directory, or in a\n"
            "copy of the image, <directory>/rootfs. A directory is not copied: the bundle points to it. Then: run <directory>/\n"
            "With --mount alone, mount the root file system of such a bundle again, as after a reboot."
        ),
        {
            "mount": "of an image: mount <directory>/rootfs instead of copying; what is written lies in the store of images",
            "rootless": "of a directory: for a user who is not root (the default for one who is not)",
            "tty": "with a terminal (the default without a command, when standard input and output are one)",
            "writable": "of a directory: let the container write to it",
        }
        | _IMAGE,
    ),
    "check": (
        "say all that is wrong with a bundle, for this machine, without making anything",
        "[bundle]",
        "One finding a line: what would make run fail is an error (exit status 1), what would be ignored a warning.",
        {"bundle": _BUNDLE, "config": _COMMON["config"], "json": "print the findings as JSON"},
    ),
    "checkpoint": (
        "write the state of a container's processes into files",
        "<container-id>",
        _ID + "\n\nThe container is deleted then, unless by --leave-running or --pre-dump. It takes CRIU (https://criu.org).",
        _CRIU
        | {
            "leave-running": "let the container run on",
            "link-remap": "give a name to files without one, where they are",
            "page-server": "send memory to a page server: ADDRESS:PORT",
            "parent-path": "images of a pre-dump before, relative to the images",
            "pre-dump": "write memory only, and let the container run on",
            "status-fd": "descriptor that gets a zero byte when lazy pages can be fetched",
            "tcp-skip-in-flight": "skip TCP connections that are not established yet",
        },
    ),
    "completion": (
        "print what a shell needs to complete the command line",
        "<shell>",
        (
            "The shell is bash, zsh or fish. For this shell alone: source <(ocirt completion bash), or for fish:\n"
            "ocirt completion fish | source"
        ),
        {},
    ),
    "create": (
        "create a container",
        "<container-id>",
        _NEW_ID + "\n\nEverything is set up as the bundle's config.json has it; the process waits for start.",
        _CREATE,
    ),
    "delete": (
        "delete any resources held by a container",
        "<container-id>",
        _ID + "\n\nA container that runs is not deleted, unless by --force. A created one is killed first.",
        {"force": "kill the container (SIGKILL) if it still runs; no error if there is none"},
    ),
    "exec": (
        "execute a new process inside the container",
        "<container-id> <command> [arguments...]  || -p process.json <container-id>",
        _ID,
        _COMMON
        | {
            "additional-gids": "additional gids",
            "apparmor": "AppArmor profile of the process",
            "cap": "add a capability to those of the process",
            "cgroup": "run the process in an existing sub-cgroup: [<controller>:]<path>",
            "cwd": "working directory in the container",
            "env": "set environment variables",
            "ignore-paused": "allow exec in a paused container",
            "no-new-privs": "set no_new_privs for the process",
            "pidfd-socket": "path to an AF_UNIX socket which will receive a descriptor of the process",
            "process": "path to a process.json",
            "process-label": "SELinux label of the process",
            "tty": "allocate a pseudo-terminal",
            "user": "UID (format: <uid>[:<gid>])",
        },
    ),
    "events": (
        "show what a container uses, and when it runs out of memory",
        "<container-id>",
        _ID + "\n\nEach line is an event as JSON: its use, once an interval, or that a process was killed for lack of memory.",
        {
            "interval": 'time between two lines of its use, such as 500ms or 1m30s (default: "5s")',
            "stats": "show its use, and exit",
        },
    ),
    "features": (
        "show the enabled features",
        "",
        "The output is JSON as the runtime specification has it (features.md).",
        {},
    ),
    "kill": (
        "send a signal (default: SIGTERM) to the container's init process",
        "<container-id> [signal]",
        _ID + ' "[signal]" is a number or a name, with or without SIG.',
        {"all": "succeed if the container is not running (obsolete)"},
    ),
    "list": (
        "list the containers below the state root",
        "",
        "",
        {"format": _FORMAT, "quiet": "show only container IDs"},
    ),
    "manual": (
        "print the manual page of the command, or of a verb",
        "[verb]",
        "It is in the man(7) language: ocirt manual run | man -l -",
        {},
    ),
    "pause": ("suspend all processes inside the container", "<container-id>", _ID, {}),
    "plan": (
        "show what would be done to run a bundle, without doing it",
        "[bundle]",
        "Each line is one step: the side that runs it, the kernel operation, and the part of config.json that it comes from.",
        {"bundle": _BUNDLE, "config": _COMMON["config"], "json": "print the plan as JSON"},
    ),
    "ps": (
        "show the processes inside the container",
        "<container-id> [ps options]",
        _ID + " The options are those of ps(1) (default: -ef).",
        {"format": _FORMAT},
    ),
    "restore": (
        "make a container of what checkpoint wrote",
        "<container-id>",
        _NEW_ID + "\n\nIts processes go on where they were. The bundle is that of the container before, or one like it.",
        _CRIU
        | _COMMON
        | {
            "bundle": _BUNDLE,
            "lsm-mount-context": "mount label to restore with",
            "lsm-profile": "security label to restore with: TYPE:NAME",
            "no-pivot": "taken and left aside: CRIU enters the root by itself",
        },
    ),
    "resume": ("resume all processes that were paused", "<container-id>", _ID, {}),
    "run": (
        "create and run a container",
        "<container-id>  || <bundle>/  || --image <image> [command...]",
        (
            _NEW_ID + "\nAn argument with a slash in it is a bundle directory instead, and the ID is made up.\n\n"
            "With --image the arguments are a command, in place of the image's. Flags of its own follow `--`. An image that is\n"
            "not in the store is pulled. Flags such as --env are for images alone: a bundle has its config.json."
        ),
        _CREATE
        | _IMAGE
        | {
            "image": "run a container of this image",
            "name": "the ID of an image's container (default: one that is made up)",
            "tty": "with a terminal (the default without a command, when standard input and output are one)",
            "keep": "do not delete the container after it exits",
            "trace": "write the time of every step to this file (Chrome trace format)",
        },
    ),
    "spec": (
        "make a new config.json",
        "",
        "The file is a start to be edited: it runs sh in the bundle's rootfs/. One that exists is never overwritten.",
        {"bundle": "path to the root of the bundle directory", "rootless": "for a user who is not root"},
    ),
    "start": ("execute the user-defined process in a created container", "<container-id>", _ID, {}),
    "state": ("output the state of a container", "<container-id>", _ID, {}),
    "update": (
        "update container resource constraints",
        "<container-id>",
        _ID + "\n\nWhat no flag names stays as it is. The container may be created, running or paused.",
        {
            "resources": "file with what config.json has in linux.resources, or '-' for standard input; other flags are ignored",
            "blkio-weight": "weight of the container's I/O, 10 to 1000",
            "cpu-period": "length of a period of the cpu quota, in microseconds",
            "cpu-quota": "time on a cpu within a period, in microseconds; -1 for no limit",
            "cpu-burst": "time that may be saved up for a later period, in microseconds",
            "cpu-share": "weight of the container on busy cpus, relative to others'",
            "cpu-rt-period": "length of a period of realtime scheduling, in microseconds",
            "cpu-rt-runtime": "time for realtime scheduling within a period, in microseconds",
            "cpu-idle": "1 to run only when a cpu has nothing else to do (SCHED_IDLE), 0 not to",
            "cpuset-cpus": "the cpus to use, such as 0-2,4",
            "cpuset-mems": "the memory nodes to use",
            "kernel-memory": "ignored (obsolete)",
            "kernel-memory-tcp": "ignored (obsolete)",
            "memory": "memory limit: bytes, or with a unit such as 64m; -1 for no limit",
            "memory-reservation": "how much memory is taken from the container last (soft limit)",
            "memory-swap": "limit of memory and swap together; -1 for no limit of swap",
            "pids-limit": "number of processes and threads; -1 for no limit",
            "l3-cache-schema": "schema of Intel's RDT/CAT for the L3 cache",
            "mem-bw-schema": "schema of Intel's RDT/MBA for memory bandwidth",
        },
    ),
}

_GLOBAL = {
    "cgroup-manager": 'how cgroups are made: cgroupfs, systemd or disabled (default: "cgroupfs")',
    "debug": "enable debug logging",
    "help": "show help",
    "image-root": "directory of the images (default: /var/lib/ocirt/images, or below XDG_DATA_HOME)",
    "log": "file to write the log to (default: standard error)",
    "log-format": 'text or json (default: "text")',
    "log-level": "error, warning, info or debug (the last is --debug)",
    "root": "directory of the containers' state (default: /run/ocirt/runtime, or below XDG_RUNTIME_DIR)",
    "rootless": 'ignore cgroup permission errors: true, false or auto (default: "auto")',
    "systemd-cgroup": 'make cgroups by systemd; cgroupsPath is then of the form "slice:prefix:name"',
    "version": "print the version",
}


def verbs() -> dict[str, tuple[str, str, str, dict[str, str]]]:
    """`VERBS` with those of the floors that are installed."""
    return dict(sorted((VERBS | elsewhere.texts()).items()))


def flag_lines() -> dict[str, tuple[int, int, str]]:
    """`options.VERBS` with those of the floors that are installed."""
    return dict(sorted((options.VERBS | {"run": options.RUN_IMAGE} | elsewhere.flags()).items()))


def flag_text(verb: str, flag: str) -> str:
    """What a flag of a verb does (a global one, for "")."""
    return (verbs()[verb][3] if verb else _GLOBAL)[flag]


def show(verb: str, name: str, head: str = "") -> int:
    """Print `head` and the help of a verb (of the whole command for ""). Returns 0, the exit status."""
    out(head + text(verb, name))
    return 0


def other(given: options.Options, rest: list[str]) -> int:
    """Answer what stands in a verb's place and is none: `help`, a mistake. Returns the exit status."""
    verb = rest[0]
    if verb in ("help", "h"):
        verb = rest[1] if len(rest) > 1 else ""
        if verb in elsewhere.VERBS:
            elsewhere.tables(elsewhere.VERBS[verb][0])  # or it is not installed, and this says so
        if not verb or verb in options.VERBS or verb in elsewhere.VERBS:
            return show(verb, given.name)
    log.error(given, f"No help topic for '{verb}'")
    return 3


def text(verb: str, name: str) -> str:
    """The help of a verb, or of the whole command for "". `name` is what the program was called by."""
    if not verb:
        summaries = {each: entry[0] for each, entry in VERBS.items()}
        summaries |= {each: summary for each, (_, summary) in elsewhere.VERBS.items()}
        width = max(map(len, summaries))
        lines = [
            f"NAME:\n   {name} - run containers from OCI bundles\n",
            f"USAGE:\n   {name} [global options] command [command options] [arguments...]\n",
            "COMMANDS:",
            *(f"   {each.ljust(width)}  {summary}" for each, summary in sorted(summaries.items())),
            f"   {'help, h'.ljust(width)}  show this, or the help of a command",
            "\nGLOBAL OPTIONS:",
            *_flags(options.GLOBAL, _GLOBAL),
        ]
        return "\n".join(lines) + "\n"
    summary, arguments, description, texts = verbs()[verb]
    flag_line = flag_lines()[verb][2]
    usage = " ".join(part for part in (name, verb, "[command options]" if flag_line else "", arguments) if part)
    lines = [f"NAME:\n   {name} {verb} - {summary}\n", f"USAGE:\n   {usage}"]
    if description:
        lines += ["\n" + description]
    if flag_line:
        lines += ["\nOPTIONS:", *_flags(flag_line, texts)]
    return "\n".join(lines) + "\n"


def _flags(line: str, texts: dict[str, str]) -> list[str]:
    left = []
    for word in line.split():
        name, alias, kind = options.split_word(word)
        value = " value" if kind else ""
        left.append((name, f"--{name}{value}" + (f", -{alias}{value}" if alias else "")))
    width = max(len(shown) for _, shown in left)
    return [f"   {shown.ljust(width)}  {texts[name]}" for name, shown in left]
