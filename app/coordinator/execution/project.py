"""A run's own copy of the working directory that its job names: a folder, or an archive of one."""

import threading
from contextlib import suppress
from typing import Final

from app.coordinator.data.archives.unpacked_tar import BadArchive
from app.coordinator.data.archives.unpacking import Unpacker
from app.coordinator.data.drive import BadUrl, Drive, shown
from app.coordinator.execution.inputs import access_of
from app.coordinator.jobs.model import JobRecord, Program
from app.coordinator.submission.program import is_archive
from app.files.copying import Report, copy_tree
from app.files.directory import Directory, LimitReached, NotARegularFile
from app.files.names import printable
from app.files.removing import remove_tree
from app.files.walking import ChangedMeanwhile, Limits, Position
from app.shortening import quoted

#: Names of what was left out that a job's log has.
_NAMED: Final = 20


class Projects:
    """Makes the copies. Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(self, *, drive: Drive, unpacker: Unpacker, limits: Limits) -> None:
        """`limits` are those of one copy, and of what `unpacker` unpacks."""
        self._drive = drive
        self._unpacker = unpacker
        self._limits = limits

    def place(
        self,
        job: JobRecord,
        program: Program,
        own: Directory,
        name: str,
        abandoned: threading.Event,
    ) -> str:
        """Make the copy as `name` in the job's directory, in the place of an earlier one.

        Returns a line for the job's log about what was left out, or an empty
        text. Raises BadUrl for what the job's owner can change, Abandoned,
        OSError.
        """
        remove_tree(own, name)
        try:
            with own.make_directory(name) as project:
                left_out = self._fill(project, job, program.working_dir, abandoned)
                for path in filter(None, (program.script, program.requirements)):
                    _require_file(project, path)
        except BaseException:
            # It may have filled the disk.
            with suppress(OSError):
                remove_tree(own, name)
            raise
        return left_out

    def _fill(
        self, project: Directory, job: JobRecord, url: str, abandoned: threading.Event
    ) -> str:
        files = self._drive.filesystem(access_of(job))
        try:
            if is_archive(url):
                with files.open(url) as archive:
                    self._unpacker.unpack(archive, project, abandoned)
                return ""
            with self._drive.place(access_of(job), url).open() as opened:
                try:
                    folder = opened.open_directory()
                except NotADirectoryError:
                    raise BadUrl(f"{shown(url)} is not a directory") from None
            with folder:
                return _told(copy_tree(folder, project, abandoned, limits=self._limits))
        except BadArchive as error:
            raise BadUrl(f"{shown(url)} is not unpacked: {error}.") from None
        except LimitReached as error:
            raise BadUrl(
                f"{shown(url)} is too large for a working directory: {error.strerror}"
                " (settings working_dir_bytes, working_dir_files). Data belong into"
                " data_config.sources."
            ) from None
        except ChangedMeanwhile:
            raise BadUrl(f"{shown(url)} was changed while it was copied; submit it again") from None


def _require_file(project: Directory, path: str) -> None:
    """Raise BadUrl unless the copy has this file."""
    *folders, name = path.split("/")
    try:
        with Position(project) as position:
            for folder in folders:
                position.descend(folder)
            position.directory.open_file(name).close()
    except (FileNotFoundError, NotADirectoryError, NotARegularFile):
        raise BadUrl(
            f"{quoted(path)} is not a file in the working directory; links are not copied"
        ) from None


def _told(report: Report) -> str:
    """Return what was left out, as a line for the job's log."""
    if not report.left_out_count:
        return ""
    named = [f"{printable(each.path)} ({each.what})" for each in report.left_out[:_NAMED]]
    more = report.left_out_count - len(named)
    return (
        "Left out of the working directory, of which only regular files and directories are"
        f" copied: {', '.join(named)}{f' and {more} more' if more else ''}."
    )
