"""Settings of the HTTP server, its limits and CORS."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import KiB, MiB, Section, optional, optional_names, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(Section):
    """The HTTP server."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8080, "Port to listen on; 0 picks a free one.", at_least=0, at_most=65535)
    max_body_bytes: int = setting(
        1 * MiB, "Maximum size of a request body.", at_least=1 * KiB, at_most=256 * MiB
    )
    max_line_bytes: int = setting(
        8 * KiB,
        "Maximum length of a request line: method, path and query.",
        at_least=1 * KiB,
        at_most=64 * KiB,
    )
    max_header_bytes: int = setting(
        16 * KiB,
        "Maximum length of a request header, including its name.",
        at_least=8 * KiB,
        at_most=64 * KiB,
    )
    max_headers: int = setting(
        128, "Maximum number of headers of a request.", at_least=16, at_most=1024
    )
    max_connections: int = setting(
        10_000,
        "Maximum number of open connections without those of streams. Further ones are closed at "
        "once, and so are those for which too few file descriptors are left.",
        at_least=1,
    )
    head_timeout: float = setting(
        15.0,
        "How long a request's head may take: from the connection's opening for the first, from "
        "their first byte for later ones.",
        at_least=0.1,
        at_most=300,
    )
    body_timeout: float = setting(
        30.0,
        "How long a request's body may take. Each SCAIMIND_MIN_RATE bytes of it give it a second "
        "more.",
        at_least=0.1,
        at_most=3600,
    )
    answer_timeout: float = setting(
        30.0,
        "How long a client may take to receive an answer. Each SCAIMIND_MIN_RATE bytes of it give "
        "it a second more. Streams have SCAIMIND_HUB_WRITE_TIMEOUT instead.",
        at_least=0.1,
        at_most=3600,
    )
    min_rate: int = setting(
        1 * KiB,
        "Bytes per second below which a body or an answer uses up its timeout.",
        at_least=1,
    )
    idle_timeout: float = setting(
        75.0,
        "How long a connection may wait for its next request. Must be longer than a proxy in "
        "front of the gateway keeps idle connections (nginx: 60 s).",
        at_least=0.1,
        at_most=7200,
    )
    hsts_max_age: int = setting(
        0,
        "max-age of the Strict-Transport-Security header, in seconds; 0 sends no such header. "
        "For gateways behind an ingress with TLS.",
        at_least=0,
    )
    commit: str = optional(
        "Commit that the gateway was built from, which `GET /version` answers. By default that of "
        "the checkout that it runs from."
    )
    shutdown_timeout: float = setting(
        5.0, "How long open requests may take to finish during shutdown.", at_least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings(Section):
    """Request limits for each user, per replica."""

    PREFIX: ClassVar[str] = "SCAIMIND_LIMITS_"

    rate: float = setting(
        200.0,
        "Sustained requests per second for each user; 0 means no limit. "
        "A stream counts as one request, however long it lasts.",
        at_least=0,
        at_most=1_000_000,
    )
    burst: int = setting(
        2_000, "Requests that a user may make in a burst.", at_least=1, at_most=1_000_000
    )
    users: int = setting(100_000, "Maximum number of users tracked at the same time.", at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings(Section):
    """Cross-origin requests from web pages."""

    PREFIX: ClassVar[str] = "SCAIMIND_CORS_"

    origins: tuple[str, ...] = optional_names(
        "Allowed origins, separated by commas: `https://app.example.com`, in lower case, "
        "with the port if it is not the default; `*` allows all. By default none is allowed.",
        pattern=r"\*|https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?",
        form="an origin as browsers send it: `https://` or `http://`, a host in lower case, a "
        "port if it is not the default, and nothing behind that, not even a slash; or `*`",
    )
    max_age: int = setting(
        600,
        "How long browsers may cache a preflight answer, in seconds.",
        at_least=0,
        at_most=86_400,
    )
