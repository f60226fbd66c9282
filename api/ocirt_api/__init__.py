"""Contracts: the .proto files of what ocirt speaks, the stubs made from them, ttrpc, and the table of error codes.

Importing this loads nothing else. `ttrpc`, `wire` and `messages` need no library and little time: a shim uses them. The modules
that end in `_pb2` need protobuf, those that end in `_pb2_grpc` need grpcio (the extra `api`).
"""
