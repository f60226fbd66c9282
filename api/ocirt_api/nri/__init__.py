"""The Node Resource Interface: `api_pb2` has all messages; the services are spoken over ttrpc."""
