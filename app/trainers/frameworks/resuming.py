"""Going on from a checkpoint of a run that had another number of processes."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import TrainingRefused, shown

log: Final = logging.getLogger(__name__)
#: In each checkpoint: among how many processes a step was divided.
_FILE: Final = "scaimind_step.json"
_MAX_FILE: Final = 4096
_ACCUMULATION: Final = "gradient_accumulation_steps"


def note_step(checkpoint: Path, world_size: int, accumulation: int) -> None:
    """Write into a checkpoint how its run divided a step. Raises OSError."""
    text = json.dumps({"world_size": world_size, _ACCUMULATION: accumulation})
    (checkpoint / _FILE).write_text(text, encoding="utf-8")


def other_ranks(checkpoint: Path | None, world_size: int) -> bool:
    """Whether a checkpoint is of a run with another number of processes. Raises
    TrainingRefused."""
    if checkpoint is None or not (checkpoint / _FILE).is_file():
        return False
    return _read(checkpoint)[0] != world_size


def with_same_batch(
    arguments: Mapping[str, Any], checkpoint: Path | None, world_size: int, *, is_main: bool
) -> dict[str, Any]:
    """Return the trainer's arguments with the effective batch that the checkpoint's run had.

    So a step sees the same records, however many processes there are. Where the numbers do not
    divide, the batch changes and the log says so. Raises TrainingRefused.
    """
    kept = dict(arguments)
    if checkpoint is None or not (checkpoint / _FILE).is_file():
        return kept
    before, accumulated = _read(checkpoint)
    if before == world_size and accumulated == int(kept.get(_ACCUMULATION) or 1):
        return kept
    batches, rest = divmod(accumulated * before, world_size)
    if not rest:
        kept[_ACCUMULATION] = batches
    if is_main:
        said = f"The checkpoint is of {before} process(es), and there are {world_size} now."
        if rest:
            log.warning(
                "%s The effective batch changes: %d batches cannot be divided evenly among %d.",
                *(said, accumulated * before, world_size),
            )
        else:
            log.info("%s %s is %d, so that a step is as large.", said, _ACCUMULATION, batches)
    return kept


def _read(checkpoint: Path) -> tuple[int, int]:
    try:
        with (checkpoint / _FILE).open("rb") as file:
            noted = json.loads(file.read(_MAX_FILE))
        before, accumulated = noted["world_size"], noted[_ACCUMULATION]
        if not all(type(each) is int and 0 < each < 2**20 for each in (before, accumulated)):
            raise ValueError("its numbers are none of processes")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingRefused(
            f"the checkpoint {shown(checkpoint.name)} cannot be resumed: its {_FILE} cannot be"
            f" read ({error})"
        ) from None
    return before, accumulated
