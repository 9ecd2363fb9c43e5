"""The only room of the gateway that knows gRPC and protobuf."""
