"""Settings of the connection to the coordinator."""

from dataclasses import dataclass
from typing import ClassVar, Final

from app.configuration.section import KiB, MiB, Section, optional, required_secret, setting

#: An IP address with its port. gRPC takes several of one family, and no names among them.
_IPV4: Final = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}:[0-9]{1,5}"
_IPV6: Final = r"\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}"
_ADDRESSES: Final = "|".join(("[^,]*", *(rf"{each}(?:\s*,\s*{each})+" for each in (_IPV4, _IPV6))))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings(Section):
    """The gRPC channel to MindCoordinator."""

    PREFIX: ClassVar[str] = "SCAIMIND_UPSTREAM_"
    FORMER_PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"
    #: The coordinator has settings of its own by these names.
    SHARED: ClassVar[frozenset[str]] = frozenset({"address", "api_secret", "max_message_bytes"})
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (("reconnect_min", "reconnect_max"),)
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (("tls_cert_file", "tls_key_file"),)

    address: str = setting(
        "127.0.0.1:50051",
        "Address of MindCoordinator: host:port. Of several that share their state: their IP "
        "addresses with ports, separated by commas, or dns:///name:port for a name that has them "
        "all. Calls go to the one that leads.",
        pattern=_ADDRESSES,
        form="one host:port, several IP addresses of one family, each with its port, separated by "
        "commas, or dns:///name:port",
    )
    api_secret: str = required_secret("The deployment's secret, sent as x-api-secret.")
    tls_ca_file: str = optional(
        "CA certificates (PEM) that verify the coordinator's certificate. TLS is used if any TLS "
        "setting is set; without this one, the public authorities are trusted."
    )
    tls_cert_file: str = optional("The gateway's certificate chain (PEM), for mutual TLS.")
    tls_key_file: str = optional("Private key (PEM) of the gateway's certificate.")
    tls_server_name: str = optional(
        "Name in the coordinator's certificate, if it differs from the host of the address; "
        "required with several addresses."
    )
    unary_timeout: float = setting(
        10.0, "Timeout of a unary call, including retries.", at_least=0.1
    )
    submit_timeout: float = setting(
        30.0, "Timeout of calls that take longer: submissions and data checks.", at_least=0.1
    )
    read_attempts: int = setting(
        4,
        "Maximum number of attempts of an idempotent read while the coordinator is unavailable.",
        at_least=1,
        at_most=5,
    )
    shared_reads: float = setting(
        0.02,
        "How long the answer of a read is used again for requests for the same by the same user, "
        "beside those that come while it is being read; 0 shares nothing.",
        at_least=0,
        at_most=1,
    )
    direct_reads: int = setting(
        10,
        "Number of idempotent reads within a second from which on they use a connection of their "
        "own, at a fraction of gRPC's cost; 0 is never. Only without TLS and with one host:port.",
        at_least=0,
    )
    keepalive_time: float = setting(
        10.0, "Idle time after which a keepalive ping is sent.", at_least=0.5
    )
    keepalive_timeout: float = setting(5.0, "Timeout of a keepalive ping.", at_least=0.5)
    connect_timeout: float = setting(
        10.0,
        "Timeout of one attempt to connect, TLS and HTTP/2 handshakes included.",
        at_least=0.1,
        at_most=300,
    )
    reconnect_min: float = setting(
        0.2,
        "Initial delay before a reconnection. An attempt to connect is given at least this long, "
        "too.",
        at_least=0.1,
    )
    reconnect_max: float = setting(2.0, "Maximum delay before a reconnection.", at_least=0.1)
    max_message_bytes: int = setting(
        16 * MiB, "Maximum size of a message.", at_least=64 * KiB, at_most=1024 * MiB
    )
