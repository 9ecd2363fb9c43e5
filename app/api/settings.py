"""Settings of the HTTP server, its limits and CORS."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import KiB, MiB, Section, optional_names, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(Section):
    """The HTTP server."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8080, "Port to listen on; 0 takes a free one.", at_least=0, at_most=65535)
    max_body_bytes: int = setting(
        1 * MiB, "Largest request body that is read.", at_least=1 * KiB, at_most=256 * MiB
    )
    max_line_bytes: int = setting(
        8 * KiB, "Longest request line: method, path and query.", at_least=1 * KiB, at_most=64 * KiB
    )
    max_header_bytes: int = setting(
        16 * KiB, "Longest request header, name included.", at_least=8 * KiB, at_most=64 * KiB
    )
    max_headers: int = setting(128, "Headers of a request.", at_least=16, at_most=1024)
    hsts_max_age: int = setting(
        0,
        "Seconds for which browsers are to insist on HTTPS (Strict-Transport-Security); "
        "0 says nothing of it. For gateways behind an ingress with TLS.",
        at_least=0,
    )
    shutdown_timeout: float = setting(
        5.0, "How long open requests may go on after a stop was asked for.", at_least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings(Section):
    """How much one user may ask of one replica."""

    PREFIX: ClassVar[str] = "SCAIMIND_LIMITS_"

    rate: float = setting(
        200.0,
        "Requests a second that one user may make for long; 0 sets no limit. "
        "A stream is one request, however long it lasts.",
        at_least=0,
        at_most=1_000_000,
    )
    burst: int = setting(
        2_000, "Requests that one user may make at once.", at_least=1, at_most=1_000_000
    )
    users: int = setting(100_000, "Users that are remembered at the same time.", at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings(Section):
    """Which web pages of other origins may call."""

    PREFIX: ClassVar[str] = "SCAIMIND_CORS_"

    origins: tuple[str, ...] = optional_names(
        "Origins of the pages, separated by commas: `https://app.example.com`, in lower case, "
        "with a port if it has one; `*` means all. None unless given.",
        pattern=r"\*|https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?",
    )
    max_age: int = setting(
        600, "Seconds for which browsers remember what is allowed.", at_least=0, at_most=86_400
    )
