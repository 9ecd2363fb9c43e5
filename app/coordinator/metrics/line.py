"""One line of a metrics file as a snapshot: whatever its bytes are, and however large its numbers.

A training process writes these lines. Each bound here holds for what is kept
for good: a number that is admitted can be stored, added up and told.
"""

import math
from enum import Enum
from typing import Any, Final

from app.coordinator.jobs.model import MAX_COUNT
from app.coordinator.storage.untrusted_json import (
    MAX_DEPTH,
    TOO_LARGE,
    BadJson,
    flattened,
    is_deep,
    is_number,
    parse,
    shown_text,
)
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

#: Bytes of a line; the line break does not count.
MAX_LINE: Final = 1024 * 1024
#: Bytes, such as those of memory.
MAX_BYTES: Final = 2**60
_MAX_NAMES: Final = 256
_MAX_NAME: Final = 128
_NO_NAME: Final = "\N{REPLACEMENT CHARACTER}"

_DOUBLES: Final = frozenset(
    {
        "epoch",
        "loss",
        "learning_rate",
        "grad_norm",
        "samples_per_second",
        "tokens_per_second",
        "gpu_utilization",
    }
)
_OTHER_NAMES: Final = {"lr": "learning_rate", "train_loss": "loss"}


class Fault(Enum):
    """What can be wrong with a line, in the words of the job's log."""

    TOO_LONG = f"it has more than {MAX_LINE} bytes"
    NOT_JSON = "it is not JSON"
    NOT_AN_OBJECT = "it is not a JSON object"
    NO_STEP = "it has no number 'step'"
    BAD_STEP = f"its 'step' is not a finite number from -{MAX_COUNT} to {MAX_COUNT}"
    TOO_DEEP = f"a value is nested more than {MAX_DEPTH} levels deep"
    BAD_TOTAL = f"'total_steps' is not a finite number from 0 to {MAX_COUNT}"
    BAD_MEMORY = f"'gpu_memory_bytes' is not a finite number from 0 to {MAX_BYTES}"
    TOO_LARGE = "an integer has more than 308 digits"
    BAD_NAME = f"a name is empty, not printable or longer than {_MAX_NAME} characters: changed"
    TOO_MANY = f"it has more than {_MAX_NAMES} names"


class BadLine(Exception):
    """A line that is no snapshot."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def parse_snapshot(raw: bytes) -> tuple[MetricsSnapshot, set[Fault]]:
    """A line of a metrics file: a JSON object with `step` and any numbers.

    Names that begin with `eval_` are evaluation metrics, other names that the
    contract does not know are kept under `extra`. What is no number is left
    out. NaN and infinities are numbers, but for counts and bytes. Also returns
    why parts of the line were left out or changed. Raises BadLine, and
    nothing else, whatever the bytes are.
    """
    if len(raw) > MAX_LINE:
        raise BadLine(Fault.TOO_LONG)
    faults: set[Fault] = set()
    value = _load(raw, faults)
    snapshot = MetricsSnapshot(step=_step(value))
    for at, (name, number) in enumerate(value.items()):
        if at > _MAX_NAMES:
            faults.add(Fault.TOO_MANY)
            break
        if name == "step" or not is_number(number):
            continue
        if number is TOO_LARGE:
            faults.add(Fault.BAD_TOTAL if name == "total_steps" else Fault.TOO_LARGE)
        else:
            _add(snapshot, name, number, faults)
    return snapshot, faults


def count_of(number: float, *, most: int = MAX_COUNT) -> int | None:
    """A number as a count from 0 to `most`; None if it is none. Fractions are cut off."""
    return int(number) if math.isfinite(number) and 0 <= number <= most else None


def _load(raw: bytes, faults: set[Fault]) -> dict[str, Any]:
    if is_deep(raw):
        # Nothing that is nested is a number of the snapshot.
        raw = flattened(raw)
        faults.add(Fault.TOO_DEEP)
    try:
        value = parse(raw)
    except BadJson:
        raise BadLine(Fault.NOT_JSON) from None
    if not isinstance(value, dict):
        raise BadLine(Fault.NOT_AN_OBJECT)
    return value


def _step(value: dict[str, Any]) -> int:
    step: Any = value.get("step")
    if not is_number(step):
        raise BadLine(Fault.NO_STEP)
    if step is TOO_LARGE or (count := count_of(abs(step))) is None:
        raise BadLine(Fault.BAD_STEP)
    return count if step >= 0 else -count


def _add(snapshot: MetricsSnapshot, name: str, number: float, faults: set[Fault]) -> None:
    known = _OTHER_NAMES.get(name, name)
    if known == "gpu_memory_bytes":
        if (size := count_of(number, most=MAX_BYTES)) is None:
            faults.add(Fault.BAD_MEMORY)
        else:
            snapshot.gpu_memory_bytes = size
        return
    if known == "total_steps" and count_of(number) is None:
        faults.add(Fault.BAD_TOTAL)
        return
    double = float(number)
    if known in _DOUBLES:
        setattr(snapshot, known, double)
        return
    named = shown_text(name, most=_MAX_NAME) or _NO_NAME
    if named != name:
        faults.add(Fault.BAD_NAME)
    if named.startswith("eval_"):
        snapshot.eval_metrics[named] = double
    else:
        snapshot.extra[named] = double
