"""Settings of the gRPC server: where it listens, who may call, its limits."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.configuration.section import Section, parsed, required_secret
from app.configuration.values import (
    parse_address,
    parse_count,
    parse_path,
    parse_seconds,
    parse_secret,
)
from app.coordinator.settings.values import parse_message_size

_NO_PATH: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ServingSettings(Section):
    """The gRPC server."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("listen_tls_cert_file", "listen_tls_key_file"),
    )
    REQUIRES: ClassVar[tuple[tuple[str, str], ...]] = (
        ("listen_tls_client_ca_file", "listen_tls_cert_file"),
    )

    api_secret: str = required_secret(
        "Secret that every caller must send. The gateway must have the same.", parse_secret
    )
    address: str = parsed(
        "127.0.0.1:50051",
        "Address to listen on, host:port. Port 0 picks a free one.",
        parse_address,
    )
    listen_tls_cert_file: Path | None = parsed(
        _NO_PATH,
        "Certificate chain (PEM) for TLS. Requires listen_tls_key_file.",
        parse_path,
        example="/etc/scaimind/tls.crt",
    )
    listen_tls_key_file: Path | None = parsed(
        _NO_PATH,
        "Private key (PEM) of the certificate.",
        parse_path,
        example="/etc/scaimind/tls.key",
    )
    listen_tls_client_ca_file: Path | None = parsed(
        _NO_PATH,
        "Authorities (PEM) for mutual TLS: only clients with a certificate of theirs can connect.",
        parse_path,
        example="/etc/scaimind/clients-ca.crt",
    )
    metrics_address: str = parsed(
        "",
        "Address where Prometheus reads /metrics, host:port, in plain HTTP and without a secret: "
        "counts of jobs, nodes and GPUs. Off if not set.",
        parse_address,
        example="0.0.0.0:9090",
    )
    max_message_bytes: int = parsed(
        16 * 1024**2, "Maximum size of a request or an answer, at least 8MiB.", parse_message_size
    )
    max_watches: int = parsed(
        10_000,
        "Maximum number of WatchJob and WatchJobs streams. A gateway opens one for each job that "
        "is being watched through it, and one for each tenant whose jobs are.",
        parse_count,
    )
    log_searches: int = parsed(
        4,
        "Maximum number of concurrent searches of logs, each in a process of its own. A tenant "
        "can use half of them, but at least one. Further ones are refused.",
        parse_count,
    )
    min_ping_interval: float = parsed(
        1.0, "Minimum interval between a client's keepalive pings.", parse_seconds
    )
