"""The verbs, their flags and what is said of them, in the shape of the runtime's own tables, which are read by the same code.

Plain data: it is loaded for help, completion and manual pages too, without the libraries that the verbs need.
"""

from __future__ import annotations

_ADDRESS = "where the node's daemon listens (default: $OCIRT_ADDRESS, else its usual socket)"

# (fewest positional arguments, most or -1, flags); see ocirt/cli/options.py for the signs
VERBS: dict[str, tuple[int, int, str]] = {
    "doctor": (0, 0, "address= json"),
    "logs": (1, 1, "address= follow,f since= tail= timestamps,t"),
    "pods": (0, -1, "address= all,a json no-trunc quiet,q watch,w"),
}

# (arguments, description, texts of the flags); the summaries stand in ocirt/cli/elsewhere.py
TEXTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "doctor": (
        "",
        (
            "One finding a line: what was looked at, how it is, and what to do where it is not as it should be. The exit status\n"
            "is 1 if pods cannot run, or only some of them. Nothing is changed, and no daemon need run."
        ),
        {"address": _ADDRESS, "json": "print the findings as JSON"},
    ),
    "logs": (
        "<container>",
        (
            'Where "<container>" is an ID, the beginning of one that no other container has, or NAMESPACE/POD/CONTAINER.\n\n'
            "What the container wrote to its standard error goes to standard error."
        ),
        {
            "address": _ADDRESS,
            "follow": "go on until the container ends",
            "since": "only what is as old as this or younger, such as 90s, 10m or 1h30m",
            "tail": "only so many of the last lines",
            "timestamps": "write the time before each line",
        },
    ),
    "pods": (
        "[<pod>...]",
        "Those whose ID, name or namespace begins so, or all; with what their containers use.",
        {
            "address": _ADDRESS,
            "all": "those that have stopped, too",
            "json": "print JSON",
            "no-trunc": "print whole IDs",
            "quiet": "print only IDs",
            "watch": "show it again every two seconds, until Ctrl-C",
        },
    ),
}

# What the values of flags and the arguments are, for completion; see ocirt/cli/values.py
VALUES: dict[str, str | tuple[str, ...]] = {"address": "file", "since": "value", "tail": "value"}
ARGUMENTS: dict[str, str | tuple[str, ...]] = {"container": "value", "pod": "value"}
