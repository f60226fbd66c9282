"""The verbs of `ocirt` that ask a node: what runs, what it says, and what this machine lacks for it."""
