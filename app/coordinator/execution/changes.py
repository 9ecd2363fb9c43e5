"""Applies changes to jobs: all of one is stored and then set going, or nothing has happened."""

import contextvars
import sqlite3
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import structlog

from app.coordinator.execution.decisions import decisions_in
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.states import RETRYABLE, TERMINAL, Status
from app.coordinator.jobs.store import Store
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import Instruction, Transition
from app.coordinator.storage.disk_reserve import DiskReserve

T = TypeVar("T")
#: A change of jobs, made of the scheduler's events and requests. Returns the transition that they
#: recorded and what its caller wants to know; or raises. It may change nothing by another way.
Change: TypeAlias = Callable[[Scheduler], tuple[Transition, T]]

log = structlog.get_logger("scaimind.coordinator")


class JobChanges:
    """Changes the scheduler and the store together. Everything runs on one event loop."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        store: Store,
        reserve: DiskReserve,
        secrets: JobSecrets,
        job_events: JobEvents,
        carry_out: Callable[[Instruction], None],
        hand_over: Callable[[Instruction, Exception], None],
    ) -> None:
        """`carry_out` begins what an instruction says. Where it raises, `hand_over` leaves the
        instruction and what was raised to the job's owner."""
        self._scheduler = scheduler
        self._store = store
        self._reserve = reserve
        self._secrets = secrets
        self._job_events = job_events
        self._carry_out = carry_out
        self._hand_over = hand_over

    def apply(self, change: Change[T], *, also: Callable[[], None] | None = None) -> T:
        """Change jobs, and return what `change` returns for its caller.

        What `change` does is stored, with `also` in the same transaction, and
        then set going. If `change`, `also` or the store raises, memory and disk
        are as before, whatever `change` had done already, and nothing is set
        going. From then on nothing raises: what cannot be carried out is its
        job's owner's. `change` and `also` must not call this; that raises
        RuntimeError. Raises what they raise, and sqlite3.Error.
        """
        with self._scheduler.changing() as transition:
            returned, result = change(self._scheduler)
            if returned is not transition:
                raise RuntimeError("a change returns the transition that its scheduler recorded")
            self._save(transition, also)
        # What a request sets going outlives it and may be another tenant's: not for its trace.
        contextvars.Context().run(self._set_going, transition)
        self._announce(transition)
        return result

    def forget(self, job: JobRecord, *, now: int) -> bool:
        """Delete a job that has ended, so that it stays deleted after a power cut; whether it was
        there. Its watchers are woken. Raises sqlite3.Error."""
        deleted = self._with_reserve(lambda: self._delete(job, now))
        if deleted:
            self.forget_secrets(job.job_id)
            self._job_events.wake(job.job_id)
        return deleted

    def _delete(self, job: JobRecord, now: int) -> bool:
        with self._store.transaction(durable=True):
            return self._store.delete_job(job.tenant_id, job.job_id, now=now)

    def redescribe(self, job: JobRecord) -> None:
        """Store a job that has ended, with another name and labels. Raises sqlite3.Error."""

        def save() -> None:
            with self._store.transaction():
                self._store.save_jobs([job])
                self._store.save_submission(job)

        self._with_reserve(save)

    def forget_secrets(self, job_id: str) -> None:
        """Remove what a job was given that must not outlive it; the next start tries again."""
        try:
            self._secrets.forget(job_id)
        except OSError as error:
            log.error("secrets_not_removed", job_id=job_id, reason=error.strerror)

    def _save(self, transition: Transition, also: Callable[[], None] | None) -> None:
        self._with_reserve(lambda: self._store_all(transition, also))

    def _with_reserve(self, store: Callable[[], T]) -> T:
        """Store something, in the room that is kept aside if there is no other. Raises what
        `store` does."""
        try:
            return store()
        except sqlite3.OperationalError:
            if not self._reserve.release():
                raise
            log.warning("disk_reserve_released")
            return store()

    def _store_all(self, transition: Transition, also: Callable[[], None] | None) -> None:
        newest = transition.newest()
        with self._store.transaction():
            self._store.save_jobs(newest.values())
            for job_id, job in newest.items():
                self._store.save_checkpoints(transition.before[job_id], job)
            for node_id in transition.drained:
                self._store.save_drain(node_id, self._scheduler.cluster.nodes[node_id].drain)
            if also is not None:
                also()

    def _set_going(self, transition: Transition) -> None:
        for instruction in transition.instructions:
            try:
                self._carry_out(instruction)
            except Exception as error:  # the change has happened; its job's owner decides
                log.error(
                    "instruction_not_carried_out",
                    instruction=type(instruction).__name__,
                    job_id=instruction.job_id,
                    exc_info=error,
                )
                self._hand_over(instruction, error)

    def _announce(self, transition: Transition) -> None:
        """Report what has changed to watchers, to the log and to the audit trail."""
        said = {job_id: _said(job) for job_id, job in transition.before.items()}
        if any(job.status in TERMINAL for job in transition.changed):
            self._reserve.fill()
        for job in transition.changed:
            if job.status in TERMINAL - RETRYABLE:
                self.forget_secrets(job.job_id)
            if _said(job) != said.get(job.job_id):
                said[job.job_id] = _said(job)
                self._job_events.announce(job)
                log.info(
                    "job_changed",
                    job_id=job.job_id,
                    tenant_id=job.tenant_id,
                    status=job.status.name,
                    message=job.message,
                )
        for decision in decisions_in(transition):
            decision.write()


def _said(job: JobRecord | None) -> tuple[Status, str] | None:
    """Return what watchers are told of a job."""
    return (job.status, job.message) if job is not None else None
