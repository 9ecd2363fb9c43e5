"""One attack, with all checks."""

from collections.abc import Callable
from random import Random
from typing import Final

from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.transitions import Transition
from scripts.adversary.answers import check_positions, check_reasons, check_waits
from scripts.adversary.attack import Attack
from scripts.adversary.capacity import (
    check_capacity,
    check_limits,
    check_nodes,
    check_nothing_is_left,
)
from scripts.adversary.delays import check_delays
from scripts.adversary.order import check_order
from scripts.adversary.preemptions import check_preemptions
from scripts.adversary.worlds import world_of

CHECKS: Final[tuple[Callable[[Attack, Transition], None], ...]] = (
    lambda attack, _: check_capacity(attack),
    lambda attack, _: check_limits(attack),
    check_nodes,
    check_order,
    check_delays,
    check_preemptions,
    lambda attack, _: check_positions(attack),
    lambda attack, _: check_reasons(attack),
    lambda attack, _: check_waits(attack),
    lambda attack, _: check_restart(attack),
)


class Broken(AssertionError):
    """Something that must hold does not; the message tells the story."""


def check_restart(attack: Attack) -> None:
    """A coordinator that starts again places nobody, and tells the same."""
    twin = attack.twin()
    with twin.changing():
        step = twin.tick()
    now = attack.now
    due = {job.job_id for job in attack.scheduler.waiting.due(now)}
    changed = [
        job.job_id
        for job in step.changed
        if job.job_id not in due and job.status is Status.SCHEDULING and not due
    ]
    assert not changed, f"after a restart, {changed} start"


def attack(seed: int, *, steps: int) -> Attack:
    """Attack with so many steps. Raises Broken."""
    found = Attack(seed, world_of(Random(seed)), _check_all)
    try:
        for _ in range(steps):
            found.step()
        found.finish()
        check_nothing_is_left(found)
    except Exception as error:
        world = found.world
        story = "\n".join(found.story)
        raise Broken(
            f"seed {seed}: {error}\n{story}\n{world.nodes}\n{world.rules}\n{world.topology=}"
        ) from error
    return found


def _check_all(attack: Attack, step: Transition) -> None:
    for check in CHECKS:
        check(attack, step)
