"""Nobody is stopped in vain, and nobody who need not be.

A victim is stopped in vain if it could go on beside all those that are ahead of it, and
have started once all that is being stopped has ended, in whichever order.
Only what comes from outside excuses that: see `Attack.excuses`. A job that comes back ahead of it
does so for the room that is left of what is stopped for that job.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from app.coordinator.cluster.node_specs import NodeSpec
from app.coordinator.jobs.model import Allocation, JobRecord, StopReason
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import RunEnd, Transition
from scripts.adversary.attack import Attack, Victim, urgency
from scripts.adversary.capacity import placed_in, victims_of

#: Orders of ends that are tried after each event.
_ORDERS: Final = 2


def check_preemptions(attack: Attack, step: Transition) -> None:
    """Nobody who was stopped, now or before, was stopped in vain, as things are."""
    if attack.excuses(step):
        attack.victims.clear()
    rules = attack.world.rules
    _note_stopped_later(attack, step)
    # Where the victim makes room for those whose promised place it has, one starts at once.
    placed = {job.job_id for job in placed_in(step)}
    for victim in victims_of(step):
        assert victim.preemptible
        own = urgency(rules, victim)
        ahead = {
            job.job_id
            for job in attack.scheduler.jobs.values()
            if job.status is Status.QUEUED or job.job_id in placed
            if urgency(rules, job) < own
        }
        assert ahead, "nobody needs it"
        promised = {
            name
            for name, job in attack.scheduler.jobs.items()
            if job.promise and ((was := step.before.get(name, job)) is not None and was.promise)
        }
        before = frozenset(promised | set(attack.scheduler.holding) - {victim.job_id})
        attack.victims[victim.job_id] = Victim(victim, before, frozenset(ahead))
    if not attack.victims:
        return
    for _ in range(_ORDERS):
        after = _all_ended(attack)
        for known in attack.victims.values():
            assert not could_go_on(attack, after, known), f"{known.job.job_id} is stopped in vain"
    _check_need(attack, step, after)
    for name in [name for name in attack.victims if name not in attack.scheduler.holding]:
        if not could_go_on(attack, attack.scheduler, attack.victims[name]):
            del attack.victims[name]


def _note_stopped_later(attack: Attack, step: Transition) -> None:
    """Note of earlier victims what a job that comes back ahead of them has had stopped."""
    rules, stopped = attack.world.rules, tuple(victims_of(step))
    back = [
        urgency(rules, before)
        for before in step.before.values()
        if before is not None and before.status in (Status.PAUSED, Status.PENDING)
    ]
    if not stopped or not back:
        return
    for name, victim in attack.victims.items():
        if min(back) < urgency(rules, victim.job):
            later = (*victim.stopped_later, *stopped)
            attack.victims[name] = replace(victim, stopped_later=later)


def _all_ended(attack: Attack) -> Scheduler:
    """What comes of it if all that is being stopped ends, one after the other."""
    twin = attack.twin()
    while ending := [
        job
        for job in twin.holding.values()
        if (job.status in RUNNING and job.stop_reason) or job.status is Status.EXPORTING
    ]:
        job = attack.choose_ends.choice(ending)
        with twin.changing():
            if job.status is Status.EXPORTING:
                twin.exported(job.job_id, "x")
            else:
                twin.run_ended(job.job_id, RunEnd(exit_code=0, stopped=True))
        twin.validate()
    return twin


def could_go_on(attack: Attack, scheduler: Scheduler, victim: Victim) -> bool:
    """Whether a victim would fit where it was beside what was there, and those of the others that
    are ahead of it."""
    others = [
        job
        for job in scheduler.holding.values()
        if job.job_id in victim.before
        or urgency(attack.world.rules, job) < urgency(attack.world.rules, victim.job)
    ]
    # One that holds its place still is among the others already.
    others += [job for job in victim.stopped_later if job.job_id not in scheduler.holding]
    return all(
        _fits(attack.cluster.nodes[share.node_id].spec, share, others)
        for share in victim.job.placement
    )


def _fits(spec: NodeSpec, share: Allocation, others: Iterable[JobRecord]) -> bool:
    here = [each for job in others for each in job.placement if each.node_id == spec.node_id] + [
        share
    ]
    kinds = Counter(spec.gpus[gpu] for each in here for gpu in each.gpus)
    return (
        sum(each.cpus for each in here) <= spec.cpus
        and sum(each.memory for each in here) <= spec.memory
        and sum(not each.cpus for each in here) <= spec.cpus
        and all(count <= spec.gpus.count(kind) for kind, count in kinds.items())
    )


def _check_need(attack: Attack, step: Transition, after: Scheduler) -> None:
    """Where nothing else is being stopped than for one job, that would find no room without the end
    of any one victim, other than what those ahead of it could use."""
    victims = victims_of(step)
    ending = {job.job_id for job in attack.scheduler.holding.values() if _ends(job)}
    started = set(after.holding) - set(attack.scheduler.holding)
    if ending != {victim.job_id for victim in victims} or len(started) != 1:
        return
    job, rules = after.jobs[started.pop()], attack.world.rules
    kept = {
        name
        for other in attack.scheduler.jobs.values()
        if other.status is Status.QUEUED and urgency(rules, other) <= urgency(rules, job)
        if other.job_id != job.job_id
        for name in attack.cluster.usable(other.resource_request)
    }
    for victim in victims:
        cluster = after.cluster.copy()
        cluster.release(job.job_id, job.placement)
        cluster.allocate(victim.job_id, victim.placement)
        assert cluster.place(job.resource_request, without=kept) is None, (
            f"{victim.job_id} need not be stopped for {job.job_id}"
        )


def _ends(job: JobRecord) -> bool:
    return job.stop_reason is not StopReason.NONE or job.status is Status.EXPORTING
