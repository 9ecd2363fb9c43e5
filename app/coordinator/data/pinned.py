"""Data that are read in place, under names of the job's own.

`<drive>/.pinned/<job id>/<digest of the URL>/<name>` are hard links to the files that were
there when the job was prepared: what is replaced or deleted in the tenant's folder
meanwhile stays what the job reads. No tenant's name begins with a dot.
"""

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from app.coordinator.data.drive import Place
from app.files.copying import Abandoned
from app.files.directory import Directory, Kind, LimitReached
from app.files.removing import remove_tree
from app.files.walking import ChangedMeanwhile, Limits, Position, walk

_FOLDER: Final = ".pinned"
#: What the system answers where a file cannot have a second name.
_NO_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)

log = structlog.get_logger("scaimind.coordinator")


class PinnedFiles:
    """The jobs' own names. Blocks: call it in a thread."""

    def __init__(self, drive_root: Path) -> None:
        self._root = drive_root

    def open(self, *, running: Collection[str]) -> None:
        """Forget what a former coordinator left of all jobs but `running`.

        What cannot be removed is logged, and removed at the next start.
        """
        try:
            with (
                Directory.open(self._root, follow=True) as root,
                root.open_directory(_FOLDER) as pinned,
            ):
                left = [each.name for each in pinned.scan() if each.name not in running]
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("pinned_files_not_removed", reason=error.strerror)
            return
        for job_id in left:
            try:
                self.release(job_id)
            except OSError as error:
                log.warning("pinned_files_not_removed", job_id=job_id, reason=error.strerror)

    def pin(self, job_id: str, place: Place, abandoned: threading.Event) -> Path | None:
        """Return where the job reads what is at a place until `release`.

        None if that cannot be: on another file system, or for very many files.
        Raises BadUrl, Abandoned, OSError.
        """
        own = hashlib.sha256(place.url.encode()).hexdigest()[:16]
        try:
            with (
                Directory.open(self._root, follow=True) as root,
                root.make_directory(_FOLDER, exist_ok=True) as pinned,
                pinned.make_directory(job_id, exist_ok=True) as of_job,
            ):
                remove_tree(of_job, own)
                with of_job.make_directory(own) as target:
                    _link(place, target, abandoned)
        except (LimitReached, ChangedMeanwhile):
            return None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return None
        return self._root / _FOLDER / job_id / own / place.parts[-1]

    def release(self, job_id: str) -> None:
        """Forget the names of a job. Raises OSError."""
        with (
            suppress(FileNotFoundError),
            Directory.open(self._root, follow=True) as root,
            root.open_directory(_FOLDER) as pinned,
        ):
            remove_tree(pinned, job_id)


def _link(place: Place, target: Directory, abandoned: threading.Event) -> None:
    """Link the file, or all files of the directory, that is at a place."""
    name = place.parts[-1]
    with place.open() as opened:
        if not stat.S_ISDIR(opened.stat().st_mode):
            # The very file that is held, whatever is at its path by now.
            source = f"/proc/self/fd/{opened.descriptor}"
            os.link(source, name, dst_dir_fd=target.descriptor, follow_symlinks=True)
            return
        with (
            opened.open_directory() as top,
            target.make_directory(name) as copy,
            Position(copy) as position,
        ):
            for visit in walk(top, Limits()):
                if abandoned.is_set():
                    raise Abandoned
                if visit.entry.kind is Kind.DIRECTORY:
                    position.follow((*visit.parts, visit.entry.name))
                elif visit.entry.kind is Kind.FILE:
                    position.follow(visit.parts)
                    with suppress(FileNotFoundError):
                        visit.directory.link(visit.entry.name, position.directory, visit.entry.name)
