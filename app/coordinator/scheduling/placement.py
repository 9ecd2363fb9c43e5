"""Who is placed where: by priority, then age, with preemption where it helps."""

from collections.abc import Iterable, Sequence

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.states import HOLDING, WAITING, Status
from app.coordinator.scheduling.job_changes import stop_run
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.transitions import Prepare


def waiting_in_order(table: JobTable) -> list[JobRecord]:
    """The jobs that wait, of all tenants, in the order in which they are placed."""
    now = table.now()
    return sorted(
        (job for job in table.jobs.values() if job.status in WAITING),
        key=lambda job: (job.not_before > now, -job.priority, job.created_at, job.job_id),
    )


def place_waiting(table: JobTable) -> None:
    """Place what waits, by priority, then age.

    A job that finds no room keeps the nodes on which it could run from
    those behind it: nobody is overtaken into waiting for ever. Jobs that ask
    for nothing, and those that ask for something, overtake each other: neither
    takes what the other waits for.
    """
    cluster = table.cluster
    all_kept: dict[bool, set[str]] = {True: set(), False: set()}
    able: dict[ResourceRequest, frozenset[str]] = {}
    for job in waiting_in_order(table):
        if job.status is not Status.QUEUED:
            continue
        if job.resource_request not in able:
            able[job.resource_request] = _able(cluster, job.resource_request)
        usable = able[job.resource_request]
        kept = all_kept[_takes(job.resource_request)]
        if len(usable) < job.resource_request.nodes:
            # Only a drained node could help: nobody has to wait for that.
            continue
        if len(usable - kept) < job.resource_request.nodes:
            kept |= usable
            continue
        placement = cluster.place(job.resource_request, without=kept)
        if placement is None:
            _make_room(table, job, kept)
            kept |= usable
            continue
        nodes = tuple(allocation.node_id for allocation in placement)
        job = table.transition(
            job,
            Status.SCHEDULING,
            f"Placed on {', '.join(nodes)}.",
            placement=placement,
            node_ids=nodes,
        )
        table.instruct(Prepare(job))


def finds_room(table: JobTable, job: JobRecord, *, behind: Iterable[JobRecord]) -> bool:
    """Whether a newcomer would be placed at once, behind jobs that wait."""
    kept: set[str] = set()
    for other in behind:
        if _takes(other.resource_request) is not _takes(job.resource_request):
            continue
        usable = _able(table.cluster, other.resource_request)
        if other.status is Status.QUEUED and len(usable) >= other.resource_request.nodes:
            kept |= usable
    return table.cluster.place(job.resource_request, without=kept) is not None


def _takes(resource_request: ResourceRequest) -> bool:
    """Whether somebody else has to do without what is asked for."""
    return bool(resource_request.cpus or resource_request.memory or resource_request.gpus)


def _able(cluster: Cluster, resource_request: ResourceRequest) -> frozenset[str]:
    """The enabled nodes that could give what is asked of one node if they were empty."""
    return frozenset(
        node.spec.node_id
        for node in cluster.nodes.values()
        if node.drain is None and node.fits_empty(resource_request)
    )


def _make_room(table: JobTable, job: JobRecord, kept: set[str]) -> None:
    """Preempt just enough of lower priority that `job` will fit, if that is possible."""
    trial = table.cluster.copy()
    holding = [other for other in table.jobs.values() if other.status in HOLDING]
    for other in holding:
        if other.stop_reason is not StopReason.NONE or other.status is Status.EXPORTING:
            trial.release(other.job_id, other.placement)
    if trial.place(job.resource_request, without=kept) is not None:
        return
    candidates = sorted(
        (
            other
            for other in holding
            if other.preemptible
            and other.priority < job.priority
            and other.status in (Status.TRAINING, Status.EVALUATING)
            and other.stop_reason is StopReason.NONE
        ),
        key=lambda other: (other.priority, -other.run_started_at),
    )
    victims: list[JobRecord] = []
    for other in candidates:
        trial.release(other.job_id, other.placement)
        victims.append(other)
        if trial.place(job.resource_request, without=kept) is not None:
            break
    else:
        return
    for other in _spared(trial, job, victims, kept):
        victims.remove(other)
    for other in victims:
        stop_run(
            table,
            other,
            StopReason.PREEMPT,
            f"Preempted by a job with priority {job.priority}. Retry the job to run it again.",
        )


def _spared(
    trial: Cluster, job: JobRecord, victims: Sequence[JobRecord], kept: set[str]
) -> list[JobRecord]:
    """Those of `victims` without whom `job` fits, too."""
    spared = []
    for other in victims:
        trial.allocate(other.job_id, other.placement)
        if trial.place(job.resource_request, without=kept) is not None:
            spared.append(other)
        else:
            trial.release(other.job_id, other.placement)
    return spared
