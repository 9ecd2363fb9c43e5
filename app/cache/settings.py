"""Settings of the job cache."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings(Section):
    """The job cache in PostgreSQL. No request depends on it."""

    PREFIX: ClassVar[str] = "SCAIMIND_CACHE_"

    flush_interval: float = setting(
        0.5,
        "How long updates are collected before they are written together.",
        at_least=0,
        at_most=60,
    )
    batch_jobs: int = setting(
        100, "Maximum number of jobs written by one statement.", at_least=1, at_most=1_000
    )
    buffer_jobs: int = setting(
        20_000,
        "Maximum number of jobs that wait to be written, as when many are listed at once or the "
        "database is unavailable; the oldest are dropped first. Each takes some 5 KB of memory.",
        at_least=1,
        at_most=1_000_000,
    )
    pool_max: int = setting(
        4,
        "Maximum number of connections. The cache has a pool of its own.",
        at_least=2,
        at_most=1000,
    )
    retention_days: int = setting(
        90,
        "Days after its last request at which a job is deleted from the cache; 0 keeps all.",
        at_least=0,
        at_most=36_500,
    )
    purge_interval: float = setting(
        300.0, "Maximum time between two searches for such jobs.", at_least=1
    )
