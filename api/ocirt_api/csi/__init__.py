"""The Container Storage Interface: `api_pb2` has all messages, `api_pb2_grpc` the services."""
