"""What the network helper runs: the namespaces of pods, their /dev/shm, and their networks.

The helper is a fork of the zygote with one thread. Each job is a fork of the helper, which may enter and make namespaces as it
likes. Neither grpc nor asyncio is loaded here; `ocirt_cri.networks` is ocirtd's side.
"""
