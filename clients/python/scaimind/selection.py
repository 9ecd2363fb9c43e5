"""Which files of a folder go to the gateway: what its ignore files let through, and no secrets.

`.gitignore` counts as git has it: those of the folder, of the folders in it, and
of those above it up to the repository's root, with `.git/info/exclude`.
`.scaimindignore` has the same form and comes last, so that it can also let
through what `.gitignore` keeps out. What is in NEVER no file lets through.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec, RegexPattern

from scaimind.errors import ScaiMindError

#: Names that are never sent, whatever the ignore files say: repositories, environments, secrets.
NEVER: Final = (
    ".git", ".hg", ".svn", ".venv", ".env*", ".netrc", ".ssh", ".aws", "__pycache__", "*.pyc",
    ".DS_Store", ".scaimindignore", ".scaimind-sync.json",
)  # fmt: skip
#: Entries after which a folder is given up.
MAX_ENTRIES: Final = 200_000
#: Bytes of an ignore file that are read.
_MAX_IGNORE_FILE: Final = 1024 * 1024


class SelectionFailed(ScaiMindError):
    """The folder cannot be read, or has too many entries."""


@dataclass(frozen=True, slots=True)
class SelectedFile:
    """A regular file. `name` is its path below the folder, with slashes."""

    name: str
    path: Path
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """Files by name, and what was left out though no ignore file says so, for people."""

    files: tuple[SelectedFile, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(each.size for each in self.files)


def select(folder: Path) -> Selection:
    """Return what of a folder is to be sent. Raises `SelectionFailed`."""
    root = folder.resolve()
    walk = _Walk(root)
    try:
        files = sorted(walk.files(root, "", _rules_above(root)), key=lambda each: each.name)
    except OSError as error:
        raise SelectionFailed(f"{error.filename} cannot be read: {error.strerror}.") from error
    return Selection(tuple(files), tuple(walk.left_out))


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one ignore file, and the folder that they are relative to."""

    base: Path
    #: Each with whether what it names is kept out.
    patterns: tuple[tuple[re.Pattern[str], bool], ...]

    @classmethod
    def read(cls, path: Path, base: Path) -> "_Rules | None":
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_IGNORE_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            spec = GitIgnoreSpec.from_lines(text.decode(errors="surrogateescape").splitlines())
        except ValueError as error:
            raise SelectionFailed(f"{path} has a wrong pattern: {error}") from error
        patterns = [
            (each.regex, each.include)
            for each in spec.patterns
            if isinstance(each, RegexPattern) and each.regex and each.include is not None
        ]
        return cls(base, tuple(patterns))

    def keeps_out(self, path: Path, *, is_folder: bool) -> bool | None:
        """Whether the path is kept out; None if no pattern is about it."""
        name = path.relative_to(self.base).as_posix()
        for pattern, keeps_out in reversed(self.patterns):
            if _is_about(pattern, name, is_folder=is_folder):
                return keeps_out
        return None


def _is_about(pattern: re.Pattern[str], name: str, *, is_folder: bool) -> bool:
    """Whether a pattern names the path itself, and not only a folder that it is in.

    The walk has judged those folders, and git lets a pattern say no more than
    that. pathspec's expressions have a group for the slash behind a folder's name.
    """
    found = pattern.search(name)
    if found is not None and not any(found.groups()):
        return True
    whole = len(name) + 1
    return is_folder and any(
        any(each.groups()) and each.end() == whole for each in pattern.finditer(f"{name}/")
    )


@dataclass(frozen=True, slots=True)
class _Stack:
    """The rules that are in force in a folder, the deepest last."""

    git: tuple[_Rules, ...] = ()
    own: tuple[_Rules, ...] = ()

    def within(self, folder: Path) -> "_Stack":
        git = _Rules.read(folder / ".gitignore", folder)
        own = _Rules.read(folder / ".scaimindignore", folder)
        return _Stack(
            self.git if git is None else (*self.git, git),
            self.own if own is None else (*self.own, own),
        )

    def keeps_out(self, path: Path, *, is_folder: bool) -> bool:
        for rules in (*reversed(self.own), *reversed(self.git)):
            found = rules.keeps_out(path, is_folder=is_folder)
            if found is not None:
                return found
        return False


def _rules_above(root: Path) -> _Stack:
    """Return the rules of the repository that holds the folder, without the folder's own."""
    repository = next((each for each in (root, *root.parents) if (each / ".git").exists()), None)
    if repository is None:
        return _Stack()
    exclude = _Rules.read(repository / ".git/info/exclude", repository)
    stack = _Stack() if exclude is None else _Stack(git=(exclude,))
    if repository == root:
        return stack
    between = [each for each in root.parents if each == repository or repository in each.parents]
    for each in reversed(between):
        git = _Rules.read(each / ".gitignore", each)
        stack = stack if git is None else _Stack((*stack.git, git))
    return stack


@dataclass(slots=True)
class _Walk:
    """One way through a folder."""

    root: Path
    left_out: list[str] = field(default_factory=list)
    seen: int = 0

    def files(self, folder: Path, below: str, rules: _Stack) -> Iterator[SelectedFile]:
        rules = rules.within(folder)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda each: each.name)
        for entry in entries:
            self.seen += 1
            if self.seen > MAX_ENTRIES:
                raise SelectionFailed(
                    f"{self.root} has over {MAX_ENTRIES:,} entries. Name what is not needed in"
                    " .scaimindignore."
                )
            path, name = folder / entry.name, f"{below}{entry.name}"
            is_folder = entry.is_dir(follow_symlinks=False)
            if never(entry.name) or rules.keeps_out(path, is_folder=is_folder):
                continue
            if (reason := _cannot_be_named(entry.name)) is not None:
                self.left_out.append(f"{name!a}: {reason}")
            elif entry.is_symlink():
                yield from self._link(path, name)
            elif is_folder:
                if (path / "pyvenv.cfg").exists():
                    self.left_out.append(f"{name}/: a virtual environment")
                else:
                    yield from self.files(path, f"{name}/", rules)
            elif entry.is_file(follow_symlinks=False):
                yield _selected(name, path, entry.stat(follow_symlinks=False))
            else:
                self.left_out.append(f"{name}: a socket, pipe or device")

    def _link(self, path: Path, name: str) -> Iterator[SelectedFile]:
        """Yield the file that a link leads to, if it would be sent itself."""
        try:
            target = path.resolve(strict=True)
            found = target.stat()
        except (OSError, RuntimeError):
            self.left_out.append(f"{name}: a link that leads nowhere")
            return
        if not target.is_relative_to(self.root):
            self.left_out.append(f"{name}: a link that leaves the folder")
        elif not stat.S_ISREG(found.st_mode):
            self.left_out.append(f"{name}: a link to something that is no file")
        elif not self._is_sent(target):
            self.left_out.append(f"{name}: a link to a file that is left out")
        else:
            yield _selected(name, target, found)

    def _is_sent(self, target: Path) -> bool:
        rules, at = _rules_above(self.root), self.root
        parts = target.relative_to(self.root).parts
        for number, part in enumerate(parts):
            rules, at = rules.within(at), at / part
            if never(part) or rules.keeps_out(at, is_folder=number + 1 < len(parts)):
                return False
        return True


def never(name: str) -> bool:
    """Whether a file or folder of this name is never sent."""
    return any(fnmatchcase(name, pattern) for pattern in NEVER)


def _cannot_be_named(name: str) -> str | None:
    try:
        return "its name is over 255 bytes" if len(name.encode()) > 255 else None
    except UnicodeEncodeError:
        return "its name is not UTF-8"


def _selected(name: str, path: Path, found: os.stat_result) -> SelectedFile:
    return SelectedFile(name, path, found.st_size, bool(found.st_mode & stat.S_IXUSR))
