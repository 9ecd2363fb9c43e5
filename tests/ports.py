"""Ports for servers that are to be found, and to be started again, where they were."""

import secrets
import socket


def free_ports(count: int) -> list[int]:
    """Ports that stay ours over a restart: the kernel gives them to no outgoing connection."""
    found: list[int] = []
    while len(found) < count:
        # By chance even where a test has seeded `random`.
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
