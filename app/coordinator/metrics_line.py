"""One line of a metrics file as a snapshot: whatever its bytes are, and however large its numbers.

A training process writes these lines. Each bound here holds for what is kept
for good: a number that is admitted can be stored, added up and told.
"""

import json
import math
import re
from enum import Enum
from typing import Any, Final

from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

from .records import MAX_COUNT

#: Bytes of a line; the line break does not count.
MAX_LINE: Final = 1024 * 1024
#: Bytes, such as those of memory.
MAX_BYTES: Final = 2**60
_MAX_NAMES: Final = 256
_MAX_NAME: Final = 128
_MAX_DEPTH: Final = 64
#: Digits of an integer that a double can hold.
_MAX_DIGITS: Final = 309

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
#: Brackets, and texts as a whole: a bracket in a text is none. An unfinished text ends the line.
_BRACKETS: Final = re.compile(rb'[\[{]|[\]}]|"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


class Fault(Enum):
    """What can be wrong with a line, in the words of the job's log."""

    TOO_LONG = f"it has more than {MAX_LINE} bytes"
    NOT_JSON = "it is not JSON"
    NOT_AN_OBJECT = "it is not a JSON object"
    NO_STEP = "it has no number 'step'"
    BAD_STEP = f"its 'step' is not a finite number from -{MAX_COUNT} to {MAX_COUNT}"
    TOO_DEEP = f"a value is nested more than {_MAX_DEPTH} levels deep"
    BAD_TOTAL = f"'total_steps' is not a finite number from 0 to {MAX_COUNT}"
    BAD_MEMORY = f"'gpu_memory_bytes' is not a finite number from 0 to {MAX_BYTES}"
    TOO_LARGE = "a number is larger than a double can hold"
    BAD_NAME = f"a name is empty, not printable or longer than {_MAX_NAME} characters: changed"
    TOO_MANY = f"it has more than {_MAX_NAMES} names"


class BadLine(Exception):
    """A line that is no snapshot."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class _TooLarge:
    """Stands for an integer whose digits are not worth reading."""


_TOO_LARGE: Final = _TooLarge()


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
        if name == "step" or not _is_number(number):
            continue
        if number is _TOO_LARGE:
            faults.add(Fault.BAD_TOTAL if name == "total_steps" else Fault.TOO_LARGE)
        else:
            _add(snapshot, name, number, faults)
    return snapshot, faults


def count_of(number: float, *, most: int = MAX_COUNT) -> int | None:
    """A number as a count from 0 to `most`; None if it is none. Fractions are cut off."""
    return int(number) if math.isfinite(number) and 0 <= number <= most else None


def _load(raw: bytes, faults: set[Fault]) -> dict[str, Any]:
    flat = _without_deep(raw)
    if flat is not raw:
        faults.add(Fault.TOO_DEEP)
    try:
        # As text: the parser would take bytes for UTF-16 where they look like it.
        value = json.loads(flat.decode("utf-8-sig"), parse_int=_integer)
    except ValueError:
        raise BadLine(Fault.NOT_JSON) from None
    if not isinstance(value, dict):
        raise BadLine(Fault.NOT_AN_OBJECT)
    return value


def _without_deep(raw: bytes) -> bytes:
    """The line as it is; if it is nested too deep to be parsed, with `null` for what is nested.

    Nothing that is nested is a number of the snapshot.
    """
    if raw.count(b"[") + raw.count(b"{") <= _MAX_DEPTH:
        return raw
    depth = deepest = kept_to = 0
    pieces = []
    for token in _BRACKETS.finditer(raw):
        kind = token[0][:1]
        if kind in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if depth == 2:
                pieces.append(raw[kept_to : token.start()] + b"null")
        elif kind in b"]}":
            depth -= 1
            if depth == 1:
                kept_to = token.end()
    if deepest <= _MAX_DEPTH:
        return raw
    if depth <= 1:
        pieces.append(raw[kept_to:])
    return b"".join(pieces)


def _integer(digits: str) -> int | _TooLarge:
    return int(digits) if len(digits) <= _MAX_DIGITS else _TOO_LARGE


def _step(value: dict[str, Any]) -> int:
    step: Any = value.get("step")
    if not _is_number(step):
        raise BadLine(Fault.NO_STEP)
    if step is _TOO_LARGE or (count := count_of(abs(step))) is None:
        raise BadLine(Fault.BAD_STEP)
    return count if step >= 0 else -count


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | _TooLarge) and not isinstance(value, bool)


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
    try:
        double = float(number)
    except OverflowError:
        faults.add(Fault.TOO_LARGE)
        return
    if known in _DOUBLES:
        setattr(snapshot, known, double)
        return
    named = _name(name)
    if named != name:
        faults.add(Fault.BAD_NAME)
    if named.startswith("eval_"):
        snapshot.eval_metrics[named] = double
    else:
        snapshot.extra[named] = double


def _name(name: str) -> str:
    """A name that can be stored and shown."""
    name = name[:_MAX_NAME]
    if not name.isprintable():
        name = "".join(each if each.isprintable() else _UNPRINTABLE for each in name)
    return name or _UNPRINTABLE
