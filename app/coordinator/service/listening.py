"""Where the server listens: in plain text, with TLS, or with mutual TLS."""

import ipaddress
import ssl
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import structlog

from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig
from generated.mindcoordinator.v1 import coordinator_pb2

log = structlog.get_logger("scaimind.coordinator")


def listen(server: grpc.aio.Server, config: CoordinatorConfig) -> int:
    """Listen as configured; returns the port. Raises BadConfig."""
    credentials = _credentials(config)
    try:
        if credentials is not None:
            return server.add_secure_port(config.address, credentials)
        port = server.add_insecure_port(config.address)
    except RuntimeError:
        raise BadConfig(
            f"SCAIMIND_COORDINATOR_ADDRESS: cannot listen on {config.address};"
            " it is in use, or is not an address of this machine"
        ) from None
    if not _is_loopback(config.address):
        log.warning(
            "listening_in_plain_text",
            address=config.address,
            reason="the API secret and all data can be read on the way;"
            " set listen_tls_cert_file and listen_tls_key_file",
        )
    return port


def _credentials(config: CoordinatorConfig) -> grpc.ServerCredentials | None:
    cert, key, ca = (
        config.listen_tls_cert_file,
        config.listen_tls_key_file,
        config.listen_tls_client_ca_file,
    )
    if cert is None or key is None:
        return None
    # gRPC tells of a bad file only when the first client comes, and not what is wrong.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = _read("listen_tls_cert_file", cert)
    private = _read("listen_tls_key_file", key)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise BadConfig(
            f"listen_tls_cert_file, listen_tls_key_file: they cannot be used together: {reason}"
        ) from None
    if ca is None:
        return grpc.ssl_server_credentials([(private, chain)])
    authorities = _read("listen_tls_client_ca_file", ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise BadConfig(f"listen_tls_client_ca_file: {error.reason}") from None
    return grpc.ssl_server_credentials(
        [(private, chain)], root_certificates=authorities, require_client_auth=True
    )


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(f"{name}: the file cannot be read: {error.strerror}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not")


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


SERVICE: Final = coordinator_pb2.DESCRIPTOR.services_by_name["MindCoordinator"].full_name
