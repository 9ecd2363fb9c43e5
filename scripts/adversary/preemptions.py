"""Nobody is stopped in vain, and nobody who need not be."""

from dataclasses import replace

from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.job_changes import comes_back, run_message
from app.coordinator.scheduling.transitions import RunEnd, Transition
from scripts.adversary.answers import LIMITS
from scripts.adversary.attack import Attack
from scripts.adversary.capacity import placed_in, victims_of


def check_preemptions(attack: Attack, step: Transition) -> None:
    """Once all that is being stopped has ended, somebody starts, and where all of these have a
    higher priority, not all would without the end of any one victim."""
    victims = victims_of(step)
    if not victims:
        return
    waiting = [job for job in attack.scheduler.jobs.values() if job.status is Status.QUEUED]
    started = _started(attack, spared=None)
    reasons = attack.scheduler.reasons()
    if any(comes_back(job) for job in attack.scheduler.holding.values() if job.stop_reason):
        # It may come first, and have the room instead.
        return
    if any(reasons.of(attack.scheduler.jobs[name]).reason in LIMITS for name in started):
        # What ends lets others start that a limit keeps waiting now, and some of them come first.
        return
    most = max((job.priority for job in placed_in(step)), default=-1)
    for victim in victims:
        assert victim.preemptible
        if most > victim.priority:
            # It started elsewhere, since what ends makes room for another.
            continue
        assert any(job.priority > victim.priority for job in waiting), "nobody needs it"
        higher = {
            job.job_id
            for job in waiting
            if job.priority > victim.priority and job.job_id in started
        }
        assert started, f"{victim.job_id} is stopped in vain"
        if len(higher) < len(started):
            # Others start, too: who has which room depends on the order in which runs end.
            continue
        without = _started(attack, spared=victim)
        assert not higher <= without, f"{victim.job_id} need not be stopped for {higher}"


def _started(attack: Attack, *, spared: JobRecord | None) -> set[str]:
    """Who starts if all that is being stopped ends now, but for one that is not stopped."""

    def spare(job: JobRecord) -> JobRecord:
        if spared is None or job.job_id != spared.job_id:
            return job
        return replace(
            job,
            status=Status.TRAINING,
            stop_reason=StopReason.NONE,
            message=run_message(job, job.run_count),
        )

    twin = attack.twin(spare)
    before = set(twin.holding)
    with twin.changing():
        for job in list(twin.jobs.values()):
            if job.status in RUNNING and job.stop_reason is not StopReason.NONE:
                twin.run_ended(job.job_id, RunEnd(exit_code=0, stopped=True))
            elif job.status is Status.EXPORTING:
                twin.exported(job.job_id, "x")
    return set(twin.holding) - before
