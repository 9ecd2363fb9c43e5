"""The files that say which packages a job needs: what they name of the project, and what is pinned.

Read before anything is installed, from the job's own copy, in which links are
left alone. pip's format (requirements.txt), as far as it matters here: which
other files count, and which versions are settled.
"""

import errno
import hashlib
import posixpath
import re
import threading
from dataclasses import dataclass, field
from typing import Final

from app.coordinator.packages.base import normalized
from app.files.copying import Abandoned
from app.files.directory import Directory, Kind, LimitReached, NotARegularFile
from app.files.walking import Limits, Position, walk
from app.shortening import quoted

_MAX_FILE: Final = 1024 * 1024
_MAX_FILES: Final = 64
#: Characters of a line with those that continue it; hashes of many files take a few thousand.
_MAX_LINE: Final = 64 * 1024
_OF_TREE: Final = Limits()
_BLOCK: Final = 1024 * 1024
_NOTHING: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_INCLUDED: Final = re.compile(
    r"(?:-r|-c|--requirement|--requirements|--constraint|--constraints)(?:\s*=\s*|\s+|(?<=-[rc]))(.+)"
)
_LINKS: Final = re.compile(r"(?:-f|--find-links)(?:\s*=\s*|\s+|(?<=-f))(.+)")
_EDITABLE: Final = ("-e", "--editable")
#: Of a line in which a space comes alone: it is tried at each place once.
_PINNED: Final = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*) ?(?:\[[^\]]*\])? ?={2,3} ?[^ *,;]+ ?(?:;.*|--hash.*)?"
)
_WHEEL: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]*)-[^/]*\.whl")


class BadRequirements(Exception):
    """The requirements cannot be used. The message is for the job's owner."""


@dataclass(slots=True)
class Requirements:
    """What the files say."""

    #: Of all files, and of what they name of the project.
    digest: str = ""
    #: The names of packages whose version is settled.
    pinned: set[str] = field(default_factory=set)


def read_requirements(project: Directory, path: str, abandoned: threading.Event) -> Requirements:
    """Read a file below the project's directory, and those that it includes.

    Raises BadRequirements, Abandoned, OSError.
    """
    reading = _Reading(project, abandoned)
    reading.read(path)
    return Requirements(reading.digest.hexdigest(), reading.pinned)


class _Reading:
    def __init__(self, project: Directory, abandoned: threading.Event) -> None:
        self._project = project
        self._abandoned = abandoned
        self._read: set[str] = set()
        #: Whether anything is at the places that were looked at.
        self._places: dict[str, bool] = {}
        #: Of the content of files, so that each is read once, however many places lead to it.
        self._contents: dict[str, bytes] = {}
        self.digest = hashlib.sha256()
        self.pinned: set[str] = set()

    def read(self, path: str) -> None:
        """Read a file, unless it was read before."""
        if path in self._read:
            return
        self._read.add(path)
        if len(self._read) > _MAX_FILES:
            raise BadRequirements(f"they include more than {_MAX_FILES} files")
        content = self._content(path)
        self._note(path, content)
        folder = posixpath.dirname(path)
        for line in _lines(content.decode("utf-8", "replace")):
            if self._abandoned.is_set():
                raise Abandoned
            if len(line) > _MAX_LINE:
                raise BadRequirements(
                    f"{quoted(path)} has a line of more than {_MAX_LINE} characters"
                )
            self._take(line, folder)

    def _content(self, path: str) -> bytes:
        try:
            with Position(self._project) as position:
                *folders, name = path.split("/")
                for folder in folders:
                    position.descend(folder)
                with position.directory.open_file(name) as file:
                    content = file.read(_MAX_FILE + 1)
        except OSError as error:
            if not _is_nothing(error):
                raise
            raise BadRequirements(
                f"{quoted(path)} is not a file in the working directory"
            ) from None
        if len(content) > _MAX_FILE:
            raise BadRequirements(f"{quoted(path)} has more than {_MAX_FILE} bytes")
        return content

    def _note(self, *parts: str | bytes) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
            self.digest.update(b"%d:" % len(data) + data)

    def _take(self, line: str, folder: str) -> None:
        if line.startswith(_EDITABLE):
            raise BadRequirements(
                f"{quoted(line)}: an environment is shared by jobs, so nothing in it can lead to"
                " one job's copy. Name the folder without -e, or import its modules from the"
                " working directory"
            )
        if match := _INCLUDED.fullmatch(line):
            if "://" not in match[1]:
                path = _joined(folder, match[1])
                if path is None:
                    raise BadRequirements(f"{quoted(line)} leads out of the working directory")
                self.read(path)
            return
        if match := _LINKS.fullmatch(line):
            self._note_place(match[1], folder)
            return
        if match := _PINNED.fullmatch(" ".join(line.split())):
            self.pinned.add(normalized(match[1]))
            return
        if place := _place_of(line):
            name = posixpath.basename(place)
            if (match := _WHEEL.fullmatch(name)) and self._note_place(place, folder):
                self.pinned.add(normalized(match[1]))
            elif not match:
                self._note_place(place, folder)

    def _note_place(self, place: str, folder: str) -> bool:
        """Count what is at a place of the project; whether anything is there.

        Installers look for wheels from the project's directory on, and for
        folders of wheels from that of the file.
        """
        found = False
        for path in dict.fromkeys((_joined("", place), _joined(folder, place))):
            if path is None:
                continue
            if path not in self._places:
                self._places[path] = self._note_tree(path)
            found = found or self._places[path]
        return found

    def _note_tree(self, path: str) -> bool:
        *folders, name = path.split("/") if path else [""]
        try:
            with Position(self._project) as position:
                for folder in folders:
                    position.descend(folder)
                if not name:
                    self._note_below(position.directory, path)
                    return True
                try:
                    self._note_file(position.directory, name, path)
                except NotARegularFile:
                    with position.directory.open_directory(name) as below:
                        self._note_below(below, path)
        except LimitReached as error:
            raise BadRequirements(f"{quoted(path)} is too large: {error.strerror}") from None
        except OSError as error:
            if not _is_nothing(error):
                raise
            return False
        return True

    def _note_below(self, directory: Directory, path: str) -> None:
        for visit in walk(directory, _OF_TREE):
            if visit.entry.kind is Kind.FILE:
                self._note_file(visit.directory, visit.entry.name, f"{path}/{visit.path}")

    def _note_file(self, directory: Directory, name: str, path: str) -> None:
        path = posixpath.normpath(path).lstrip("/")
        if path not in self._contents:
            with directory.open_file(name) as file:
                content = hashlib.sha256()
                while block := file.read(_BLOCK):
                    if self._abandoned.is_set():
                        raise Abandoned
                    content.update(block)
            self._contents[path] = content.digest()
        self._note(path, self._contents[path])


def _is_nothing(error: OSError) -> bool:
    """Whether an error says that nothing usable is at a path, and not that the machine failed."""
    return isinstance(error, NotARegularFile) or error.errno in _NOTHING


def _lines(text: str) -> list[str]:
    """Return the lines that say something: joined where they are continued, without comments."""
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _place_of(line: str) -> str:
    """Return the path of the project that a requirement names; empty if it names none."""
    place = line.partition("@")[2].strip() if re.match(r"[\w.\[\], -]+@", line) else line
    place = place.partition(" ;")[0].split(" --", 1)[0].strip().removeprefix("file:")
    if place.endswith("]"):
        # Its extras.
        place = place.rpartition("[")[0]
    if "://" in place or place.startswith("-"):
        return ""
    is_path = place.startswith(".") or "/" in place or place.endswith((".whl", ".tar.gz", ".zip"))
    return place if is_path else ""


def _joined(folder: str, path: str) -> str | None:
    """Return a path below the project; None if it leads out of it."""
    path = path.strip().strip("\"'")
    if path.startswith("/") or "\0" in path:
        return None
    place = posixpath.normpath(posixpath.join(folder, path))
    if place == ".." or place.startswith("../"):
        return None
    return "" if place == "." else place
