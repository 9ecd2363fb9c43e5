"""Ports to listen on, and whether somebody answers there."""

import asyncio
import random
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from app.configuration.listening import cannot_listen
from app.local.data_dir import CannotStart

#: Where the coordinator and the issuer listen. Below the range from which
#: Linux takes the ports of outgoing connections: a gateway that tries to reach
#: a coordinator that is down can never take its port.
COORDINATOR_PORTS = range(20000, 25000)
ISSUER_PORTS = range(25000, 30000)


def free_port(host: str, port: int) -> int:
    """Return the port to listen on. Raises `CannotStart` if it is not available."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the gateway will: a connection that has only just closed is no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
            return int(probe.getsockname()[1])
    except (OSError, UnicodeError) as error:
        raise CannotStart(cannot_listen(error, host=host, port=port)) from error


def internal_port(whose: str, ports: range) -> int:
    """Find a port of these on the loopback. Raises `CannotStart`."""
    for port in random.sample(ports, 100):
        with suppress(CannotStart):
            return free_port("127.0.0.1", port)
    raise CannotStart(f"No port from {ports.start} to {ports.stop - 1} is free for {whose}.")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def url_of(host: str, port: int) -> str:
    """Write where a server that listens there can be reached from here."""
    host = _reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def is_ready(url: str) -> bool:
    """Ask with GET, in HTTP/1.0: the answer ends with the connection."""
    parts = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return False
    try:
        writer.write(f"GET {parts.path} HTTP/1.0\r\n\r\n".encode())
        status = await reader.readline()
        return status.split()[1:2] == [b"200"]
    except ConnectionError:
        return False
    finally:
        writer.close()
