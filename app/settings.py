"""Every setting of the gateway, read once from the environment.

A setting's variable is its section's prefix and its name in capitals: the
field `unary_timeout` of `CoordinatorSettings` is
`SCAIMIND_COORDINATOR_UNARY_TIMEOUT`. A secret can also be read from a file
that `<variable>_FILE` names. Times are seconds, sizes are bytes, unless a
field says otherwise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from environs import Env, EnvValidationError, ValidationError, validate

T = TypeVar("T")

KiB = 1024
MiB = 1024 * KiB


class SettingsError(ValueError):
    """Settings that cannot be used; the text has one line per problem and no value."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def _setting(
    default: T,
    text: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    one_of: Sequence[str] = (),
) -> T:
    """Declare a field with its default, what it means, and the bounds it has."""
    value: T = field(
        default=default,
        metadata={"text": text, "at_least": at_least, "at_most": at_most, "one_of": one_of},
    )
    return value


def _required_secret(text: str) -> Any:
    return field(repr=False, metadata={"text": text, "secret": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Settings that belong together and share a prefix."""

    PREFIX: ClassVar[str] = "SCAIMIND_"
    #: Pairs of fields of which the first must not exceed the second.
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read this section alone. Raises `SettingsError` that names every bad variable."""
        env = _Environment(environ)
        values = {each.name: env.read(cls.variable(each.name), each) for each in fields(cls)}
        problems = [*env.problems(), *cls._disorder(values)]
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    @classmethod
    def variable(cls, name: str) -> str:
        """Name the environment variable of a field."""
        return cls.PREFIX + name.upper()

    @classmethod
    def _disorder(cls, values: Mapping[str, Any]) -> Iterator[str]:
        for low, high in cls.ORDERED:
            if None not in (values[low], values[high]) and values[low] > values[high]:
                yield f"{cls.variable(low)}: must not exceed {cls.variable(high)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(Section):
    """The HTTP server."""

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on; 0 takes a free one.", at_least=0, at_most=65535)
    max_body_bytes: int = _setting(
        1 * MiB, "Largest request body that is read.", at_least=1 * KiB, at_most=256 * MiB
    )
    shutdown_timeout: float = _setting(
        5.0, "How long open requests may go on after a stop was asked for.", at_least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings(Section):
    """The gRPC channel to MindCoordinator."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (("reconnect_min", "reconnect_max"),)

    address: str = _setting("127.0.0.1:50051", "Where MindCoordinator listens: host:port.")
    api_secret: str = _required_secret("The deployment's secret, sent as x-api-secret.")
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
class AuthSettings(Section):
    """Who may call."""

    PREFIX: ClassVar[str] = "SCAIMIND_AUTH_"

    key_ttl: float = _setting(
        3.0,
        "How old an answer about an API key may be; bounds how late a revocation is felt.",
        at_least=0,
        at_most=5,
    )
    key_cache_size: int = _setting(
        10_000, "Answers about API keys that are remembered.", at_least=1, at_most=10_000_000
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
    coordinator: CoordinatorSettings
    database: DatabaseSettings
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
    "coordinator": CoordinatorSettings,
    "database": DatabaseSettings,
    "auth": AuthSettings,
    "hub": HubSettings,
    "telemetry": TelemetrySettings,
}


class _Environment(Env):
    """environs over a given mapping instead of the process's own environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._given = environ
        self._found: list[str] = []

    def read(self, variable: str, setting: "Field[Any]") -> Any:
        """Parse one variable; a problem is kept for `problems`."""
        if setting.metadata.get("secret") and f"{variable}_FILE" in self._given:
            return self._read_file(f"{variable}_FILE")
        if setting.default is MISSING and variable not in self._given:
            self._found.append(f"{variable}: not set. {setting.metadata['text']}")
            return None
        parsers: Mapping[Any, Callable[..., Any]] = {
            int: self.int,
            float: self.float,
            str: self.str,
        }
        parse = parsers[setting.type]
        return parse(variable, setting.default, validate=_validators(setting))

    def problems(self) -> list[str]:
        """Everything that was wrong, one line each."""
        try:
            self.seal()
        except EnvValidationError as error:
            messages: Mapping[str, Sequence[str]] = error.error_messages  # type: ignore[assignment]  # a mapping after seal()
            self._found += [f"{name}: {' '.join(what)}" for name, what in messages.items()]
        return self._found

    def _read_file(self, variable: str) -> str:
        try:
            secret = Path(self._given[variable]).read_text(encoding="utf-8").strip()
            problem = None if secret else "the file is empty"
        except (OSError, UnicodeDecodeError) as error:
            secret = ""
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            problem = f"the file cannot be read: {reason}"
        if problem is not None:
            self._found.append(f"{variable}: {problem}.")
        return secret

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._given.get(env_key, default)


def _validators(setting: "Field[Any]") -> list[Any]:
    about = setting.metadata
    found: list[Any] = []
    if about.get("at_least") is not None or about.get("at_most") is not None:
        found.append(validate.Range(about["at_least"], about["at_most"]))
    if about.get("one_of"):
        found.append(validate.OneOf(about["one_of"]))
    if setting.type is str:
        found.append(_not_blank)
    return found


def _not_blank(value: str) -> None:
    if not value.strip():
        raise ValidationError("Must not be empty.")
