"""Every setting of the gateway, read once from the environment.

A setting's variable is its section's prefix and its name in capitals: the
field `unary_timeout` of `CoordinatorSettings` is
`SCAIMIND_COORDINATOR_UNARY_TIMEOUT`. A secret can also be read from a file
that `<variable>_FILE` names. Times are seconds, sizes are bytes, unless a
field says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from app.environment import Section as Section
from app.environment import SettingsError as SettingsError
from app.environment import optional as _optional
from app.environment import optional_names as _optional_names
from app.environment import optional_secret as _optional_secret
from app.environment import required_secret as _required_secret
from app.environment import setting as _setting

KiB = 1024
MiB = 1024 * KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(Section):
    """The HTTP server."""

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on; 0 takes a free one.", at_least=0, at_most=65535)
    max_body_bytes: int = _setting(
        1 * MiB, "Largest request body that is read.", at_least=1 * KiB, at_most=256 * MiB
    )
    max_line_bytes: int = _setting(
        8 * KiB, "Longest request line: method, path and query.", at_least=1 * KiB, at_most=64 * KiB
    )
    max_header_bytes: int = _setting(
        16 * KiB, "Longest request header, name included.", at_least=8 * KiB, at_most=64 * KiB
    )
    max_headers: int = _setting(128, "Headers of a request.", at_least=16, at_most=1024)
    hsts_max_age: int = _setting(
        0,
        "Seconds for which browsers are to insist on HTTPS (Strict-Transport-Security); "
        "0 says nothing of it. For gateways behind an ingress with TLS.",
        at_least=0,
    )
    shutdown_timeout: float = _setting(
        5.0, "How long open requests may go on after a stop was asked for.", at_least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings(Section):
    """How much one user may ask of one replica."""

    PREFIX: ClassVar[str] = "SCAIMIND_LIMITS_"

    rate: float = _setting(
        200.0,
        "Requests a second that one user may make for long; 0 sets no limit. "
        "A stream is one request, however long it lasts.",
        at_least=0,
        at_most=1_000_000,
    )
    burst: int = _setting(
        2_000, "Requests that one user may make at once.", at_least=1, at_most=1_000_000
    )
    users: int = _setting(100_000, "Users that are remembered at the same time.", at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings(Section):
    """Which web pages of other origins may call."""

    PREFIX: ClassVar[str] = "SCAIMIND_CORS_"

    origins: tuple[str, ...] = _optional_names(
        "Origins of the pages, separated by commas: `https://app.example.com`, in lower case, "
        "with a port if it has one; `*` means all. None unless given.",
        pattern=r"\*|https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?",
    )
    max_age: int = _setting(
        600, "Seconds for which browsers remember what is allowed.", at_least=0, at_most=86_400
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings(Section):
    """The gRPC channel to MindCoordinator."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (("reconnect_min", "reconnect_max"),)
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (("tls_cert_file", "tls_key_file"),)

    address: str = _setting("127.0.0.1:50051", "Where MindCoordinator listens: host:port.")
    api_secret: str = _required_secret("The deployment's secret, sent as x-api-secret.")
    tls_ca_file: str = _optional(
        "Certificates (PEM) by which the coordinator's is checked. TLS is used if this or another "
        "of the TLS settings is set; without this one, the public authorities count."
    )
    tls_cert_file: str = _optional("The gateway's own certificate chain (PEM), for mutual TLS.")
    tls_key_file: str = _optional("The key (PEM) of the gateway's own certificate.")
    tls_server_name: str = _optional(
        "The name in the coordinator's certificate, if it is not the host of the address."
    )
    unary_timeout: float = _setting(
        10.0, "Deadline of a unary call, retries included.", at_least=0.1
    )
    submit_timeout: float = _setting(
        30.0, "Deadline of calls that do more work: submissions and data checks.", at_least=0.1
    )
    read_attempts: int = _setting(
        4, "How often an idempotent read is tried while unavailable.", at_least=1, at_most=5
    )
    keepalive_time: float = _setting(
        10.0, "Silence after which the peer is asked whether it lives.", at_least=0.5
    )
    keepalive_timeout: float = _setting(
        5.0, "How long the peer may take to answer that.", at_least=0.5
    )
    reconnect_min: float = _setting(0.2, "First pause before connecting again.", at_least=0.1)
    reconnect_max: float = _setting(2.0, "Longest pause before connecting again.", at_least=0.1)
    max_message_bytes: int = _setting(
        16 * MiB, "Largest message sent or received.", at_least=64 * KiB, at_most=1024 * MiB
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings(Section):
    """PostgreSQL, which holds the API keys."""

    PREFIX: ClassVar[str] = "SCAIMIND_DATABASE_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (("pool_min", "pool_max"),)

    dsn: str = _required_secret("libpq connection string or URI, sslmode included.")
    pool_min: int = _setting(1, "Connections kept open.", at_least=0, at_most=1000)
    pool_max: int = _setting(8, "Connections at most.", at_least=1, at_most=1000)
    connect_timeout: float = _setting(
        3.0, "How long a connection, or a free place in the pool, is waited for.", at_least=0.1
    )
    statement_timeout: float = _setting(
        3.0, "When the server ends a statement.", at_least=0.01, at_most=3600
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings(Section):
    """The job cache in PostgreSQL, which no request depends on."""

    PREFIX: ClassVar[str] = "SCAIMIND_CACHE_"

    flush_interval: float = _setting(
        0.5,
        "How long what is seen of jobs is held back to be written together.",
        at_least=0,
        at_most=60,
    )
    batch_jobs: int = _setting(50, "Jobs written with one statement.", at_least=1, at_most=1_000)
    buffer_jobs: int = _setting(
        2_000,
        "Jobs that wait while they cannot be written; of more, those heard of last.",
        at_least=1,
        at_most=1_000_000,
    )
    pool_max: int = _setting(
        4,
        "Connections at most; they are the cache's own, so that it takes none from others.",
        at_least=2,
        at_most=1000,
    )
    retention_days: int = _setting(
        90,
        "Days after which a job that nobody has asked for is deleted; 0 keeps all.",
        at_least=0,
        at_most=36_500,
    )
    purge_interval: float = _setting(
        300.0, "How often such jobs are looked for, at the least.", at_least=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings(Section):
    """Who may call."""

    PREFIX: ClassVar[str] = "SCAIMIND_AUTH_"
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("issuer", "jwks_url"),
        ("token_url", "client_id", "client_secret"),
    )

    key_ttl: float = _setting(
        3.0,
        "How old an answer about an API key may be; bounds how late a revocation is felt.",
        at_least=0,
        at_most=5,
    )
    key_cache_size: int = _setting(
        10_000, "Answers about API keys that are remembered.", at_least=1, at_most=10_000_000
    )
    recheck_interval: float = _setting(
        2.0,
        "How often the API keys of open streams are looked up again; bounds how late a "
        "revocation is felt by streams where PostgreSQL's NOTIFY does not arrive.",
        at_least=0.05,
        at_most=4,
    )
    unchecked_limit: float = _setting(
        120.0, "How long streams stay open while their API keys cannot be looked up.", at_least=1
    )
    issuer: str = _optional(
        "Who issues the JWTs that are accepted: their iss. Without it, no JWT is accepted."
    )
    jwks_url: str = _optional("Where the issuer's public keys are.", url=True)
    audience: str = _setting("scaimind", "Whom a JWT must be meant for: its aud.")
    leeway: int = _setting(
        30,
        "How far the issuer's clock may be off, when exp and nbf are looked at.",
        at_least=0,
        at_most=300,
    )
    jwks_ttl: float = _setting(600.0, "How old the issuer's keys may become.", at_least=1)
    jwks_cooldown: float = _setting(
        10.0,
        "Shortest time between two fetches of the keys, for an unknown kid or after a failure.",
        at_least=0.1,
    )
    jwks_stale_limit: float = _setting(
        14_400.0,
        "How long keys are used beyond that age while they cannot be fetched.",
        at_least=0,
    )
    http_timeout: float = _setting(
        5.0, "How long the issuer may take to answer.", at_least=0.1, at_most=60
    )
    token_url: str = _optional(
        "Where tokens for ScaiDrive and ScaiAtlas are got (RFC 8693). Without it, none are sent.",
        url=True,
    )
    client_id: str = _optional("Who the gateway is at token_url.")
    client_secret: str = _optional_secret("The gateway's secret at token_url.")
    drive_audience: str = _setting("scaidrive", "Audience of the tokens for ScaiDrive.")
    atlas_audience: str = _setting("scaiatlas", "Audience of the tokens for ScaiAtlas.")
    exchange_margin: float = _setting(
        30.0, "How long before its end a token is no longer sent.", at_least=0
    )
    exchange_cache_size: int = _setting(
        10_000, "Tokens that are remembered.", at_least=1, at_most=1_000_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings(Section):
    """Fan-out of one upstream stream per job to its watchers."""

    PREFIX: ClassVar[str] = "SCAIMIND_HUB_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (
        ("flush_min", "flush_max"),
        ("reconnect_min", "reconnect_max"),
        ("history_bytes", "history_bytes_total"),
        ("max_watchers_per_user", "max_watchers_per_tenant"),
        ("max_watchers_per_tenant", "max_watchers"),
    )

    history_bytes: int = _setting(4 * MiB, "Newest log entries kept per job.", at_least=64 * KiB)
    history_bytes_total: int = _setting(
        256 * MiB, "Newest log entries kept over all jobs.", at_least=1 * MiB
    )
    history_tail: int = _setting(
        2000, "Newest log entries with which a history begins.", at_least=0, at_most=100_000
    )
    slice_bytes: int = _setting(
        64 * KiB, "What is written to a watcher at once.", at_least=1 * KiB, at_most=128 * KiB
    )
    open_timeout: float = _setting(
        10.0, "How long the upstream stream of a job may take to begin.", at_least=0.1
    )
    linger: float = _setting(30.0, "How long a feed outlives its last watcher.", at_least=0)
    keepalive_interval: float = _setting(
        15.0, "Silence after which a watcher is sent a keepalive.", at_least=0.05
    )
    write_timeout: float = _setting(
        30.0, "A watcher that has taken nothing for so long is dropped.", at_least=0.05
    )
    flush_min: float = _setting(
        0.004, "Shortest time between two writes to a watcher.", at_least=0, at_most=1
    )
    flush_max: float = _setting(
        0.05,
        "Longest time for which new entries are held back to be written together.",
        at_least=0,
        at_most=1,
    )
    flush_share: float = _setting(
        0.05,
        "Share of the event loop's time that flushing aims to stay below.",
        at_least=0.01,
        at_most=1,
    )
    retry_ms: int = _setting(
        2000, "Milliseconds after which a client is told to connect again.", at_least=0
    )
    drain_spread: float = _setting(
        10.0,
        "Over how long the watchers of a process that stops are told to come back.",
        at_least=0,
    )
    bookmark_interval: float = _setting(
        10.0,
        "How often a watcher whose filter let nothing through is told its position.",
        at_least=0.05,
    )
    outage_limit: float = _setting(
        120.0, "How long watchers are kept while the coordinator is away.", at_least=0
    )
    reconnect_min: float = _setting(
        0.2, "First pause before an upstream stream is opened again.", at_least=0.01
    )
    reconnect_max: float = _setting(
        5.0, "Longest pause before an upstream stream is opened again.", at_least=0.01
    )
    max_watchers: int = _setting(20_000, "Watchers of this process.", at_least=1)
    max_watchers_per_tenant: int = _setting(5_000, "Watchers of one tenant.", at_least=1)
    max_watchers_per_user: int = _setting(2_000, "Watchers of one user.", at_least=1)
    max_feeds: int = _setting(2_000, "Jobs watched at the same time.", at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings(Section):
    """Logs."""

    log_level: str = _setting(
        "info", "Least severe event that is logged.", one_of=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All sections."""

    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    cors: CorsSettings = field(default_factory=CorsSettings)
    coordinator: CoordinatorSettings
    database: DatabaseSettings
    cache: CacheSettings = field(default_factory=CacheSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read all sections. Raises one `SettingsError` with the problems of all of them."""
        sections: dict[str, Section] = {}
        problems: list[str] = []
        for name, section in SECTIONS.items():
            try:
                sections[name] = section.from_env(environ)
            except SettingsError as error:
                problems.extend(error.problems)
        if problems:
            raise SettingsError(problems)
        return cls(**sections)  # type: ignore[arg-type]  # each name has its own section's type


SECTIONS: Mapping[str, type[Section]] = {
    "server": ServerSettings,
    "limits": LimitsSettings,
    "cors": CorsSettings,
    "coordinator": CoordinatorSettings,
    "database": DatabaseSettings,
    "cache": CacheSettings,
    "auth": AuthSettings,
    "hub": HubSettings,
    "telemetry": TelemetrySettings,
}
