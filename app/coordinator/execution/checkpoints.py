"""Which checkpoints a job has: found in the directory that its processes write them to.

A checkpoint is a directory, or a file with one of FILE_SUFFIXES, under a name
that does not say that it is unfinished. A script writes it beside and renames
it, so that it is complete when it is seen; docs/training-scripts.md.

The job may put anything there, and change it at any moment. Nothing is read
but names, sizes and times, relative to the directory that is held open, within
bounds. Order is not taken from names or times: a checkpoint that is seen for
the first time, or that was written anew, is newer than all that were seen
before it. Only where several are new at once, their times decide among them.
"""

import re
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from os import stat_result
from typing import Final

from app.coordinator.jobs.model import MAX_COUNT, Checkpoint
from app.files.directory import Directory, Kind, LimitReached
from app.files.names import is_utf8, printable, unguessable
from app.files.removing import remove_tree
from app.files.walking import ChangedMeanwhile, Limits, tree_size

#: How the name of what is still being written begins or ends. `tmp-checkpoint-500` is Hugging
#: Face's.
UNFINISHED_PREFIXES: Final = (".", "tmp-")
UNFINISHED_SUFFIXES: Final = (".tmp", ".part", ".partial", ".incomplete")
#: What files must end with to be checkpoints; others lie beside them, such as `latest`.
FILE_SUFFIXES: Final = (
    *(".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".npz", ".npy", ".pkl", ".pickle"),
    *(".h5", ".hdf5", ".keras", ".msgpack", ".onnx", ".gguf", ".zip", ".tar", ".tar.gz", ".tgz"),
)
#: Entries of the directory that are looked at.
MAX_ENTRIES: Final = 50_000
#: What a checkpoint may be to be measured; of a larger one the size is told as 0.
_MEASURED: Final = Limits(depth=64, entries=100_000)
#: Seconds that one look may take to measure; what it has no time for, the next one measures.
_MEASURING: Final = 1.0
#: A size is settled when so many looks in a row saw it.
_SETTLED: Final = 2
#: A look that took long is not repeated for so many times as long.
_REST: Final = 20.0
#: What is being removed, see `_set_aside`.
_REMOVED: Final = re.compile(r"\.[0-9a-f]{32}\.removed\.partial")
_STEP: Final = re.compile(r"([0-9]+)$")


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry that is a checkpoint."""

    name: str
    about: stat_result
    #: As it was at the last look; None if it was not there.
    known: Checkpoint | None

    @property
    def identity(self) -> str:
        """What tells it from what may be under its name at another time."""
        about = self.about
        return f"{about.st_ino}:{about.st_mtime_ns}:{about.st_ctime_ns}:{about.st_uid}"

    @property
    def is_fresh(self) -> bool:
        """Whether it was not there before, or was written anew or renamed into its place since."""
        if self.known is None:
            return True
        # Those that were stored without an identity are taken for what is there.
        if self.known.identity in ("", self.identity):
            return False
        content, _, owner = _parts(self.known.identity)
        # A run that has another user than the one before is given its files.
        return content != _parts(self.identity)[0] or owner == str(self.about.st_uid)

    @property
    def age(self) -> tuple[int, int, int, str]:
        """By this those are ordered that are fresh at once, the oldest first."""
        if self.known is not None and _parts(self.known.identity)[0] == _parts(self.identity)[0]:
            # It was renamed away and back, or given other permissions.
            return (0, self.known.sequence, 0, "")
        return (1, self.about.st_mtime_ns, step_of(self.name), self.name)


def _parts(identity: str) -> tuple[str, str, str]:
    """The parts of an identity: its content, when anything about it changed, and its owner.

    Of an identity that was stored without an owner that part is empty.
    """
    inode, written, changed, owner = (*identity.split(":", 3), "", "", "")[:4]
    return f"{inode}:{written}", changed, owner


class CheckpointFinder:
    """Looks for the checkpoints of one run. For one thread at a time. Blocks."""

    def __init__(self, *, keep: int, clock: Callable[[], int]) -> None:
        """The newest `keep` are kept, all if it is 0; `clock` is in microseconds since 1970."""
        self._keep = keep
        self._clock = clock
        self._rest_until = -1.0
        self._said: set[str] = set()
        #: What the job's log is to say, in sentences, each kind once in a run.
        self.notes: list[str] = []
        #: Whether the last look left something to `remove_leftovers`.
        self.leftovers = False
        #: Names of those that the last look found to be too many, and set aside.
        self.set_aside: list[str] = []

    def look(
        self, root: Directory, known: Sequence[Checkpoint], *, last: bool = False
    ) -> tuple[Checkpoint, ...]:
        """The job's checkpoints now, the oldest first. Those over the number to keep are renamed
        to what `remove_leftovers` removes: that may take long, and a look must not.

        `known` is what the last look returned. After a look that took long this
        one returns it as it is, unless it is the `last`. Raises OSError.
        """
        began = time.monotonic()
        self.set_aside = []
        if began < self._rest_until and not last:
            return tuple(known)
        self.leftovers = False
        found = self._list(root, {checkpoint.checkpoint_id: checkpoint for checkpoint in known})
        checkpoints = self._measure(root, self._number(found, known))
        checkpoints = self._remove_oldest(root, checkpoints)
        ended = time.monotonic()
        self._rest_until = ended + _REST * (ended - began)
        return tuple(checkpoints)

    def _list(self, root: Directory, known: dict[str, Checkpoint]) -> list[_Found]:
        """The checkpoints that are there."""
        with closing(root.scan()) as entries:
            names = [entry.name for entry in islice(entries, MAX_ENTRIES)]
            if next(entries, None) is not None:
                self._say(
                    f"The checkpoint directory has more than {MAX_ENTRIES} entries. Not all of"
                    " them are looked at."
                )
                # What is known already is not lost for that.
                names = [*known, *(name for name in names if name not in known)]
        found = []
        for name in names:
            if _REMOVED.fullmatch(name):
                self.leftovers = True
            if is_unfinished(name) or not self._is_tellable(name):
                continue
            with suppress(FileNotFoundError):
                about = root.stat(name)
                if _is_checkpoint(name, about.st_mode):
                    found.append(_Found(name, about, known.get(name)))
        return found

    def _is_tellable(self, name: str) -> bool:
        """Whether a name can be a checkpoint's id."""
        if not is_utf8(name):
            self._say("Checkpoints whose names are not UTF-8 are left out", name)
        elif not name.isprintable():
            self._say("Checkpoints whose names cannot be printed are left out", name)
        else:
            return True
        return False

    def _number(self, found: list[_Found], known: Sequence[Checkpoint]) -> list[Checkpoint]:
        """The checkpoints with their numbers: those that are fresh come behind all others."""
        last = max((checkpoint.sequence for checkpoint in known), default=0)
        checkpoints = [
            # The same object if nothing has changed: whoever compares thousands is soon done.
            each.known
            if each.known.identity == each.identity
            else replace(each.known, identity=each.identity)
            for each in found
            if each.known and not each.is_fresh
        ]
        fresh = sorted((each for each in found if each.is_fresh), key=lambda each: each.age)
        now = self._clock()
        if len(fresh) == 1 and fresh[0].known and fresh[0].known.sequence == last:
            # The newest is still being written.
            last -= 1
        for sequence, each in enumerate(fresh, last + 1):
            checkpoints.append(
                Checkpoint(
                    checkpoint_id=each.name,
                    step=step_of(each.name),
                    size_bytes=0,
                    created_at=now,
                    sequence=sequence,
                    identity=each.identity,
                )
            )
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.sequence)[-MAX_ENTRIES:]

    def _measure(self, root: Directory, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        """The checkpoints with their sizes, as far as there is time; the newest go first."""
        until = time.monotonic() + _MEASURING
        for at in reversed(range(len(checkpoints))):
            if time.monotonic() > until:
                break
            if (known := checkpoints[at]).measured < _SETTLED:
                size = _size(root, known.checkpoint_id)
                same = known.measured and size == known.size_bytes
                measured = known.measured + 1 if same else 1
                checkpoints[at] = replace(known, size_bytes=size, measured=measured)
        return checkpoints

    def _remove_oldest(self, root: Directory, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        """Those that are left when all over the number to keep are removed."""
        if not self._keep:
            return checkpoints
        surplus, kept = checkpoints[: -self._keep], checkpoints[-self._keep :]
        left = []
        for checkpoint in surplus:
            try:
                if _set_aside(root, checkpoint):
                    self.leftovers = True
                    self.set_aside.append(checkpoint.checkpoint_id)
                    continue
            except OSError as error:
                self._say(
                    f"Old checkpoints cannot be removed ({error.strerror})",
                    checkpoint.checkpoint_id,
                )
            # It is tried again at the next look; and it is not new then.
            left.append(checkpoint)
        return [*left, *kept]

    def _say(self, sentence: str, name: str = "") -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self.notes.append(f"{sentence}, such as {printable(name)!r}." if name else sentence)


def is_unfinished(name: str) -> bool:
    """Whether a name says that what has it is still being written."""
    return name.startswith(UNFINISHED_PREFIXES) or name.endswith(UNFINISHED_SUFFIXES)


def has_unfinished(root: Directory) -> bool:
    """Whether something is there that is still being written, or was left so, as names say; what
    is empty does not count. Raises OSError."""
    with closing(root.scan()) as entries:
        found = list(islice(entries, MAX_ENTRIES))
    for entry in found:
        if not is_unfinished(entry.name) or _REMOVED.fullmatch(entry.name):
            continue
        if entry.kind is not Kind.DIRECTORY:
            return True
        with (
            suppress(FileNotFoundError),
            root.open_directory(entry.name) as directory,
            closing(directory.scan()) as inside,
        ):
            if next(inside, None) is not None:
                return True
    return False


def step_of(name: str) -> int:
    """The step that the name of a checkpoint ends with; 0 if it is none."""
    for suffix in FILE_SUFFIXES:
        name = name.removesuffix(suffix)
    number = _STEP.search(name)
    # Length first: thousands of digits are slow to read.
    if number is None or len(number[1].lstrip("0")) > len(str(MAX_COUNT)):
        return 0
    step = int(number[1])
    return step if step <= MAX_COUNT else 0


def _is_checkpoint(name: str, mode: int) -> bool:
    return stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and name.endswith(FILE_SUFFIXES))


def _size(root: Directory, name: str) -> int:
    """Bytes of a checkpoint's files; 0 if that cannot be told."""
    try:
        about = root.stat(name)
        if not stat.S_ISDIR(about.st_mode):
            return min(about.st_size, MAX_COUNT)
        with root.open_directory(name) as directory:
            return min(tree_size(directory, _MEASURED), MAX_COUNT)
    except (LimitReached, ChangedMeanwhile, FileNotFoundError, NotADirectoryError):
        return 0
    except PermissionError:
        # The job may close its own directories.
        return 0


def remove_leftovers(root: Directory) -> None:
    """Remove the checkpoints that looks have set aside. May take long. Raises OSError."""
    with closing(root.scan()) as entries:
        names = [entry.name for entry in islice(entries, MAX_ENTRIES)]
    for name in names:
        if _REMOVED.fullmatch(name):
            # What cannot be removed now is found by the next look.
            with suppress(OSError):
                remove_tree(root, name)


def _set_aside(root: Directory, checkpoint: Checkpoint) -> bool:
    """Rename a checkpoint to be removed; whether it was still the same. Raises OSError."""
    try:
        about = root.stat(checkpoint.checkpoint_id)
    except FileNotFoundError:
        return True
    if checkpoint.identity not in ("", _Found(checkpoint.checkpoint_id, about, None).identity):
        return False
    # At once or not at all: what is half there is no checkpoint.
    root.rename(checkpoint.checkpoint_id, root, unguessable("removed"))
    return True
