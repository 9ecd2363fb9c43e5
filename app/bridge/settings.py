"""How the coordinator is reached."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import KiB, MiB, Section, optional, required_secret, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings(Section):
    """The gRPC channel to MindCoordinator."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (("reconnect_min", "reconnect_max"),)
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (("tls_cert_file", "tls_key_file"),)

    address: str = setting("127.0.0.1:50051", "Where MindCoordinator listens: host:port.")
    api_secret: str = required_secret("The deployment's secret, sent as x-api-secret.")
    tls_ca_file: str = optional(
        "Certificates (PEM) by which the coordinator's is checked. TLS is used if this or another "
        "of the TLS settings is set; without this one, the public authorities count."
    )
    tls_cert_file: str = optional("The gateway's own certificate chain (PEM), for mutual TLS.")
    tls_key_file: str = optional("The key (PEM) of the gateway's own certificate.")
    tls_server_name: str = optional(
        "The name in the coordinator's certificate, if it is not the host of the address."
    )
    unary_timeout: float = setting(
        10.0, "Deadline of a unary call, retries included.", at_least=0.1
    )
    submit_timeout: float = setting(
        30.0, "Deadline of calls that do more work: submissions and data checks.", at_least=0.1
    )
    read_attempts: int = setting(
        4, "How often an idempotent read is tried while unavailable.", at_least=1, at_most=5
    )
    keepalive_time: float = setting(
        10.0, "Silence after which the peer is asked whether it lives.", at_least=0.5
    )
    keepalive_timeout: float = setting(
        5.0, "How long the peer may take to answer that.", at_least=0.5
    )
    reconnect_min: float = setting(0.2, "First pause before connecting again.", at_least=0.1)
    reconnect_max: float = setting(2.0, "Longest pause before connecting again.", at_least=0.1)
    max_message_bytes: int = setting(
        16 * MiB, "Largest message sent or received.", at_least=64 * KiB, at_most=1024 * MiB
    )
