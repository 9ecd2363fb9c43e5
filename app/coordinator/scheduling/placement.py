"""Who is placed where: by priority, then age, with preemption where it helps."""

from collections.abc import Iterable, Sequence

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import Demand, Intent, JobRecord
from app.coordinator.jobs.states import HOLDING, WAITING, Status
from app.coordinator.scheduling.job_table import Moves
from app.coordinator.scheduling.steps import Prepare


def waiting_in_order(moves: Moves) -> list[JobRecord]:
    """The jobs that wait, of all tenants, in the order in which they are placed."""
    now = moves.now()
    return sorted(
        (job for job in moves.jobs.values() if job.status in WAITING),
        key=lambda job: (job.not_before > now, -job.priority, job.created_at, job.job_id),
    )


def place_waiting(moves: Moves) -> None:
    """Place what waits, by priority, then age.

    A job that finds no room keeps the nodes on which it could run from
    those behind it: nobody is overtaken into waiting for ever. Jobs that ask
    for nothing, and those that ask for something, overtake each other: neither
    takes what the other waits for.
    """
    cluster = moves.cluster
    all_kept: dict[bool, set[str]] = {True: set(), False: set()}
    able: dict[Demand, frozenset[str]] = {}
    for job in waiting_in_order(moves):
        if job.status is not Status.QUEUED:
            continue
        if job.demand not in able:
            able[job.demand] = _able(cluster, job.demand)
        usable = able[job.demand]
        kept = all_kept[_takes(job.demand)]
        if len(usable) < job.demand.nodes:
            # Only a drained node could help: nobody has to wait for that.
            continue
        if len(usable - kept) < job.demand.nodes:
            kept |= usable
            continue
        placement = cluster.place(job.demand, without=kept)
        if placement is None:
            _make_room(moves, job, kept)
            kept |= usable
            continue
        cluster.take(job.job_id, placement)
        nodes = tuple(share.node_id for share in placement)
        job = moves.move(
            job,
            Status.SCHEDULING,
            f"Placed on {', '.join(nodes)}.",
            placement=placement,
            node_ids=nodes,
        )
        moves.step.instructions.append(Prepare(job))


def finds_room(moves: Moves, job: JobRecord, *, behind: Iterable[JobRecord]) -> bool:
    """Whether a newcomer would be placed at once, behind jobs that wait."""
    kept: set[str] = set()
    for other in behind:
        if _takes(other.demand) is not _takes(job.demand):
            continue
        usable = _able(moves.cluster, other.demand)
        if other.status is Status.QUEUED and len(usable) >= other.demand.nodes:
            kept |= usable
    return moves.cluster.place(job.demand, without=kept) is not None


def _takes(demand: Demand) -> bool:
    """Whether somebody else has to do without what is asked for."""
    return bool(demand.cpus or demand.memory or demand.gpus)


def _able(cluster: Cluster, demand: Demand) -> frozenset[str]:
    """The enabled nodes that could give what is asked of one node if they were empty."""
    return frozenset(
        node.spec.node_id
        for node in cluster.nodes.values()
        if node.drain is None and node.could(demand)
    )


def _make_room(moves: Moves, job: JobRecord, kept: set[str]) -> None:
    """Preempt just enough of lower priority that `job` will fit, if that is possible."""
    trial = moves.cluster.copy()
    holding = [other for other in moves.jobs.values() if other.status in HOLDING]
    for other in holding:
        if other.intent is not Intent.NONE or other.status is Status.EXPORTING:
            trial.give_back(other.job_id, other.placement)
    if trial.place(job.demand, without=kept) is not None:
        return
    candidates = sorted(
        (
            other
            for other in holding
            if other.preemptible
            and other.priority < job.priority
            and other.status in (Status.TRAINING, Status.EVALUATING)
            and other.intent is Intent.NONE
        ),
        key=lambda other: (other.priority, -other.run_started_at),
    )
    victims: list[JobRecord] = []
    for other in candidates:
        trial.give_back(other.job_id, other.placement)
        victims.append(other)
        if trial.place(job.demand, without=kept) is not None:
            break
    else:
        return
    for other in _spared(trial, job, victims, kept):
        victims.remove(other)
    for other in victims:
        moves.stop(
            other,
            Intent.PREEMPT,
            f"Preempted by a job of priority {job.priority}; it can be retried.",
        )


def _spared(
    trial: Cluster, job: JobRecord, victims: Sequence[JobRecord], kept: set[str]
) -> list[JobRecord]:
    """Those of `victims` without whom `job` fits, too."""
    spared = []
    for other in victims:
        trial.take(other.job_id, other.placement)
        if trial.place(job.demand, without=kept) is not None:
            spared.append(other)
        else:
            trial.give_back(other.job_id, other.placement)
    return spared
