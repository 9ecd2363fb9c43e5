"""How PostgreSQL is reached."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, required_secret, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings(Section):
    """PostgreSQL, which holds the API keys."""

    PREFIX: ClassVar[str] = "SCAIMIND_DATABASE_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (("pool_min", "pool_max"),)

    dsn: str = required_secret("libpq connection string or URI, sslmode included.")
    pool_min: int = setting(1, "Connections kept open.", at_least=0, at_most=1000)
    pool_max: int = setting(8, "Connections at most.", at_least=1, at_most=1000)
    connect_timeout: float = setting(
        3.0, "How long a connection, or a free place in the pool, is waited for.", at_least=0.1
    )
    statement_timeout: float = setting(
        3.0, "When the server ends a statement.", at_least=0.01, at_most=3600
    )
