"""The gRPC service: calls, streams, the interceptor, and where the server listens."""
