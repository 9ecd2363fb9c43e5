"""Who passes others delays none of them: by brute force over a plan, and over all that could be on
a node together, or under a limit."""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import Limit, total_gpus
from app.coordinator.scheduling.placement import MOST_LOOKS
from app.coordinator.scheduling.queues.candidates import lane_of
from app.coordinator.scheduling.transitions import Transition
from scripts.adversary.answers import LIMITS
from scripts.adversary.attack import Attack
from scripts.adversary.capacity import placed_in
from scripts.adversary.looks import Look, shares_of
from scripts.adversary.plans import FOREVER, Need, Plan, fits, need_of, needs_of

_MOST_REFUSED: Final = 3
#: Sets of jobs that are tried on a node.
_TRIES: Final = 40
#: Jobs of which all sets are tried under a limit.
_MOST_SETS: Final = 10


def check_delays(attack: Attack, step: Transition) -> None:
    """Each job that was placed past others delays none of them.

    All are looked at again after some placements: a job may have been placed when others of the
    step were placed already that come behind it.
    """
    if not placed_in(step) or any(
        before is not None and before.promise and not (after.promise or after.placement)
        for name, after in step.newest().items()
        for before in (step.before[name],)
    ):
        # Where a newer job had a promised place, a limit counted that until then.
        return
    for name, error in _delays(attack, Look.of(attack, step)).items():
        last = _delays(attack, Look.of(attack, step, only=name))
        then = _delays(attack, Look.of(attack, step, only=name, then=True))
        if name in last and name in then:
            raise AssertionError(f"{error}; {last[name]}; {then[name]}")


def _delays(attack: Attack, look: Look) -> dict[str, str]:
    """Of each job that was placed and delays others: whom, and where."""
    reasons = attack.scheduler.reasons()
    plan: Plan | None = None
    looks: dict[int, int] = {}
    refused: dict[int, int] = {}
    line: list[JobRecord] = []
    kinds: set[object] = set()
    #: How many of those that are alike come before one.
    numbers: dict[str, int] = {}
    found: dict[str, str] = {}
    for job in look.turns():
        request = job.resource_request
        lane = lane_of(request)
        own = look.turn_of(job)
        ahead = sorted(
            (other for other in line if look.turn_of(other, after=numbers[other.job_id]) < own),
            key=lambda other: look.turn_of(other, after=numbers[other.job_id]),
        )
        alike = look.alike_of(job)
        room = look.place(request) is not None
        if job.job_id not in look.placed and alike in kinds:
            numbers[job.job_id] = sum(look.alike_of(other) == alike for other in line)
            line.append(job)
            continue
        if room and job.max_runtime and ahead:
            plan = plan or Plan.of(attack, look)
            for other in ahead:
                if other.job_id not in plan.known:
                    plan.reserve(other)
        if job.job_id in look.placed:
            if ahead and (error := _delay(attack, look, plan, look.placed[job.job_id], ahead)):
                found[job.job_id] = error
            # Those ahead are planned beside it from now on, and may start elsewhere.
            plan = None
            continue
        told = reasons.of(job)
        told_so = told.reason in LIMITS and "head of it" in told.message
        if (told_so and not _shares_limit(look, job)) or is_claimed(attack, look, job, ahead):
            # It is not in line: those ahead of it need what a limit leaves. Whom a limit keeps
            # waiting has no turn, unless that is only so since others have started.
            continue
        numbers[job.job_id] = 0
        line.append(job)
        kinds.add(alike)
        looks[lane] = looks.get(lane, 0) + 1
        refused[lane] = refused.get(lane, 0) + room
        if looks[lane] >= MOST_LOOKS or refused[lane] >= _MOST_REFUSED:
            break
    return found


def _delay(
    attack: Attack, look: Look, plan: Plan | None, job: JobRecord, ahead: Sequence[JobRecord]
) -> str:
    """Whom a job delays that was placed, which the look does not count as held yet; empty if
    nobody."""
    length = job.max_runtime or FOREVER
    if not job.max_runtime:
        plan = None
    known = plan.known if plan is not None else set[str]()
    rest = [other for other in ahead if other.job_id not in known]
    if job.job_id not in look.counted and (error := _delay_by_limit(look, plan, job, ahead)):
        return error
    for share in job.placement:
        name = share.node_id
        spec = look.cluster.nodes[name].spec
        more = needs_of(share, spec)
        if known and plan is not None and not plan.has_room(name, more, 0, length):
            return f"{job.job_id} on {name} is in the way of the plan of those ahead"
        here = [
            [need_of(other.resource_request, spec)] for other in rest if name in look.usable(other)
        ]
        if not here:
            continue
        held = [
            needs_of(each, spec)
            for other in look.held.values()
            for each in shares_of(other)
            if each.node_id == name
        ]
        for _ in range(_TRIES):
            beside: list[Need] = []
            for needs in attack.choose_ends.sample([*held, *here], len(held) + len(here)):
                if fits(spec, [*beside, *needs]):
                    beside += needs
            if not fits(spec, [*beside, *more]):
                return f"{job.job_id} on {name} keeps others from it"
    return ""


def _delay_by_limit(
    look: Look, plan: Plan | None, job: JobRecord, ahead: Sequence[JobRecord]
) -> str:
    """The limit of which a job takes what those ahead of it need; empty if none."""
    length = job.max_runtime or FOREVER
    known = plan.known if plan is not None else set[str]()
    rest = [other for other in ahead if other.job_id not in known]
    for limit in look.rules.limits_of(job):
        if plan is not None and known and not plan.allows(limit, limit.limits, job, 0, length):
            return f"{job.job_id} takes what the plan of those ahead needs of {limit}"
        if _takes(look, limit, job, [other for other in rest if limit.covers(other)]):
            return f"{job.job_id} takes what those ahead may need of {limit}"
    return ""


def _shares_limit(look: Look, job: JobRecord) -> bool:
    """Whether what was told of a job's limit counts some that had not been placed at its turn."""
    return any(
        limit.covers(placed) and placed.job_id not in look.held
        for limit in look.rules.limits_of(job)
        for placed in look.placed.values()
    )


def is_claimed(attack: Attack, look: Look, job: JobRecord, ahead: Sequence[JobRecord]) -> bool:
    """Whether those ahead of a job need what a limit leaves it."""
    if not any(limit.covers(other) for limit in look.rules.limits_of(job) for other in ahead):
        return False
    plan = None
    if job.max_runtime and ahead:
        plan = Plan.of(attack, look)
        for other in ahead:
            plan.reserve(other)
    return bool(_delay_by_limit(look, plan, job, ahead))


def _takes(look: Look, limit: Limit, job: JobRecord, rest: Sequence[JobRecord]) -> bool:
    """Whether some of what is held under a limit, and of those ahead whose start nobody knows, fit
    together, and not with a job beside them."""
    gpus, limits = total_gpus(job.resource_request), limit.limits
    held = [other for other in look.held.values() if limit.covers(other)]
    if not rest:
        return False
    if limits.jobs is not None and len(held) + len(rest) >= limits.jobs:
        return True
    if limits.gpus is None or not gpus:
        return False
    sizes = [total_gpus(other.resource_request) for other in (*rest, *held)][:_MOST_SETS]
    return any(
        limits.gpus - gpus < sum(some) <= limits.gpus
        for count in range(len(sizes) + 1)
        for some in combinations(sizes, count)
        if any(sizes[: len(rest)])
    )
