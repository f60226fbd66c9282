"""Where a container comes from: keywords, a document or a bundle; and under which name and state root."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ocirt import jsonlite, state
from ocirt.cli.target import made_up_id
from ocirt.errors import Error
from ocirt.library import config as configs
from ocirt.library.config import Config, StrPath
from ocirt.paths import read_bytes
from ocirt.spec.load import LIMIT
from ocirt.zygote.work import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.zygote.wire import Message

_OF_A_PROCESS = ("env", "cwd", "user")  # the keywords that change a process that is described already


def state_root(root: StrPath | None) -> str:
    """The state root: the command's own, unless another is named."""
    return os.path.abspath(root) if root is not None else state.default_root(os.environb)


def read_config(bundle: StrPath) -> Config:
    """A bundle's config.json, unchecked. Raises Error."""
    path = os.path.join(os.path.abspath(bundle), "config.json")
    try:
        found = jsonlite.loads(read_bytes(path, LIMIT + 1), path)
    except OSError as err:
        raise Error(
            "invalid", "cannot be read", subject=path, cause=err.strerror or "", hint="bundle= names a directory"
        ) from None
    if not isinstance(found, dict):
        raise Error("invalid", "not an object", subject=path)
    return found


def request(
    do: str,
    args: Sequence[StrPath] | None,
    bundle: StrPath | None,
    config: Config | None,
    container_id: str | None,
    root: StrPath | None,
    cgroups: str,
    options: Mapping[str, Any],
) -> Message:
    """The zygote's request for a new container. Raises Error for what does not go together."""
    if bundle is not None and config is not None:
        raise Error("usage", "a bundle and a config: which is it?", hint="ocirt.Bundle(path).config can be changed")
    if bundle is None and config is None:
        if args is None:
            raise Error("usage", "no program: args, config or bundle is needed")
        document = configs.config(args, **cast("Any", options))
    else:
        document = dict(config) if config is not None else read_config(cast("StrPath", bundle))
        document["process"] = changed(document.get("process") or {}, args, options)
    place = os.path.abspath(bundle) if bundle is not None else ""
    name = container_id or made_up_id(place or "run")
    where = state_root(root)
    if not place:
        # Its bundle is its own directory below the state root; work.py writes config.json there.
        place = state.directory(where, name)
        given = document.get("root") or {}
        if not given.get("path"):
            document["root"] = {**given, "path": f"{place}/{ROOT}"}
    return {"do": do, "id": name, "root": where, "bundle": place, "config": document, "rootless": None, "cgroups": cgroups}


def changed(process: Mapping[str, Any], args: Sequence[StrPath] | None, options: Mapping[str, Any]) -> Config:
    """A `process` with other arguments and what the keywords env, cwd and user say. Raises Error("usage") for other keywords."""
    for word in options:
        if word not in _OF_A_PROCESS:
            raise Error("usage", f"{word}= cannot be given here", hint="config.json says it: change it there")
    made = dict(process)
    if args is not None:
        made["args"] = configs.arguments(args)
    if options.get("env") is not None:
        made["env"] = configs.environment(made.get("env") or (), options["env"])
    if options.get("cwd") is not None:
        made["cwd"] = options["cwd"]
    if options.get("user") is not None:
        made["user"] = configs.user_of(options["user"])
    return made
