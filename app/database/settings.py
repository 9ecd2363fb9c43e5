"""Settings of the database connection."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, required_secret, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings(Section):
    """PostgreSQL, which stores the API keys, stream tickets and job cache."""

    PREFIX: ClassVar[str] = "SCAIMIND_DATABASE_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (("pool_min", "pool_max"),)

    dsn: str = required_secret("libpq connection string or URI, including sslmode.")
    pool_min: int = setting(1, "Connections kept open while idle.", at_least=0, at_most=1000)
    pool_max: int = setting(8, "Maximum number of connections.", at_least=1, at_most=1000)
    connect_timeout: float = setting(
        3.0, "Maximum time to wait for a connection, or for a free place in the pool.", at_least=0.1
    )
    statement_timeout: float = setting(
        3.0, "Time after which the server cancels a statement.", at_least=0.01, at_most=3600
    )
