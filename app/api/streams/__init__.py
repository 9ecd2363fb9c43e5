"""Streams of events as an HTTP API has them: what they carry, how a socket is handed over."""
