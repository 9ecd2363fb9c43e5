"""Settings of the job cache."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings(Section):
    """The job cache in PostgreSQL, which no request depends on."""

    PREFIX: ClassVar[str] = "SCAIMIND_CACHE_"

    flush_interval: float = setting(
        0.5,
        "How long what is seen of jobs is held back to be written together.",
        at_least=0,
        at_most=60,
    )
    batch_jobs: int = setting(50, "Jobs written with one statement.", at_least=1, at_most=1_000)
    buffer_jobs: int = setting(
        2_000,
        "Jobs that wait while they cannot be written; of more, those heard of last.",
        at_least=1,
        at_most=1_000_000,
    )
    pool_max: int = setting(
        4,
        "Connections at most; they are the cache's own, so that it takes none from others.",
        at_least=2,
        at_most=1000,
    )
    retention_days: int = setting(
        90,
        "Days after which a job that nobody has asked for is deleted; 0 keeps all.",
        at_least=0,
        at_most=36_500,
    )
    purge_interval: float = setting(
        300.0, "How often such jobs are looked for, at the least.", at_least=1
    )
