"""The only room of the gateway that knows gRPC and protobuf: calls, conversion, errors.

Not here: anything of HTTP, and what is done with an answer.
"""
