"""The warm way in: a small process that has ocirt loaded, and forks for each request.

A process with threads cannot fork into Python code, and starting an interpreter takes longer than starting a container. So a
caller has one zygote, started by exec, that stays single-threaded; what it forks finds everything loaded, and one fork is always
there in advance.

| module | runs in | |
|---|---|---|
| `wire` | both | messages: length and JSON, descriptors beside them |
| `server` | the zygote | the loop that forks, and reaps; knows nothing of containers |
| `protect` | the zygote | executes the interpreter once more from a file that no container can write to |
| `main` | the zygote | loads everything, then `server.serve` with what `work` does |
| `rehearsal` | a fork | the beginning of a request, before there is one |
| `work` | a fork | one request, by the code of the command's verbs |
| `client` | the caller | starts a zygote, and talks to its forks |

docs/library.md has a picture of who holds what.
"""
