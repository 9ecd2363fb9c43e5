"""What the gateway knows of the states of a tenant's jobs, by the version of their last change."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.hub.selection.states import JobChange, JobState, NodeState, StatesBatch


@dataclass(frozen=True, slots=True)
class Taken:
    """What a batch has changed."""

    changes: Sequence[JobChange] = ()
    #: Jobs that the record knows no more after these changes, though they are still there.
    forgotten: Collection[str] = ()
    #: The record is another one now: all that was known before is void.
    reset: bool = False


class TenantRecord:
    """The states of a tenant's jobs, as the coordinator's stream brings them.

    Holds at most `most` jobs: beyond that, those that ended first are
    forgotten. Of deletions it knows those behind `floor`.
    """

    #: Deletions that are kept.
    DELETIONS = 10_000

    def __init__(self, *, most: int) -> None:
        self._most = most
        self.epoch = ""
        #: Every change up to here was taken.
        self.version = 0
        #: All deletions behind this version are known.
        self.floor = 0
        #: How often the record became another one; 0 before it was complete for the first time.
        self.generation = 0
        #: The latest end of a job that was forgotten, seconds since 1970.
        self.forgotten_until: float | None = None
        #: The latest change of a job that was forgotten.
        self.forgotten_version = 0
        # By the version of the last change: a job that changes goes to the end.
        self._jobs: dict[str, JobChange] = {}
        self._deleted: dict[str, int] = {}
        #: The whole state, while it arrives, and its epoch.
        self._arriving: dict[str, JobChange] | None = None
        self._arriving_epoch = ""
        #: Whether more of those that have arrived are unfinished than it may hold.
        self._arriving_crowded = False
        #: Those known before that are there, but too many for it.
        self._arriving_forgotten: set[str] = set()
        #: Newest nodes and queue, each with the number of its change.
        self.nodes: dict[str, tuple[int, bytes]] = {}
        self.queue: tuple[int, bytes] | None = None
        self.cluster_changes = 0

    # What the upstream sends

    def take(self, batch: StatesBatch) -> Taken:
        """Take a batch, and return what has changed by it."""
        if batch.start is not None:
            self._arriving = {} if batch.start.reset else None
            self._arriving_epoch = batch.start.epoch
            self._arriving_crowded = False
            self._arriving_forgotten = set()
            if batch.start.epoch != self.epoch:
                self.forgotten_version = 0
        taken = Taken()
        if self._arriving is not None:
            self._collect(self._arriving, batch.changes)
            if batch.synced is not None:
                taken = self._complete(self._arriving, batch.synced)
                self._arriving = None
        else:
            for change in batch.changes:
                self._apply(change)
            taken = Taken(batch.changes)
            if batch.synced is not None:
                self.version = max(self.version, batch.synced)
        self._take_cluster(batch.nodes, batch.queue)
        forgotten = self._forget(self._jobs)
        return replace(taken, forgotten=[*taken.forgotten, *forgotten]) if forgotten else taken

    def learn_deletions(self, after: int, until: int, deleted: Mapping[str, int]) -> bool:
        """Take the deletions between two versions from another stream of the same epoch.

        `deleted` has the version by job; those that this record saw are passed
        over. Returns whether all deletions behind `after` are known now: not
        if they are too many, or if some behind `until` are missing here.
        """
        if until < self.floor:
            return False
        # What is newer than the record will come from its own stream.
        found = {
            job_id: version
            for job_id, version in deleted.items()
            if version <= self.version and job_id not in self._jobs
        }
        self._deleted = dict(
            sorted((found | self._deleted).items(), key=lambda deletion: deletion[1])
        )
        self.floor = min(self.floor, after)
        self._bound_deletions()
        return self.floor <= after

    def _collect(self, arriving: dict[str, JobChange], changes: Iterable[JobChange]) -> None:
        for change in changes:
            arriving.pop(change.job_id, None)
            self._arriving_forgotten.discard(change.job_id)
            if change.state is not None:
                arriving[change.job_id] = change
        if len(arriving) > self._most + self._most // 4:
            # What is left of too many makes room for a quarter more, so that this is rare.
            self._arriving_forgotten.update(
                job_id for job_id in self._forget(arriving) if job_id in self._jobs
            )
            self._arriving_crowded = len(arriving) > self._most

    def _complete(self, arrived: dict[str, JobChange], version: int) -> Taken:
        """Put the whole state that has arrived in place of what was known."""
        before = self._jobs
        # One that went back, as to a copy of its store, is another record, whatever it is called.
        same = self._arriving_epoch == self.epoch and version >= self.version
        forgotten, self._arriving_forgotten = self._arriving_forgotten, set()
        self._jobs = arrived
        self.version = self.floor = version
        self._deleted.clear()
        if not same or not self.generation:
            self.epoch = self._arriving_epoch
            self.generation += 1
            return Taken(reset=True)
        changed = [
            change
            for job_id, change in arrived.items()
            if job_id not in before or before[job_id].version < change.version
        ]
        gone = [
            JobChange(version, job_id, None)
            for job_id in before
            if job_id not in arrived and job_id not in forgotten
        ]
        return Taken([*changed, *gone], forgotten)

    def _apply(self, change: JobChange) -> None:
        self.version = max(self.version, change.version)
        self._jobs.pop(change.job_id, None)
        self._deleted.pop(change.job_id, None)
        if change.state is not None:
            self._jobs[change.job_id] = change
        else:
            self._deleted[change.job_id] = change.version
            self._bound_deletions()

    def _bound_deletions(self) -> None:
        while len(self._deleted) > self.DELETIONS:
            oldest = next(iter(self._deleted))
            self.floor = max(self.floor, self._deleted.pop(oldest))

    def _forget(self, jobs: dict[str, JobChange]) -> list[str]:
        """Forget the jobs that ended first where there are too many, several at a time.

        Returns which.
        """
        if len(jobs) <= self._most:
            return []
        ended = sorted(
            (change.state.ended_at, job_id)
            for job_id, change in jobs.items()
            if change.state is not None and change.state.ended_at is not None
        )
        first = ended[: len(jobs) - self._most + self._most // 20]
        for ended_at, job_id in first:
            self.forgotten_version = max(self.forgotten_version, jobs.pop(job_id).version)
            self.forgotten_until = max(self.forgotten_until or ended_at, ended_at)
        return [job_id for _, job_id in first]

    def _take_cluster(self, nodes: Iterable[NodeState], queue: bytes | None) -> None:
        for node in nodes:
            # A stream that was opened anew tells of all again.
            if node.node_id in self.nodes and self.nodes[node.node_id][1] == node.data:
                continue
            self.cluster_changes += 1
            self.nodes.pop(node.node_id, None)
            self.nodes[node.node_id] = (self.cluster_changes, node.data)
        if queue is not None and (self.queue is None or self.queue[1] != queue):
            self.cluster_changes += 1
            self.queue = (self.cluster_changes, queue)

    # What is known

    @property
    def complete(self) -> bool:
        """Whether the whole state has arrived once."""
        return self.generation > 0

    @property
    def crowded(self) -> bool:
        """Whether more jobs are unfinished than it may hold, also of a state that still arrives."""
        return self._arriving_crowded or len(self._jobs) > self._most

    def get(self, job_id: str) -> JobState | None:
        """Return a job's state; None if it is not there."""
        change = self._jobs.get(job_id)
        return None if change is None else change.state

    def __iter__(self) -> Iterator[JobChange]:
        """Iterate over all jobs, by the version of their last change."""
        return iter(self._jobs.values())

    def changes_since(self, version: int) -> list[JobChange]:
        """Return what changed behind a version, by version; deletions only from `floor` on."""
        found: list[JobChange] = []
        for change in reversed(self._jobs.values()):
            if change.version <= version:
                break
            found.append(change)
        for job_id, deleted_at in reversed(self._deleted.items()):
            if deleted_at <= version:
                break
            found.append(JobChange(deleted_at, job_id, None))
        return sorted(found, key=lambda change: change.version)

    def validate(self) -> None:
        """Check what must always hold; for tests."""
        versions = [change.version for change in self._jobs.values()]
        assert versions == sorted(versions)
        assert list(self._deleted.values()) == sorted(self._deleted.values())
        assert not self._jobs.keys() & self._deleted.keys()
        assert all(change.state is not None for change in self._jobs.values())
        assert max(versions, default=0) <= self.version
