"""Control groups: where a container's are, what is written into them, and how they are made, frozen, killed and removed.

`layout` looks at the host, `paths` says which directories a container gets, `limits` and `devices` turn the resources of
config.json into plain writes (both pure), `control` and `bpf` do the work.
"""
