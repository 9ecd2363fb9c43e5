"""The steps that bring the coordinator's schema in PostgreSQL from each version to the next.

The counterpart of `jobs.steps.store_steps`: a change of the tables is a step at
the end of both lists. The version is the number of steps that were taken, and
all outstanding ones are one transaction. Only the leader takes steps, for its
term; a standby of another version waits until it leads.
"""

from collections.abc import Callable, Sequence
from typing import Final

from app.coordinator.database.leader_table import CHECK_TERM
from app.coordinator.database.postgres import PostgresDatabase
from app.coordinator.jobs.steps.store_steps import UnusableStore

#: Returns statements of one step.
SchemaStep = Callable[[], Sequence[str]]

#: Tables of jobs, those that others refer to first.
TABLES: Final = (
    "jobs",
    "job_labels",
    "job_search",
    "checkpoints",
    "kept_bytes",
    "deleted_jobs",
    "drained_nodes",
    "idempotency_keys",
    "job_changes",
    "change_versions",
    "change_record",
)
#: Texts are ordered by their bytes, as SQLite has it and as page tokens say.
_TEXT: Final = 'text COLLATE "C" NOT NULL'


def _first_tables() -> Sequence[str]:
    return (
        *_FUNCTIONS,
        f"""
        CREATE TABLE jobs (
            job_id text COLLATE "C" PRIMARY KEY,
            tenant_id {_TEXT},
            user_id {_TEXT},
            name {_TEXT},
            kind {_TEXT},
            status bigint NOT NULL,
            priority bigint NOT NULL,
            queue_name {_TEXT},
            revision bigint NOT NULL,
            created_at bigint NOT NULL,
            updated_at bigint NOT NULL,
            queued_at bigint NOT NULL,
            started_at bigint NOT NULL,
            run_started_at bigint NOT NULL,
            ended_at bigint NOT NULL,
            submission bytea NOT NULL,
            evaluation bytea,
            state {_TEXT}
        )
        """,
        "CREATE INDEX jobs_by_creation ON jobs (tenant_id, created_at, job_id)",
        "CREATE INDEX jobs_newest ON jobs (created_at, job_id)",
        "CREATE INDEX jobs_by_status ON jobs (tenant_id, status, created_at, job_id)",
        "CREATE INDEX jobs_by_update ON jobs (tenant_id, updated_at, job_id)",
        "CREATE INDEX jobs_by_priority ON jobs (tenant_id, priority, job_id)",
        "CREATE INDEX jobs_by_name ON jobs (tenant_id, name, job_id)",
        "CREATE INDEX jobs_by_status_order ON jobs (tenant_id, status, job_id)",
        "CREATE INDEX jobs_unfinished ON jobs (created_at, job_id) WHERE ended_at = 0",
        "CREATE INDEX jobs_by_end ON jobs (ended_at, job_id) WHERE ended_at > 0",
        "CREATE INDEX jobs_by_resume ON jobs (state_text(state, '{resume_from}'))"
        " WHERE state_text(state, '{resume_from}') <> ''",
        "CREATE INDEX jobs_by_export ON jobs (state_text(state, '{artefacts_of}'))"
        " WHERE state_text(state, '{artefacts_of}') <> ''",
        f"""
        CREATE TABLE job_labels (
            job_id {_TEXT} REFERENCES jobs,
            key {_TEXT},
            value {_TEXT},
            tenant_id {_TEXT},
            created_at bigint NOT NULL,
            PRIMARY KEY (job_id, key)
        )
        """,
        "CREATE INDEX job_labels_by_value ON job_labels"
        " (tenant_id, key, value, created_at, job_id)",
        f"""
        CREATE TABLE job_search (
            tenant_id {_TEXT},
            created_at bigint NOT NULL,
            job_id {_TEXT} REFERENCES jobs,
            kind {_TEXT},
            user_id {_TEXT},
            name {_TEXT},
            parent_job_id {_TEXT} DEFAULT '',
            PRIMARY KEY (tenant_id, created_at, job_id)
        )
        """,
        "CREATE INDEX job_search_by_job ON job_search (job_id)",
        "CREATE INDEX job_search_by_user ON job_search (tenant_id, user_id, created_at, job_id)",
        "CREATE INDEX job_search_by_kind ON job_search (tenant_id, kind, created_at, job_id)",
        "CREATE INDEX job_search_by_parent ON job_search"
        " (tenant_id, parent_job_id, created_at, job_id) WHERE parent_job_id <> ''",
        f"""
        CREATE TABLE checkpoints (
            job_id {_TEXT} REFERENCES jobs,
            name {_TEXT},
            sequence bigint NOT NULL,
            step bigint NOT NULL,
            size_bytes bigint NOT NULL,
            created_at bigint NOT NULL,
            identity {_TEXT},
            measured bigint NOT NULL,
            PRIMARY KEY (job_id, name)
        )
        """,
        "CREATE INDEX checkpoints_by_age ON checkpoints (job_id, sequence)",
        f"""
        CREATE TABLE kept_bytes (
            job_id {_TEXT} PRIMARY KEY REFERENCES jobs,
            directory bigint NOT NULL,
            checkpoints bigint NOT NULL
        )
        """,
        f"""
        CREATE TABLE deleted_jobs (
            job_id {_TEXT} PRIMARY KEY,
            tenant_id {_TEXT},
            deleted_at bigint NOT NULL
        )
        """,
        f"CREATE TABLE drained_nodes (node_id {_TEXT} PRIMARY KEY, reason {_TEXT})",
        f"""
        CREATE TABLE idempotency_keys (
            tenant_id {_TEXT},
            key {_TEXT},
            request_digest bytea NOT NULL,
            job_id {_TEXT},
            created_at bigint NOT NULL,
            PRIMARY KEY (tenant_id, key)
        )
        """,
        "CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at)",
        f"""
        CREATE TABLE job_changes (
            tenant_id {_TEXT},
            version bigint NOT NULL,
            job_id {_TEXT} UNIQUE,
            deleted_at bigint NOT NULL,
            PRIMARY KEY (tenant_id, version)
        )
        """,
        "CREATE INDEX job_deletions ON job_changes (tenant_id, version) WHERE deleted_at > 0",
        f"""
        CREATE TABLE change_versions (
            tenant_id {_TEXT} PRIMARY KEY,
            newest bigint NOT NULL,
            forgotten bigint NOT NULL
        )
        """,
        f"""
        CREATE TABLE change_record (
            epoch {_TEXT},
            boot {_TEXT},
            inode bigint NOT NULL,
            closed bigint NOT NULL
        )
        """,
    )


#: What a job's state says at a path. A damaged one says nothing, as SQLite's expressions have it.
_FUNCTIONS: Final = (
    """
    CREATE FUNCTION state_text(state text, path text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RETURN state::json #>> path; EXCEPTION WHEN others THEN RETURN NULL; END $$
    """,
    """
    CREATE FUNCTION state_number(state text, path text[]) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RETURN (state::json #>> path)::double precision;
    EXCEPTION WHEN others THEN RETURN NULL; END $$
    """,
    """
    CREATE FUNCTION state_texts(state text, path text[]) RETURNS SETOF text
    LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RETURN QUERY SELECT json_array_elements_text(state::json #> path);
    EXCEPTION WHEN others THEN RETURN; END $$
    """,
)


#: A job's state as JSON, in which a NUL may be, without those: a text of PostgreSQL has none. No
#: other character below 32 is in JSON as it is. Functions of an index see no function of a schema.
_STATE: Final = r"replace(replace(replace(state, '\\', chr(1)), '\u0000', ''), chr(1), '\\')::json"
#: Of a text the beginning: what an index has of a value is bounded.
_FUNCTIONS_OF_ANY_TEXT: Final = (
    f"""
    CREATE OR REPLACE FUNCTION state_text(state text, path text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RETURN left({_STATE} #>> path, 512); EXCEPTION WHEN others THEN RETURN NULL; END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION state_number(state text, path text[]) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RETURN ({_STATE} #>> path)::double precision;
    EXCEPTION WHEN others THEN RETURN NULL; END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION state_texts(state text, path text[]) RETURNS SETOF text
    LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RETURN QUERY SELECT json_array_elements_text({_STATE} #> path);
    EXCEPTION WHEN others THEN RETURN; END $$
    """,
)


def _texts_of_any_length() -> Sequence[str]:
    """SQLite has longer texts in its indices than a third of a page, and NULs in its states.

    The check of a term no longer holds up the renewal of its lease.
    """
    return (
        CHECK_TERM,
        "DROP INDEX jobs_by_resume, jobs_by_export, job_labels_by_value",
        *_FUNCTIONS_OF_ANY_TEXT,
        "CREATE INDEX jobs_by_resume ON jobs (state_text(state, '{resume_from}'))"
        " WHERE state_text(state, '{resume_from}') <> ''",
        "CREATE INDEX jobs_by_export ON jobs (state_text(state, '{artefacts_of}'))"
        " WHERE state_text(state, '{artefacts_of}') <> ''",
        "CREATE INDEX job_labels_by_value ON job_labels"
        " (tenant_id, key, md5(value), created_at, job_id)",
    )


def _data_directory() -> Sequence[str]:
    return (
        f"""
        CREATE TABLE data_directory (
            single boolean PRIMARY KEY DEFAULT true CHECK (single),
            identity {_TEXT}
        )
        """,
    )


#: The step at place n makes version n + 1.
STEPS: Final[tuple[SchemaStep, ...]] = (_first_tables, _texts_of_any_length, _data_directory)


def bring_up(db: PostgresDatabase, steps: Sequence[SchemaStep] = STEPS) -> None:
    """Take the outstanding steps: all of them, or none.

    Raises UnusableStore if the schema is newer than `steps`; what the database does.
    """
    version = version_of(db)
    check_version(version, readable=len(steps))
    if version == len(steps):
        return
    with db.transaction():
        for step in steps[version:]:
            for statement in step():
                db.write(statement)
        db.write("UPDATE schema_version SET version = ?", (len(steps),))


def check_version(version: int, *, readable: int = len(STEPS)) -> None:
    """Raise UnusableStore unless a schema's version can be read, or brought up."""
    if version > readable:
        raise UnusableStore(
            f"the schema has version {version}, and this coordinator can read up to version"
            f" {readable}; start the newer coordinator"
        )


def version_of(db: PostgresDatabase) -> int:
    """Return how many steps were taken."""
    version: int = db.execute("SELECT version FROM schema_version").fetchone()[0]
    return version
