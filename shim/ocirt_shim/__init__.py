"""The zygote of a node, and the shims that it forks: one for each container, without grpc, asyncio or protobuf.

Nothing here loads anything once a shim has been forked, but for what a failure needs: a shim lives for as long as its container,
and what it writes to is memory that it shares no more.
"""
