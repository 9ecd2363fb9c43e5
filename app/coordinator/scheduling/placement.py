"""Who is placed where: by priority, then age, with preemption where it helps."""

from collections.abc import Iterator, Sequence

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.job_changes import stop_run
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.transitions import Prepare
from app.coordinator.scheduling.waiting import Place, place_of, takes


def place_waiting(table: JobTable) -> None:
    """Place what waits, by priority, then age.

    A job that finds no room keeps the nodes on which it could run from
    those behind it: nobody is overtaken into waiting for ever. Jobs that ask
    for nothing, and those that ask for something, overtake each other: neither
    takes what the other waits for.

    Jobs that ask for the same are looked at until one of them finds no room: the
    cost is that of the jobs that are placed, and of the different requests that
    are looked at before every node is kept.
    """
    cluster = table.cluster
    for job, kept in _Turns(table):
        resource_request = job.resource_request
        usable = _able(cluster, resource_request)
        if len(usable) < resource_request.nodes:
            # Only a drained node could help: nobody has to wait for that.
            continue
        if len(usable - kept) < resource_request.nodes:
            kept |= usable
            continue
        placement = cluster.place(resource_request, without=kept)
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


class _Turns:
    """The jobs that may be placed, each with the nodes that those before it keep, a set to add to.

    A job that is not placed has had the turn of all that ask for the same.
    """

    def __init__(self, table: JobTable) -> None:
        self._waiting = table.waiting
        self._enabled = _enabled(table.cluster)

    def __iter__(self) -> Iterator[tuple[JobRecord, set[str]]]:
        kept: dict[bool, set[str]] = {True: set(), False: set()}
        heads = {taking: self._waiting.next_head(taking, None) for taking in kept}
        while True:
            left = [(place_of(job), taking) for taking, job in heads.items() if job is not None]
            if not left:
                return
            place, taking = min(left)
            job = heads[taking]
            assert job is not None
            yield job, kept[taking]
            done = kept[taking] >= self._enabled
            heads[taking] = None if done else self._waiting.next_head(taking, place)


def finds_room(table: JobTable, job: JobRecord, *, behind: Place) -> bool:
    """Whether a newcomer would be placed at once, behind those that wait before a place."""
    kept: set[str] = set()
    enabled = _enabled(table.cluster)
    taking = takes(job.resource_request)
    other = table.waiting.next_head(taking, None)
    while other is not None and place_of(other) < behind and not kept >= enabled:
        usable = _able(table.cluster, other.resource_request)
        if len(usable) >= other.resource_request.nodes:
            kept |= usable
        other = table.waiting.next_head(taking, place_of(other))
    return table.cluster.place(job.resource_request, without=kept) is not None


def _enabled(cluster: Cluster) -> frozenset[str]:
    """The nodes that take new jobs."""
    return frozenset(node.spec.node_id for node in cluster.nodes.values() if node.drain is None)


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
    holding = list(table.holding.values())
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
