"""What containers and pods use: read from cgroup files, netlink and a walker, without a word to a shim."""
