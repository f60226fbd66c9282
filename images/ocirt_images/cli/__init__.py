"""The verbs of the command `ocirt` that deal with images: one file a verb, with `run(command, args) -> exit status`.

`ocirt` reads the command line by `tables`, which is plain data, and hands it to `main`. Nothing here is loaded for a container.
"""
