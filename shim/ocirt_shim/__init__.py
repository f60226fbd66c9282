"""The zygote that ocirtd starts, and what it forks: a shim for each container."""
