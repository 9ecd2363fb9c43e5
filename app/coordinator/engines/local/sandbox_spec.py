"""What the runner is told of a run's sandbox: its level, its user, and what it shows."""

import os
import pwd
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from app.coordinator.isolation.devices import GpuDevice, device_files
from app.coordinator.isolation.levels import Isolation, Level
from app.coordinator.isolation.uids import JobUids
from app.coordinator.jobs.model import JobRecord
from app.coordinator.storage.job_directory import RunDir

#: Characters of TMPDIR from which on a Unix socket in it may have too long a path: those end at
#: 108 bytes, and Python's multiprocessing needs some 40 of them.
_LONG: Final = 60


class SandboxSpecs:
    """Makes the section `isolation` of runs' specifications. Blocks shortly."""

    def __init__(
        self,
        *,
        isolation: Isolation,
        uids: JobUids | None,
        share_network: bool,
        gpus: tuple[GpuDevice, ...],
        roots: tuple[Path, ...],
    ) -> None:
        """`uids` are given where jobs have users of their own; `roots` are the directories of
        the coordinator's own that jobs' inputs may be in."""
        self._isolation = isolation
        self._uids = uids
        self._share_network = share_network
        self._gpus = gpus
        self._roots = [str(root) for root in roots]

    @property
    def _namespaces(self) -> bool:
        return self._isolation.level is Level.NAMESPACES

    def of(
        self,
        job: JobRecord,
        run: RunDir,
        *,
        gpus: list[int],
        readable: Iterable[str],
        reached: Iterable[str] = (),
    ) -> dict[str, Any]:
        """The section for a run that is about to begin, and holds `gpus` of this machine.

        `readable` is what it is to read of its own, `reached` what it could read if it
        came near. Raises OSError.
        """
        temporary = run.job.temporary
        link = ""
        if not self._namespaces and len(os.fsencode(temporary)) > _LONG:
            link = f"{tempfile.gettempdir()}/scaimind-{secrets.token_hex(8)}"
        return {
            **self._isolation.section(
                uid=self._uids.take(run.path) if self._uids is not None else None,
                network=self._share_network or job.resource_request.nodes > 1,
                shared_memory=job.resource_request.memory or _half_of_memory(),
            ),
            "temporary": str(temporary),
            # A short name for it, made for the run; empty without one.
            "temporary_link": link,
            "devices": device_files(self._gpus, gpus),
            "opened": list(readable),
            "reached": list(reached),
            "roots": self._roots,
        }

    @contextmanager
    def held_uid(self, section: dict[str, Any]) -> Iterator[tuple[int, ...]]:
        """The descriptor that holds the user id of a section which `of` has made, for the process
        that holds it from then on; none if there is no such id."""
        if self._uids is None:
            yield ()
            return
        with self._uids.pass_on(section["uid"]) as files:
            yield files

    def give_up(self, run: RunDir) -> None:
        """Free what `of` has taken for a run that did not begin. On a full disk it stays taken
        until the run is tried again."""
        if self._uids is not None:
            with suppress(OSError):
                self._uids.give_up(run.path)

    def variables(self, section: dict[str, Any]) -> dict[str, str]:
        """What the sandbox adds to each rank's environment."""
        if self._namespaces:
            return {"TMPDIR": "/tmp"}
        variables = {"TMPDIR": section["temporary_link"] or section["temporary"]}
        if not _has_name(os.geteuid() if section["uid"] is None else section["uid"]):
            variables |= {"USER": "job", "LOGNAME": "job"}
        return variables

    def visible_gpus(self, indices: Iterable[int]) -> str:
        """CUDA_VISIBLE_DEVICES. Where only a job's own GPUs are there, their indices are others
        than those of the machine, and their UUIDs are the same."""
        if self._namespaces and self._gpus:
            return ",".join(self._gpus[index].uuid for index in indices)
        return ",".join(map(str, indices))


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
