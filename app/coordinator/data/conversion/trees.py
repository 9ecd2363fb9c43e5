"""All artefacts of a job, file by file, in another format."""

import os
import stat
import tarfile
import threading
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from app.coordinator.data.conversion.errors import CannotConvert, naming
from app.coordinator.data.conversion.safetensors_conversion import CONVERTERS
from app.files.copying import Report, copy_open_file
from app.files.directory import Directory, Kind, NotARegularFile
from app.files.names import printable
from app.files.walking import Limits, Position, Visit, walk

TAR: Final = "tar.gz"
#: What an output can be exported as.
FORMATS: Final = (*CONVERTERS, TAR)
_ARCHIVE: Final = "model.tar.gz"
#: Bytes of holes that an archive's files may have together: it holds them as zeros.
_MAX_HOLES: Final = 64 * 1024**3
#: Characters of a path that a message has.
_SHOWN: Final = 160
#: Bytes of a file's name (NAME_MAX).
_MAX_NAME: Final = 255


def convert_tree(
    export_format: str, source: Directory, target: Directory, *, limits: Limits
) -> Report:
    """Fill `target`, which is empty, with the files of `source` in one of FORMATS.

    Links and special files are left out. Raises CannotConvert, which names the
    file, and OSError: LimitReached, ChangedMeanwhile.
    """
    if export_format == TAR:
        return _pack(source, target, limits)
    return _convert_arrays(export_format, source, target, limits)


def _convert_arrays(
    export_format: str, source: Directory, target: Directory, limits: Limits
) -> Report:
    suffix, converter = CONVERTERS[export_format]
    report = Report()
    fits = False
    # Never set: this process is ended when nobody wants the result any more.
    wanted = threading.Event()
    names = {visit.path for visit in walk(source, limits) if visit.entry.kind is Kind.FILE}
    with Position(target) as position:
        for visit in walk(source, limits):
            if visit.entry.kind is Kind.DIRECTORY:
                continue
            file = _opened(visit, report)
            if file is None:
                continue
            with file:
                position.follow(visit.parts)
                name = visit.entry.name
                if PurePosixPath(name).suffix == suffix:
                    name = _converted_name(visit, names, export_format)
                    with naming(_shown(visit)), position.directory.create(name) as made:
                        converter(file, made)
                else:
                    copy_open_file(file.fileno(), position.directory, name, wanted)
                report.files += 1
                fits = fits or name.endswith(f".{export_format}")
    if not fits:
        raise CannotConvert(
            "there is neither a .npz nor a .safetensors file among them; submit the job without"
            " export_format, or have its script write one"
        )
    return report


def _shown(visit: Visit) -> str:
    """A file's path for a message, which has to have room for what is wrong: its end."""
    path = visit.path
    return printable(path) if len(path) <= _SHOWN else f"...{printable(path[-_SHOWN:])}"


def _converted_name(visit: Visit, names: set[str], export_format: str) -> str:
    """What a converted file is called: another suffix, or a second one if that name is taken.

    Raises CannotConvert if neither is free.
    """
    plain = PurePosixPath(visit.entry.name)
    for name in (f"{plain.stem}.{export_format}", f"{plain.name}.{export_format}"):
        if len(os.fsencode(name)) > _MAX_NAME:
            raise CannotConvert(
                f"{_shown(visit)}: its name is too long to end with .{export_format};"
                " have the script write it under a shorter one"
            )
        if "/".join((*visit.parts, name)) not in names:
            return name
    raise CannotConvert(
        f"{_shown(visit)}: there are files beside it with each of the names that it would"
        " have; have the script write it under another one"
    )


def _pack(source: Directory, target: Directory, limits: Limits) -> Report:
    report = Report()
    first_names: dict[tuple[int, int], str] = {}
    holes = 0
    with (
        target.create(_ARCHIVE) as archive_file,
        tarfile.open(fileobj=archive_file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive,
    ):
        for visit in walk(source, limits):
            member = tarfile.TarInfo(visit.path)
            if visit.entry.kind is Kind.DIRECTORY:
                member.type = tarfile.DIRTYPE
                _date(member, visit.directory.about())
                archive.addfile(member)
                continue
            file = _opened(visit, report)
            if file is None:
                continue
            with file, naming(_shown(visit)):
                about = os.fstat(file.fileno())
                _date(member, about)
                report.files += 1
                identity = about.st_dev, about.st_ino
                if identity in first_names:
                    member.type, member.linkname = tarfile.LNKTYPE, first_names[identity]
                    archive.addfile(member)
                    continue
                if about.st_nlink > 1:
                    first_names[identity] = member.name
                holes += max(about.st_size - about.st_blocks * 512, 0)
                if holes > _MAX_HOLES:
                    raise CannotConvert(
                        f"it has {about.st_size} bytes, of which most are holes, and an archive"
                        " holds those as zeros; have the script write what it needs alone"
                    )
                member.size = about.st_size
                archive.addfile(member, file)
    return report


def _date(member: tarfile.TarInfo, about: os.stat_result) -> None:
    """What an archive keeps of a file beside its content: no owner, no special rights."""
    member.mode = stat.S_IMODE(about.st_mode) & 0o777
    member.mtime = int(about.st_mtime)


def _opened(visit: Visit, report: Report) -> BinaryIO | None:
    """A file to read; None, and noted, if it is none or not any more."""
    if visit.entry.kind is not Kind.FILE:
        report.leave_out(visit.path, visit.entry.kind.value)
        return None
    try:
        return visit.directory.open_file(visit.entry.name)
    except NotARegularFile:
        report.leave_out(visit.path, "no longer a file when it was opened")
    except FileNotFoundError:
        report.leave_out(visit.path, "removed before it was opened")
    return None
