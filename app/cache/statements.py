"""What is asked of `mod_scaimind_jobs`. Each statement names the tenant of every row it touches.

How states are ordered, whichever replica writes last:

- Of two copies of a job the one with the higher revision is the newer; of two
  with the same revision the one that was changed, then the one that was seen later.
- A job's end is final: an ended copy, or a feed's status that ends the job, wins over
  whatever does not, whatever their times. Clocks of coordinators are set back.
- A status that a feed told is newer than a copy of the same revision that was changed
  before it, and stays over it. A copy of a higher revision replaces it, unless it is
  an end.
- A deleted job is a row with the status DELETED and the highest revision that there is:
  nothing that a replica still holds of it replaces it, and no read shows it.
- Of two statuses that feeds told, the later wins; of the same time twice, the one that
  comes later in a job's life.

Counts and run times are tallied by triggers in the transaction that changes the jobs;
run times are in buckets 5 % wide, which bounds a percentile's error. A list is merged
from one index range per status, so that rare statuses cost no more. Statements lock
rows in the order of their keys, jobs before tallies, and the purge skips locked rows:
replicas wait for each other, but never in a circle. The day of a copy is indexed, not
its time, so that a refresh touches no index (HOT).
"""

from collections.abc import Collection

from app.cache.write_buffer import ENDS, STATUSES

_TABLE = "mod_scaimind_jobs"
_FAILED = STATUSES.index("FAILED")
#: In place of the number of a state.
DELETED = -1
#: No copy has a higher one.
_LAST_REVISION = 2**63 - 1
#: Days that such a row stays: by then no replica holds anything of the job any more.
_DELETED_DAYS = 2


def _ended(whose: str) -> str:
    return f"{whose}.status BETWEEN {ENDS.start} AND {ENDS.stop - 1}"


#: A status told by a feed, newer than the copy that arrives.
_KEPT = (
    "known.status_at <> known.updated_at"
    f" AND ({_ended('known')}, known.status_at, known.status)"
    f" > ({_ended('excluded')}, excluded.status_at, excluded.status)"
    f" AND (excluded.revision = known.revision OR ({_ended('known')} AND NOT {_ended('excluded')}))"
)


def _unless_kept(column: str) -> str:
    return f"{column} = CASE WHEN {_KEPT} THEN {_KEPT_VALUE[column]} ELSE excluded.{column} END"


def _told_at(at: str, updated_at: str) -> str:
    """The time of a told status: any but the copy's, by which the two are told apart.

    There is none behind the year 9999, which is as far as Python's times reach.
    """
    return (
        f"{at} + CASE WHEN {at} = {updated_at} AND {at} < '9999-12-31'"
        " THEN interval '1 microsecond' ELSE interval '0' END"
    )


_KEPT_VALUE = {
    "status": "known.status",
    "status_at": _told_at("known.status_at", "excluded.updated_at"),
    "message": "known.message",
    "ended_at": "known.ended_at",
}


#: Arrays, one entry for each job, no job twice.
SAVE_COPIES = f"""
INSERT INTO {_TABLE} AS known (
    tenant_id, job_id, revision, updated_at, status, status_at, message, name, name_folded,
    user_id, labels, parent_job_id, priority, gpus, created_at, started_at, ended_at, job,
    synced_at
)
SELECT tenant_id, job_id, revision, updated_at, status, status_at, message, name, name_folded,
    user_id, labels, parent_job_id, priority, gpus, created_at, started_at, ended_at, job,
    now() - make_interval(secs => age)
FROM unnest(
    %s::text[], %s::text[], %s::bigint[], %s::timestamptz[], %s::int[], %s::timestamptz[],
    %s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[], %s::text[], %s::int[], %s::int[],
    %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::json[], %s::float8[]
) AS seen (
    tenant_id, job_id, revision, updated_at, status, status_at, message, name, name_folded,
    user_id, labels, parent_job_id, priority, gpus, created_at, started_at, ended_at, job, age
)
-- Replicas lock rows in one order, or they would wait for each other.
ORDER BY tenant_id COLLATE "C", job_id COLLATE "C"
ON CONFLICT (tenant_id, job_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, name = excluded.name,
    name_folded = excluded.name_folded, user_id = excluded.user_id, labels = excluded.labels,
    parent_job_id = excluded.parent_job_id,
    priority = excluded.priority, gpus = excluded.gpus, created_at = excluded.created_at,
    started_at = excluded.started_at, job = excluded.job, synced_at = excluded.synced_at,
    {", ".join(map(_unless_kept, _KEPT_VALUE))}
WHERE (excluded.revision, excluded.updated_at, excluded.synced_at)
    > (known.revision, known.updated_at, known.synced_at)
"""

#: Arrays, one entry for each job, no job twice. Of a job without a copy nothing is kept.
SAVE_CHANGES = f"""
WITH newer AS (
    SELECT tenant_id, job_id, seen.status, at, seen.message
    FROM unnest(%s::text[], %s::text[], %s::int[], %s::timestamptz[], %s::text[])
        AS seen (tenant_id, job_id, status, at, message)
    JOIN {_TABLE} AS known USING (tenant_id, job_id)
    WHERE ({_ended("seen")}, at, seen.status) > ({_ended("known")}, known.status_at, known.status)
        AND known.status <> {DELETED}
    ORDER BY tenant_id COLLATE "C", job_id COLLATE "C"
    FOR UPDATE OF known
)
UPDATE {_TABLE} AS known SET
    status = newer.status, message = newer.message,
    status_at = {_told_at("newer.at", "known.updated_at")},
    ended_at = CASE
        WHEN {_ended("newer")}
        THEN coalesce(known.ended_at, newer.at) ELSE known.ended_at
    END
FROM newer
WHERE (known.tenant_id, known.job_id) = (newer.tenant_id, newer.job_id)
    AND ({_ended("newer")}, newer.at, newer.status)
    > ({_ended("known")}, known.status_at, known.status)
    AND known.status <> {DELETED}
"""

_GONE = "unnest(%s::text[], %s::text[]) AS gone (tenant_id, job_id)"
#: Arrays of tenants and jobs, no job twice. Also of a job that was never seen: another replica may
#: hold a copy that it has not written yet.
DELETE_JOBS = f"""
INSERT INTO {_TABLE} AS known (
    tenant_id, job_id, revision, updated_at, status, status_at, message, name, priority, gpus,
    created_at, job, synced_at
)
SELECT tenant_id, job_id, {_LAST_REVISION}, now(), {DELETED}, now(), '', '', 0, 0, now(), '{{}}',
    now()
FROM {_GONE}
ORDER BY tenant_id COLLATE "C", job_id COLLATE "C"
ON CONFLICT (tenant_id, job_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, status = excluded.status,
    status_at = excluded.status_at, message = '', name = '', name_folded = NULL,
    user_id = NULL, labels = NULL, parent_job_id = '', priority = 0, gpus = 0, started_at = NULL,
    ended_at = NULL, job = excluded.job, synced_at = excluded.synced_at
WHERE known.status <> {DELETED}
"""
#: The same of jobs that were seen.
DELETE_KNOWN_JOBS = DELETE_JOBS.replace(_GONE, f"{_GONE} JOIN {_TABLE} USING (tenant_id, job_id)")

#: Parameters: days, rows. Returns how many rows went. Locked rows are left for another time.
PURGE = f"""
WITH gone AS (
    DELETE FROM {_TABLE} WHERE (tenant_id, job_id) IN (
        SELECT tenant_id, job_id FROM {_TABLE}
        WHERE synced_on < (now() AT TIME ZONE 'UTC')::date - %s
        LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM gone
"""
#: Parameter: rows. Returns how many rows went.
PURGE_DELETED = f"""
WITH gone AS (
    DELETE FROM {_TABLE} WHERE (tenant_id, job_id) IN (
        SELECT tenant_id, job_id FROM {_TABLE}
        WHERE status = {DELETED}
            AND synced_on < (now() AT TIME ZONE 'UTC')::date - {_DELETED_DAYS}
        LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM gone
"""
#: Parameter: days.
PURGE_TALLIES = """
DELETE FROM mod_scaimind_job_run_times
WHERE jobs = 0 AND day < (now() AT TIME ZONE 'UTC')::date - %s
"""

#: What is read of a job: the copy, what a feed may know better, and how old the copy is.
_READ = """
    jobs.job::text, jobs.status, jobs.status_at <> jobs.updated_at, jobs.status_at, jobs.message,
    jobs.ended_at, jobs.synced_at, extract(epoch FROM now() - jobs.synced_at)::float8
"""

#: Parameters: tenant, job.
GET_JOB = (
    f"SELECT {_READ} FROM {_TABLE} AS jobs"
    f" WHERE tenant_id = %s AND job_id = %s AND status <> {DELETED}"
)


def list_jobs(column: str, *, descending: bool, filtered: bool, continued: bool) -> str:
    """A page, merged from one range of an index per status, so that rare statuses cost no more.

    Parameters by name: tenant, statuses (if `filtered`), place and job_id (if
    `continued`), rows. A first row for the list and one for each job, which
    begins with its place. Where there is no job, that part of the row is null.
    """
    direction, behind = ("DESC", "<") if descending else ("ASC", ">")
    wanted = "AND status = ANY(%(statuses)s)" if filtered else ""
    place = f"AND ({column}, job_id) {behind} (%(place)s, %(job_id)s)" if continued else ""
    return f"""
WITH counts AS (
    SELECT status, jobs FROM mod_scaimind_job_counts
    WHERE tenant_id = %(tenant)s AND jobs > 0 AND status <> {DELETED} {wanted}
), list AS (
    SELECT (SELECT coalesce(sum(jobs), 0)::bigint FROM counts) AS total, heard,
        extract(epoch FROM now() - heard)::float8 AS age
    FROM (
        SELECT max(synced_at) AS heard FROM mod_scaimind_job_counts WHERE tenant_id = %(tenant)s
    ) AS newest
), page AS (
    SELECT found.* FROM counts CROSS JOIN LATERAL (
        SELECT {column} AS place, job_id FROM {_TABLE} AS jobs
        WHERE tenant_id = %(tenant)s AND jobs.status = counts.status {place}
        ORDER BY {column} {direction}, job_id {direction} LIMIT %(rows)s
    ) AS found
    ORDER BY place {direction}, job_id {direction} LIMIT %(rows)s
)
SELECT list.total, list.heard, list.age, page.place, page.job_id, {_READ}
FROM list LEFT JOIN (
    page JOIN {_TABLE} AS jobs ON jobs.tenant_id = %(tenant)s AND jobs.job_id = page.job_id
) ON true
ORDER BY page.place {direction}, page.job_id {direction}
"""


#: What a job must be like, by the parameter that says so.
_FILTERS = {
    "statuses": "status = ANY(%(statuses)s)",
    "labels": "labels @> %(labels)s::jsonb",
    "name": "strpos(name_folded, %(name)s) > 0",
    "users": "user_id = ANY(%(users)s)",
    "created_after": "created_at >= %(created_after)s",
    # The index has jobs with a parent alone, as this condition says.
    "parent": "parent_job_id <> '' AND parent_job_id = %(parent)s",
    "evaluations": """(labels @> '{"type": "evaluation"}') = %(evaluations)s""",
}


def search_jobs(column: str, *, descending: bool, filters: Collection[str], continued: bool) -> str:
    """A page of the jobs that pass some of `_FILTERS`, which are all counted.

    Parameters by name: tenant, the filters', place and job_id (if
    `continued`), rows. Rows as of `list_jobs`.
    """
    direction, behind = ("DESC", "<") if descending else ("ASC", ">")
    wanted = "".join(f" AND {_FILTERS[name]}" for name in filters)
    place = f"WHERE (place, job_id) {behind} (%(place)s, %(job_id)s)" if continued else ""
    return f"""
WITH found AS MATERIALIZED (
    SELECT {column} AS place, job_id FROM {_TABLE} AS jobs
    WHERE tenant_id = %(tenant)s AND status <> {DELETED}{wanted}
), list AS (
    SELECT (SELECT count(*) FROM found) AS total, heard,
        extract(epoch FROM now() - heard)::float8 AS age
    FROM (
        SELECT max(synced_at) AS heard FROM mod_scaimind_job_counts WHERE tenant_id = %(tenant)s
    ) AS newest
), page AS (
    SELECT place, job_id FROM found {place}
    ORDER BY place {direction}, job_id {direction} LIMIT %(rows)s
)
SELECT list.total, list.heard, list.age, page.place, page.job_id, {_READ}
FROM list LEFT JOIN (
    page JOIN {_TABLE} AS jobs ON jobs.tenant_id = %(tenant)s AND jobs.job_id = page.job_id
) ON true
ORDER BY page.place {direction}, page.job_id {direction}
"""


#: Parameters by name: tenant, failures, days. One row.
SUMMARY = f"""
SELECT
    (
        SELECT json_agg(json_build_array(status, jobs, gpus)) FROM mod_scaimind_job_counts
        WHERE tenant_id = %(tenant)s AND jobs > 0 AND status <> {DELETED}
    ),
    (SELECT max(synced_at) FROM mod_scaimind_job_counts WHERE tenant_id = %(tenant)s),
    (
        SELECT json_agg(json_build_array(day, jobs, p50, p90, p99) ORDER BY day)
        FROM (
            SELECT day, sum(jobs) AS jobs,
                min(bucket) FILTER (WHERE upto >= 0.50 * total) AS p50,
                min(bucket) FILTER (WHERE upto >= 0.90 * total) AS p90,
                min(bucket) FILTER (WHERE upto >= 0.99 * total) AS p99
            FROM (
                SELECT day, bucket, jobs,
                    sum(jobs) OVER (PARTITION BY day ORDER BY bucket) AS upto,
                    sum(jobs) OVER (PARTITION BY day) AS total
                FROM mod_scaimind_job_run_times
                WHERE tenant_id = %(tenant)s AND jobs > 0
                    AND day > (now() AT TIME ZONE 'UTC')::date - %(days)s
            ) AS buckets
            GROUP BY day
        ) AS days
    ),
    (
        SELECT array_agg(ARRAY[job::text, message, ended_at::text])
        FROM (
            SELECT job, message, ended_at FROM {_TABLE}
            WHERE tenant_id = %(tenant)s AND status = {_FAILED}
            ORDER BY ended_at DESC NULLS LAST, job_id DESC LIMIT %(failures)s
        ) AS failures
    )
"""
