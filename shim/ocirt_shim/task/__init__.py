"""containerd's shim, the program `containerd-shim-ocirt-v2`: it serves the Task service for a container, or for those of a pod.

It stands on the machinery of ocirtd's shims (loop, listener, container, worker), and needs no zygote: `start` is a short-lived
process whose fork becomes the shim.
"""
