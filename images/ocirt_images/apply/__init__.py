"""A layer's tar onto a directory, in a process of its own.

Bytes flow one way: `source` (a file that may still grow) → `inflate` → `tar` (bytes in, entries out) → `applier` (entries onto a
directory). `unpack` puts these together, `server` runs it in a sandboxed process, `worker` is what callers use, `settle` does at
commit what only the lower layers can tell. See docs/layers.md for the rules.
"""
