"""What a submission has executed: a script, alone or in a folder, with arguments and packages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.coordinator.data.drive import SCHEME, Drive
from app.coordinator.errors import FailedPrecondition, InvalidArgument, all_problems
from app.coordinator.identity.access import Access
from app.coordinator.jobs.model import Program
from app.script_arguments import parse_arguments
from app.shortening import quoted
from generated.mindcoordinator.v1.jobs_pb2 import Framework

_WHERE: Final = "training_config.framework"
_SCRIPT: Final = f"{_WHERE}.custom_script_path"
_CONFIG: Final = f"{_WHERE}.config"
#: How the name of a working directory ends that is packed.
ARCHIVES: Final = (".tar.gz", ".tgz")
_MAX_NAME: Final = 255
_MAX_PATH: Final = 4096
_FLAGS: Final[Mapping[str, bool]] = {"": False, "false": False, "true": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRules:
    """Why submissions may not ask for packages here; empty where they may."""

    no_packages: str = ""
    #: The same of packages that have to be built.
    no_builds: str = ""


def is_archive(working_dir: str) -> bool:
    """Whether a working directory is packed."""
    return working_dir.lower().endswith(ARCHIVES)


def program_of(
    framework: Framework, access: Access, drive: Drive, packages: PackageRules
) -> Program:
    """Return what a submission has executed.

    Of framework type CUSTOM: the trainers are a program of their own. What is in an archive is
    looked for when it is unpacked. Raises InvalidArgument, FailedPrecondition, with all that is
    wrong.
    """
    config = framework.config
    working_dir, requirements = config.get("working_dir", ""), config.get("requirements", "")
    builds = config.get("allow_source_builds", "").lower()
    arguments: tuple[str, ...] = ()
    script = ""
    with all_problems() as problems:
        try:
            arguments = parse_arguments(config.get("arguments", ""))
        except ValueError as error:
            problems.add(f"{_CONFIG}.arguments", str(error))
        if builds not in _FLAGS:
            problems.add(f"{_CONFIG}.allow_source_builds", "must be true or false")
        if requirements and not working_dir:
            problems.add(
                f"{_CONFIG}.requirements",
                "is a file in the working directory; set working_dir as well",
            )
        elif builds == "true" and not requirements:
            problems.add(
                f"{_CONFIG}.allow_source_builds", "is about packages; set requirements as well"
            )
        #: Empty too where there is no looking into it.
        folder = ""
        with problems.collected():
            if working_dir:
                _require_folder(working_dir, access, drive)
                folder = working_dir
        with problems.collected():
            script = _script_in(working_dir, framework.custom_script_path)
            if not script:
                drive.require(access, _SCRIPT, framework.custom_script_path, kind="file")
            elif folder:
                _require_in(folder, _SCRIPT, script, access, drive)
        with problems.collected():
            if requirements and packages.no_packages:
                raise FailedPrecondition(f"{_CONFIG}.requirements: {packages.no_packages}")
            if builds == "true" and packages.no_builds:
                raise FailedPrecondition(f"{_CONFIG}.allow_source_builds: {packages.no_builds}")
            if requirements and working_dir:
                requirements = _relative(f"{_CONFIG}.requirements", requirements)
                if folder:
                    _require_in(folder, f"{_CONFIG}.requirements", requirements, access, drive)
    return Program(
        working_dir=working_dir,
        script=script,
        arguments=arguments,
        requirements=requirements,
        allow_source_builds=_FLAGS[builds],
    )


def _require_folder(working_dir: str, access: Access, drive: Drive) -> None:
    where = f"{_CONFIG}.working_dir"
    if not working_dir.startswith(SCHEME):
        raise InvalidArgument(
            where, f"{quoted(working_dir)} is not of the form scaidrive://<tenant>/<path>"
        )
    drive.require(
        access, where, working_dir, kind="file" if is_archive(working_dir) else "directory"
    )


def _script_in(working_dir: str, script: str) -> str:
    """Return the script's path below the working directory; empty if it is a URL of its own.

    Raises InvalidArgument.
    """
    if not script:
        raise InvalidArgument(_SCRIPT, "is required for framework type CUSTOM")
    within = f"{working_dir.rstrip('/')}/"
    if working_dir and script.startswith(within):
        return _relative(_SCRIPT, script.removeprefix(within))
    if "://" in script or script.startswith("/"):
        return ""
    if not working_dir:
        raise InvalidArgument(
            _SCRIPT,
            f"{quoted(script)} is neither of the form scaidrive://<tenant>/<path> nor in a"
            " framework.config.working_dir",
        )
    return _relative(_SCRIPT, script)


def _require_in(folder: str, where: str, path: str, access: Access, drive: Drive) -> None:
    """Refuse a file that is not in a folder; of an archive nothing is known yet."""
    if not is_archive(folder):
        drive.require(access, where, f"{folder.rstrip('/')}/{path}", kind="file")


def _relative(where: str, text: str) -> str:
    """Return a path as it is below the working directory. Raises InvalidArgument."""
    path = text
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidArgument(where, f"{quoted(text)} is not a plain path in the working directory")
    if len(path.encode()) > _MAX_PATH or any(len(part.encode()) > _MAX_NAME for part in parts):
        raise InvalidArgument(where, f"{quoted(text)} is too long for a path")
    return path
