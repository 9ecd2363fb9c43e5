"""Settings of the streams."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import KiB, MiB, Section, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings(Section):
    """Streams: one upstream stream per job, any number of watchers."""

    PREFIX: ClassVar[str] = "SCAIMIND_HUB_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (
        ("flush_min", "flush_max"),
        ("reconnect_min", "reconnect_max"),
        ("history_bytes", "history_bytes_total"),
        ("max_watchers_per_user", "max_watchers_per_tenant"),
        ("max_watchers_per_tenant", "max_watchers"),
        ("max_filters_per_user", "max_filters_per_job"),
    )

    history_bytes: int = setting(
        4 * MiB, "Memory for the newest log entries of each job.", at_least=64 * KiB
    )
    history_bytes_total: int = setting(
        256 * MiB, "Memory for the newest log entries of all jobs together.", at_least=1 * MiB
    )
    history_tail: int = setting(
        2000, "Log entries fetched when a job is first watched.", at_least=0, at_most=100_000
    )
    slice_bytes: int = setting(
        64 * KiB, "Maximum size of one write to a watcher.", at_least=1 * KiB, at_most=128 * KiB
    )
    open_timeout: float = setting(
        10.0, "Maximum time for a job's upstream stream to start.", at_least=0.1
    )
    message_timeout: float = setting(
        10.0,
        "Maximum time to wait for the first message of an upstream stream, and for each further "
        "one until the stream has delivered the entries that existed when it began (of a job's "
        "first stream: half of SCAIMIND_HUB_OPEN_TIMEOUT at most). After that the stream is "
        "reopened.",
        at_least=0.1,
    )
    linger: float = setting(
        30.0, "How long a job's upstream stream stays open after its last watcher left.", at_least=0
    )
    keepalive_interval: float = setting(
        15.0, "Idle time after which a watcher is sent a keepalive.", at_least=0.05
    )
    write_timeout: float = setting(
        30.0, "Time without progress after which a watcher is disconnected.", at_least=0.05
    )
    flush_min: float = setting(
        0.001, "Minimum time between two writes to a watcher.", at_least=0, at_most=1
    )
    flush_soon: float = setting(
        0.01,
        "Maximum time for which new entries are held back to be written together while the event "
        "loop is at most 70% busy. SCAIMIND_HUB_FLUSH_MAX bounds it.",
        at_least=0,
        at_most=1,
    )
    flush_max: float = setting(
        0.05,
        "The same where the event loop is 90% busy or more; in between it is in proportion.",
        at_least=0,
        at_most=1,
    )
    flush_share: float = setting(
        0.4,
        "Share of the event loop's time that writing to watchers takes where writing each entry by "
        "itself would take twice the loop's time or more. Up to 70% none are held back; in between "
        "the share is in proportion.",
        at_least=0.01,
        at_most=1,
    )
    compression: str = setting(
        "off",
        "Content coding of Server-Sent Events for clients that prefer it: 'gzip' spares bytes for "
        "CPU time.",
        one_of=("off", "gzip"),
    )
    retry_ms: int = setting(
        2000, "Reconnection delay sent to clients, in milliseconds.", at_least=0
    )
    drain_spread: float = setting(
        10.0,
        "Period over which the reconnections of a stopping process's watchers are spread.",
        at_least=0,
    )
    bookmark_interval: float = setting(
        10.0,
        "How often a watcher receives its position while its filter lets no entry through.",
        at_least=0.05,
    )
    outage_limit: float = setting(
        120.0,
        "How long watchers stay connected while the coordinator is unavailable, or while its "
        "stream breaks off again and again without a new entry.",
        at_least=0,
    )
    reconnect_min: float = setting(
        0.2, "Initial delay before an upstream stream is reopened.", at_least=0.01
    )
    reconnect_max: float = setting(
        5.0, "Maximum delay before an upstream stream is reopened.", at_least=0.01
    )
    max_watchers: int = setting(20_000, "Maximum number of watchers of this process.", at_least=1)
    max_watchers_per_tenant: int = setting(
        5_000, "Maximum number of watchers of one tenant.", at_least=1
    )
    max_watchers_per_user: int = setting(
        2_000, "Maximum number of watchers of one user.", at_least=1
    )
    max_filters_per_job: int = setting(
        32,
        "Maximum number of different filters of the watchers of one job. A level alone is not "
        "counted as one.",
        at_least=1,
    )
    max_filters_per_user: int = setting(
        8, "Maximum number of different filters of one user's watchers.", at_least=1
    )
    max_feeds: int = setting(2_000, "Maximum number of jobs watched at the same time.", at_least=1)
    max_feeds_share: float = setting(
        0.5,
        "Share of SCAIMIND_HUB_MAX_FEEDS that the jobs of one tenant can take; at least one job.",
        at_least=0.01,
        at_most=1,
    )
    events_jobs: int = setting(
        10_000,
        "Maximum number of jobs that a stream over many jobs begins with, and that it tells of: "
        "the newest.",
        at_least=1,
    )
    events_followed: int = setting(
        64,
        "Maximum number of jobs whose logs or metrics a stream over many jobs follows.",
        at_least=1,
        at_most=64,
    )
    events_patience: float = setting(
        5.0,
        "How long a client of a stream over many jobs may be behind by its own slowness before it "
        "is told of a gap in place of entries that are no longer in memory.",
        at_least=0,
    )
    events_poll: float = setting(
        5.0,
        "How often the states of jobs are read that are named in streams over many jobs, where "
        "the coordinator cannot stream states; at least, and once for all such streams of a "
        "tenant.",
        at_least=0.1,
    )
    events_record_jobs: int = setting(
        50_000,
        "Maximum number of a tenant's jobs whose states are kept while its streams over many jobs "
        "are open. Beyond that, those that ended first are left out.",
        at_least=1,
    )
