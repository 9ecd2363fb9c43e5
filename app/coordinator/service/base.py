"""What the calls of the service have in common: whose job, which job, and storing what is asked."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

import structlog
from google.protobuf.message import Message

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.data.cache import DataCache
from app.coordinator.data.drive import BadUrl, Drive
from app.coordinator.data.turns import Turns
from app.coordinator.data.validation_pool import ValidationPool
from app.coordinator.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Overloaded,
    Unavailable,
)
from app.coordinator.execution.changes import Change, T
from app.coordinator.execution.controller import Controller
from app.coordinator.execution.workspace import Workspace
from app.coordinator.failures import LeadershipLost, StoreUnavailable, is_passing, reason_of
from app.coordinator.identity.access import Access
from app.coordinator.identity.peer import Peer
from app.coordinator.identity.tokens import Admission
from app.coordinator.jobs.changes.reader import ChangeReader
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.lister import JobLister
from app.coordinator.jobs.model import JobRecord, checkpoint_url
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.states import TERMINAL, WAITING
from app.coordinator.jobs.store import Store, UsedKey, digest_of
from app.coordinator.logs.damage_log import DamageLog
from app.coordinator.retention.deletion import JobDeletion
from app.coordinator.scheduling.cluster_view import ClusterView
from app.coordinator.scheduling.queues.waiting import MOST_NAMES
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import Transition
from app.coordinator.service.logs.search import LogSearches
from app.coordinator.storage.free_space import FreeSpace
from app.coordinator.submission.program import PackageRules
from app.coordinator.submission.resources import with_run_time
from app.coordinator.submission.tenancy import Tenancy
from app.coordinator.trainers.asking import Trainers
from app.shortening import quoted
from generated.mindcoordinator.v1 import coordinator_pb2_grpc

_KEY_LIFE: Final = 24 * 3600 * 1_000_000
_MAX_KEY: Final = 256

R = TypeVar("R")

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the service works with."""

    controller: Controller
    deletion: JobDeletion
    store: Store
    workspace: Workspace
    secrets: JobSecrets
    job_events: JobEvents
    change_reader: ChangeReader
    lister: JobLister
    drive: Drive
    cache: DataCache
    admission: Admission
    validation_pool: ValidationPool
    log_searches: LogSearches
    #: Measures this machine's GPUs.
    gpus: GpuMeter
    #: Whose jobs are taken up.
    tenancy: Tenancy
    free_space: FreeSpace
    #: Which packages jobs may ask for.
    packages: PackageRules
    #: What trains language models.
    trainers: Trainers
    #: Microseconds since 1970.
    clock: Callable[[], int]
    damage: DamageLog = field(default_factory=DamageLog)
    #: Whose pages of a log are filtered at the moment, in threads that other calls need as well.
    filtered_pages: Turns = field(default_factory=lambda: Turns(places=4, room=128))


class Calls(coordinator_pb2_grpc.MindCoordinatorServicer):
    """A group of the service's calls. The interceptor checks the secret and turns what is raised
    into a status."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._controller = parts.controller
        self._scheduler = parts.controller.scheduler
        self._store = parts.store
        self._view = ClusterView(
            self._scheduler,
            gpus=parts.gpus,
            clock=parts.clock,
            commits=lambda: parts.job_events.commits,
        )

    def _job(self, peer: Peer, job_id: str) -> JobRecord:
        """A job of the caller's tenant. Raises NotFound."""
        job = self._scheduler.jobs.get(job_id) or self._store.job(peer.tenant_id, job_id)
        if job is None or job.tenant_id != peer.tenant_id:
            raise NotFound("the job does not exist")
        return job

    @contextmanager
    def _while_there(self, peer: Peer, job_id: str) -> Iterator[None]:
        """Raise NotFound where a job's files are not there, since it was deleted meanwhile."""
        try:
            yield
        except FileNotFoundError:
            self._job(peer, job_id)
            raise

    def _unended(self, peer: Peer, job_id: str, done: str) -> JobRecord:
        """A job that has not ended. Raises NotFound, FailedPrecondition."""
        job = self._job(peer, job_id)
        if job.status in TERMINAL:
            raise FailedPrecondition(f"the job is {job.status.name} and cannot be {done}")
        return job

    async def _ask_drive(self, work: Callable[[], R]) -> R:
        """What a check of the drive returns.

        It takes a while where the drive is a store elsewhere: whatever was looked up before
        has to be looked up again.
        """
        if (asking := self._parts.drive.asking) is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(asking, work)

    async def _checkpoint_url(self, job: JobRecord, checkpoint_id: str) -> str:
        """The URL of any checkpoint of a job that is kept and there. Raises FailedPrecondition."""
        url = self._kept_checkpoint_url(job, checkpoint_id)
        await self._ask_drive(lambda: self._check_checkpoint(job, url))
        return url

    def _check_checkpoint(self, job: JobRecord, url: str) -> None:
        try:
            self._parts.drive.check(Access(job.tenant_id), url)
        except BadUrl as error:
            raise FailedPrecondition(
                f"checkpoint_id: {error}; name another of the job's checkpoints"
            ) from None

    def _kept_checkpoint_url(self, job: JobRecord, checkpoint_id: str) -> str:
        checkpoint = next(
            (each for each in job.checkpoints if each.checkpoint_id == checkpoint_id), None
        ) or self._store.checkpoint(job.job_id, checkpoint_id)
        if checkpoint is not None:
            return checkpoint_url(job, checkpoint)
        there = ", ".join(checkpoint.checkpoint_id for checkpoint in job.checkpoints[-5:])
        raise FailedPrecondition(
            f"checkpoint_id: the job has no checkpoint {quoted(checkpoint_id, 128)}; "
            + (f"its newest are {there}" if there else "it has none")
        )

    def _known_key(self, peer: Peer, key: str, request: Message) -> JobRecord | None:
        """The job that was made with an idempotency key. Raises AlreadyExists for another
        request."""
        if not key:
            return None
        if len(key) > _MAX_KEY:
            raise InvalidArgument("idempotency_key", f"must have at most {_MAX_KEY} characters")
        scoped = _scoped(key, peer.user_id, request)
        used = self._store.find_key(peer.tenant_id, scoped, since=self._parts.clock() - _KEY_LIFE)
        if used is None:
            return None
        if used.request_digest != digest_of(request):
            raise AlreadyExists(
                "idempotency_key: it was used for a different request in the last 24 hours; use a"
                " new key"
            )
        try:
            return self._job(peer, used.job_id)
        except NotFound:
            raise AlreadyExists(
                f"idempotency_key: it was used in the last 24 hours for {used.job_id}, which has"
                " been deleted; use a new key"
            ) from None

    def _submit(
        self,
        job: JobRecord,
        request: Message,
        *,
        key: str = "",
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> JobRecord:
        """Take up a new job; `secrets` is what is masked in its submission.

        Raises Overloaded; FailedPrecondition if its tenant is not served here.
        """
        self._check_takes_job(job)
        job = with_run_time(job, self._scheduler.rules)

        def also() -> None:
            self._store.save_search(job)
            if key:
                now = self._parts.clock()
                used = UsedKey(digest_of(request), job.job_id)
                scoped = _scoped(key, job.user_id, request)
                self._store.save_key(job.tenant_id, scoped, used, now=now, since=now - _KEY_LIFE)

        def submit(scheduler: Scheduler) -> tuple[Transition, JobRecord]:
            transition = scheduler.submit(job)
            return transition, transition.newest()[job.job_id]

        try:
            self._make_directory(job, secrets)
            taken_up = self._apply(submit, also=also)
        except LeadershipLost:
            # Whoever leads next may find it stored, and goes on with what is there.
            raise
        except Exception:
            if job.job_id not in self._scheduler.jobs:
                self._discard(job)
            raise
        self._parts.tenancy.accepted(job.tenant_id)
        return taken_up

    def _check_takes_job(self, job: JobRecord) -> None:
        """Raise RequestError where no new job of its tenant is taken up, whatever it asks for, and
        for one that its queue's or its tenant's limit would keep from ever starting."""
        self._controller.check_leads()
        self._parts.tenancy.check(job.tenant_id)
        self._parts.free_space.check(job.tenant_id)
        if limit := self._scheduler.rules.never(job):
            raise FailedPrecondition(f"resource_config: {limit}; the job could never start")
        if not self._scheduler.waiting.has_room(job):
            raise Overloaded(
                f"scheduling_config.queue_name: jobs of the tenant wait in {MOST_NAMES} queues that"
                " no rule names, which is the most; use one of these, or submit the job later"
            )

    def _make_directory(self, job: JobRecord, secrets: Mapping[str, str]) -> None:
        """Make what a new job has on the disk. Raises Overloaded, LeadershipLost."""
        self._controller.check_leads()
        try:
            self._parts.workspace.create(job.job_id)
            # Before the job is there: it may begin at once. The next start removes what is kept
            # of a job that is not there.
            self._parts.secrets.keep(job.job_id, secrets)
        except OSError as error:
            raise Overloaded(f"the job's directory cannot be created: {error.strerror}") from None

    def _discard(self, job: JobRecord) -> None:
        """Remove what a job has on the disk that was not taken up."""
        for remove in (self._parts.secrets.forget, self._parts.workspace.discard):
            with suppress(OSError):
                remove(job.job_id)

    def _wait_of(self, job: JobRecord) -> int:
        """Seconds until a job is expected to start; 0 if it waits for nothing."""
        if job.status not in WAITING:
            return 0
        try:
            return self._scheduler.wait_of(job, self._scheduler.forecast())
        except Exception as error:  # the job is there; an estimate is no reason to say it is not
            log.error("wait_not_estimated", job_id=job.job_id, exc_info=error)
            return 0

    def _apply(self, change: Change[T], *, also: Callable[[], None] | None = None) -> T:
        """Change jobs. Raises Overloaded, and what the change does."""
        with self._storing():
            return self._controller.apply(change, also=also)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Raise Overloaded or Unavailable in place of a failure that passes."""
        try:
            yield
        except StoreUnavailable:
            raise Unavailable(
                "the coordinator cannot store the change: its database is away; try again later"
            ) from None
        except Exception as error:
            if not is_passing(error):
                raise
            raise Overloaded(
                f"the coordinator cannot store the change: {reason_of(error)}; try again later"
            ) from None

    def _change(self, job: JobRecord, request: Callable[[Scheduler], Transition]) -> JobRecord:
        """Apply a request about one job, and return the job as it is then. Raises Overloaded, and
        what the request does."""

        def change(scheduler: Scheduler) -> tuple[Transition, JobRecord]:
            transition = request(scheduler)
            return transition, transition.newest().get(job.job_id, job)

        return self._apply(change)


def _scoped(key: str, user_id: str, request: Message) -> str:
    """An idempotency key as it is stored: each user has keys of their own, and so has each call.

    No user id has a line break in it.
    """
    return f"{request.DESCRIPTOR.name}\n{user_id}\n{key}"


_DEFAULT: Final = 20


_MAX: Final = 100


def page_size(asked: int) -> int:
    """The size of a page. Raises InvalidArgument."""
    if not 0 <= asked <= _MAX:
        raise InvalidArgument("page_size", f"must be from 1 to {_MAX}, or 0 for {_DEFAULT}")
    return asked or _DEFAULT
