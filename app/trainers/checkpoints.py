"""Checkpoints as the coordinator looks for them: complete when they have their name.

The trainer writes into a directory beside them; a complete one is renamed to `step-<n>`.
"""

import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Final

from .errors import TrainingRefused, shown

log: Final = logging.getLogger(__name__)
_STEP: Final = re.compile(r"([a-z_]+-)?step-(\d{1,15})")
#: What a directory needs to be gone on from.
_STATE: Final = "trainer_state.json"
#: The sizes of all other files of a checkpoint, in bytes, by their paths in it.
_SIZES: Final = "scaimind_files.json"
_MAX_JSON: Final = 64 * 1024 * 1024


def checkpoint_name(step: int, stage: str = "") -> str:
    """Return the name of the checkpoint of a step, which may be of a stage before the training
    itself."""
    return f"{stage}-step-{step}" if stage else f"step-{step}"


def publish(
    written: Path, directory: Path, step: int, stage: str = "", *, is_part: bool = False
) -> Path:
    """Rename what was written to the checkpoint of its step, and return where it is.

    It is on the disk before it has its name. One that is there under the name is replaced.
    `is_part` is for what a node with a disk of its own adds to the first one's. Raises OSError.
    """
    if is_part:
        # Of its ranks none may have had anything to write.
        written.mkdir(parents=True, exist_ok=True)
    else:
        (written / _SIZES).write_text(json.dumps(_sizes(written)), encoding="utf-8")
    _sync(written)
    place = directory / checkpoint_name(step, stage)
    if place.exists():
        old = directory / f".{place.name}.replaced.partial"
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        written.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        written.rename(place)
    _sync_directory(directory)
    return place


def prune(directory: Path, keep: int) -> list[str]:
    """Remove all checkpoints but the newest `keep` (0 keeps all); return the removed names.

    The newest is the one that was written last, as for the coordinator, which does the same
    at its next look: removing them here keeps the disk free meanwhile.
    """
    if not keep:
        return []
    removed = []
    for path in _by_age(directory)[:-keep]:
        # At once or not at all: what is half there is no checkpoint.
        aside = directory / f".{path.name}.removed.partial"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            path.rename(aside)
        except FileNotFoundError:
            continue
        shutil.rmtree(aside, ignore_errors=True)
        removed.append(path.name)
    return removed


def discard_unfinished(writing: Path) -> None:
    """Remove what an earlier run of the job began to write and could not finish."""
    shutil.rmtree(writing, ignore_errors=True)


def resumable(path: Path, directory: Path) -> Path:
    """Return the checkpoint that a run goes on from: `path`, or where that is damaged the newest
    whole one before it.

    `directory` has the job's own checkpoints; for one from elsewhere there is none before it.
    Raises TrainingRefused.
    """
    if not (path / _STATE).is_file() and not (path / _SIZES).is_file():
        raise TrainingRefused(
            f"the checkpoint {shown(path.name)} cannot be resumed: it has no {_STATE}, so no"
            " trainer wrote it. To train on from its weights name it as the base model instead"
        )
    if not (problem := damage(path)):
        return path
    for earlier in _before(path, directory):
        if not damage(earlier):
            log.warning(
                "The checkpoint %s is damaged: %s. The run goes on from %s, the one before it.",
                *(path.name, problem, earlier.name),
            )
            return earlier
    raise TrainingRefused(
        f"the checkpoint {shown(path.name)} is damaged: {problem}, and there is no whole one before"
        " it. Submit the job again to train from the beginning"
    )


def damage(path: Path) -> str:
    """Return what is missing of a checkpoint; empty if it is whole."""
    try:
        with (path / _STATE).open("rb") as file:
            json.loads(file.read(_MAX_JSON))
    except (OSError, ValueError, RecursionError):
        return f"{_STATE} cannot be read"
    try:
        with (path / _SIZES).open("rb") as file:
            written = dict(json.loads(file.read(_MAX_JSON)))
    except FileNotFoundError:
        # An earlier release wrote it.
        return ""
    except (OSError, ValueError, TypeError, RecursionError):
        return f"{_SIZES} cannot be read"
    there = _sizes(path)
    for name, size in written.items():
        if there.get(name) != size:
            return f"{name} has {there.get(name, 0)} of {size} bytes"
    return ""


def _before(path: Path, directory: Path) -> list[Path]:
    """Return the job's checkpoints that were written before one, the newest first."""
    if path.parent.resolve() != directory.resolve():
        return []
    found = _by_age(directory)
    names = [each.name for each in found]
    return found[: names.index(path.name)][::-1] if path.name in names else []


def _by_age(directory: Path) -> list[Path]:
    found = [path for path in directory.iterdir() if _STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _sizes(directory: Path) -> dict[str, int]:
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != _SIZES
    }


def _sync(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(Path(folder, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_directory(Path(folder))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
