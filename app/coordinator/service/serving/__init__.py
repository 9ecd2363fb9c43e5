"""The gRPC server, and what it answers before the service is there."""
