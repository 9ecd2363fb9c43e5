"""The client's unary calls, by subject."""
