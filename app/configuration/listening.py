"""Addresses that a program listens on, and what to do about one that cannot be."""

import errno
import socket

from app.configuration.section import SettingsError


def listening_socket(host: str, port: int, *, prefix: str, backlog: int = 128) -> socket.socket:
    """Bind and listen. The caller closes the socket. Raises `SettingsError`, as `cannot_listen`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=backlog)
    except (OSError, UnicodeError) as error:
        raise SettingsError([cannot_listen(error, host=host, port=port, prefix=prefix)]) from error


def cannot_listen(
    error: OSError | UnicodeError, *, host: str, port: int, prefix: str = "SCAIMIND_"
) -> str:
    """Say in one line why `host` and `port` cannot be listened on, and which variable to set.

    `prefix` is that of the variables HOST and PORT. `error` is what looking the name up or
    binding the address raised.
    """
    anywhere = (
        f"Set {prefix}HOST to an address of this machine: 127.0.0.1 to be reached from here "
        "alone, 0.0.0.0 from everywhere."
    )
    if isinstance(error, UnicodeError | socket.gaierror):
        return f"{prefix}HOST: {host!r} is neither an address nor a name that is known. {anywhere}"
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"{prefix}HOST: {host!r} is not an address of this machine. {anywhere}"
    if error.errno == errno.EACCES:
        return (
            f"Port {port} of {host} needs a right that this user does not have. "
            f"Set {prefix}PORT to 1024 or higher."
        )
    return (
        f"Port {port} of {host} is not available: {error.strerror}. "
        f"Set {prefix}PORT to another port, or stop the program that uses it."
    )
