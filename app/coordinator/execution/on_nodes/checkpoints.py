"""The checkpoints that a part of a run writes on its node, brought to the drive."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.execution.bucket.newest_run import require_newest_run
from app.coordinator.execution.bucket.parts import NodeEnd, RunParts
from app.coordinator.execution.checkpoints import CheckpointFinder, has_unfinished
from app.coordinator.execution.on_nodes.holding import held
from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.model import Checkpoint, JobRecord
from app.files.directory import Directory, LimitReached, NotARegularFile
from app.files.json_files import read_json, write_json
from app.files.walking import ChangedMeanwhile, Limits
from app.objects.store import ChangedObject

#: Which checkpoints are away, in the run's directory.
_AWAY: Final = "away.json"
#: Where one is held while it is on the way, there.
_HELD: Final = "held"
#: Which of them this node has published or begun to, and how often anew.
_VERSIONS: Final = "versions.json"
#: Names of all that the run has had here, published or not, where others have parts.
_SEEN: Final = "seen.json"
#: Seconds for which a tree that other nodes have a part of must be known here before the node says
#: that it has nothing of it: a script whose ranks do not wait for one another may be late.
_SETTLED: Final = 10.0
#: Seconds between two looks at what other nodes have: each asks the store.
_OTHERS: Final = 4.0

log = structlog.get_logger("scaimind.coordinator")


class NodeCheckpoints:
    """Brings them away. Blocks: call it in a thread, one call at a time.

    Each node publishes its part, below keys that no other run and no other node
    writes; the coordinator has it count. Of a run on several nodes, each says
    besides where it has none and never had one.
    """

    def __init__(
        self,
        *,
        directory: Path,
        bucket: BucketDrive,
        workspace: Workspace,
        limits: Limits,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`directory` is the run's, and `limits` those of what one node has of a checkpoint."""
        self._directory = directory
        self._bucket = bucket
        self._workspace = workspace
        self._limits = limits
        self._clock = clock
        self._monotonic = monotonic
        self._finder: CheckpointFinder | None = None
        self._known: tuple[Checkpoint, ...] = ()
        #: None before the first look.
        self._seen: set[str] | None = None
        #: Since when other nodes' trees are known of which there is none here.
        self._missing: dict[str, float] = {}
        self._next_look = monotonic()

    def note_present(self, job: JobRecord) -> None:
        """Note that the checkpoint that the run goes on from need not be brought away again."""
        finder = CheckpointFinder(keep=0, clock=self._clock)
        self._known = self._workspace.checkpoints(replace(job, checkpoints=()), finder)
        away = {each.checkpoint_id: _content(each) for each in self._known}
        write_json(self._directory / _AWAY, away)

    def publish(self, part: RunPart, abandoned: threading.Event, *, last: bool) -> None:
        """Bring away what is new among them, the oldest first. `last` is when the run has ended.

        Raises CannotLaunch if another run has begun, Abandoned, OSError.
        """
        job = part.job
        if self._finder is None:
            keep = job.submission.output_config.max_checkpoints
            self._finder = CheckpointFinder(keep=keep, clock=self._clock)
        self._known = self._workspace.checkpoints(
            replace(job, checkpoints=self._known), self._finder, last=last
        )
        self._tell(job, self._finder)
        if part.count > 1:
            self._note_seen(self._finder)
        away = read_json(self._directory / _AWAY) or {}
        for checkpoint in self._known:
            name, content = checkpoint.checkpoint_id, _content(checkpoint)
            if away.get(name) == content:
                continue
            try:
                with (
                    self._workspace.open_checkpoints(job) as found,
                    held(found, name, self._directory / _HELD, self._limits) as source,
                ):
                    self._bring(part, source, name, content, abandoned)
            except (
                *(FileNotFoundError, NotADirectoryError, NotARegularFile),
                *(ChangedMeanwhile, ChangedObject),
            ):
                # The job has removed it, or writes it anew: the next look finds what is there.
                continue
            except LimitReached as error:
                self._finder.notes.append(
                    f"The checkpoint {name} is not brought away: {error.strerror}."
                )
            away[name] = content
            write_json(self._directory / _AWAY, away)
        if self._finder.leftovers:
            self._workspace.remove_leftovers(job)
        if part.count > 1:
            with self._workspace.open_checkpoints(job) as source:
                self._say_the_rest(part, source, last=last)

    def _note_seen(self, finder: CheckpointFinder) -> None:
        """Note what is here or was a moment ago: of what is gone before it is away, other nodes
        may have parts, which are no whole without this one's."""
        if self._seen is None:
            self._seen = set((read_json(self._directory / _SEEN) or {}).get("names", ()))
        names = {*(each.checkpoint_id for each in self._known), *finder.set_aside}
        if not names <= self._seen:
            self._seen |= names
            write_json(self._directory / _SEEN, {"names": sorted(self._seen)})

    def _bring(
        self,
        part: RunPart,
        source: Directory,
        name: str,
        content: str,
        abandoned: threading.Event,
    ) -> None:
        job = part.job
        require_newest_run(self._bucket, job)
        self._parts(job).publish(
            source,
            name,
            abandoned,
            node=part.number,
            limits=self._limits,
            version=self._version(name, content),
        )

    def _version(self, name: str, content: str) -> int:
        """Return how often the run had written a checkpoint before, on this node."""
        versions = read_json(self._directory / _VERSIONS) or {}
        before, version = versions.get(name, (content, 0))
        if before != content:
            version += 1
        versions[name] = (content, version)
        # Before any of it is in the store: whoever goes on from here writes there again.
        write_json(self._directory / _VERSIONS, versions)
        return int(version)

    def _say_the_rest(self, part: RunPart, source: Directory, *, last: bool) -> None:
        """Say of which trees of other nodes this one has no part."""
        now = self._monotonic()
        if now < self._next_look and not last:
            return
        self._next_look = now + _OTHERS
        parts = self._parts(part.job)
        records = parts.records().parts
        own = {name for name, nodes in records.items() if part.number in nodes}
        had = self._seen or set()
        unfinished = has_unfinished(source)
        if last:
            parts.say_ended(part.number, NodeEnd(unfinished, frozenset(had - own)))
            return
        for name in sorted(
            records.keys() - own - had,
            key=lambda name: min(record.modified for record in records[name].values()),
        ):
            since = self._missing.setdefault(name, now)
            # What was unfinished a moment ago has its name by now.
            if now - since >= _SETTLED and not unfinished and not source.exists(name):
                parts.say_nothing(name, node=part.number)

    def _parts(self, job: JobRecord) -> RunParts:
        trees = self._bucket.checkpoints(job.tenant_id, job.job_id)
        return RunParts(self._bucket.store, trees.prefix, job.run_count)

    def _tell(self, job: JobRecord, finder: CheckpointFinder) -> None:
        """Log what a look has found: the job's log is the runner's meanwhile."""
        for note in finder.notes:
            log.warning("checkpoints_noted", job_id=job.job_id, reason=note)
        finder.notes.clear()


def _content(checkpoint: Checkpoint) -> str:
    """Return what tells a checkpoint's content apart, whoever owns its files."""
    return ":".join(checkpoint.identity.split(":")[:2])
