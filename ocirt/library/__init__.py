"""What `import ocirt` offers to Python programs; docs/library.md describes it.

| module | |
|---|---|
| `config` | config.json from keywords |
| `source` | where a container comes from: keywords, a document or a bundle |
| `process` | streams, time-outs and results of a process, as in `subprocess` |
| `run` | `ocirt.run` |
| `container` | `ocirt.Container`, `ocirt.Bundle` |

This is the caller's side: nothing here is loaded by the command or by a zygote, and nothing here starts a process or enters a
namespace. That is done by forks of the zygote (`ocirt.zygote`), with the code of the command.
"""
