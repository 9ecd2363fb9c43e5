"""What the trainer logs, as lines of the metrics file, with the run's progress and speed.

Reserved names beside the trainer's own: `step`, `total_steps`, `epoch`, `progress` (0 to 1),
`remaining_seconds`, `samples_per_second`, `tokens_per_second`, and `stalled_seconds` (how long
there has been no step, where the watchdog complains; 0 once training goes on).
"""

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

#: Steps that the speed is measured over.
_MEASURED: Final = 50
#: Seconds between lines that tell of nothing but progress.
_HEARTBEAT: Final = 5.0
#: The coordinator takes `train_loss` for the loss of a step; the trainer means the whole run's.
_RENAMED: Final[Mapping[str, str]] = {"train_loss": "mean_train_loss"}

#: Names that mean the same in all stages of a run.
_RESERVED: Final = frozenset({"total_steps", "progress", "remaining_seconds", "stalled_seconds"})


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a trainer's log, under the names that they are reported by."""
    return {
        _RENAMED.get(name, name): value
        for name, value in logs.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


class MetricsFile:
    """Appends lines. Safe for threads; without a path it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line. Raises OSError."""
        if self._path is None:
            return
        line = json.dumps({"step": step, **values})
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class StageMetrics(MetricsFile):
    """Lines of a training that comes before the job's own: its numbers have the stage's name."""

    def __init__(self, file: MetricsFile, stage: str) -> None:
        self._file = file
        self._stage = stage

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line. Raises OSError."""
        named = {
            name if name in _RESERVED else f"{self._stage}/{name}": value
            for name, value in values.items()
        }
        self._file.write(step, named)


class StepTimes:
    """How fast training is: times of the newest steps, without evaluations and saves."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._durations: deque[float] = deque(maxlen=_MEASURED)
        #: Seconds of training since the start.
        self.trained = 0.0

    def begin(self) -> None:
        """Training goes on: at its start, or behind an evaluation or a save."""
        self._since = self._clock()

    def ended(self) -> None:
        """A step has ended, and the next begins."""
        now = self._clock()
        if self._since is not None:
            self._durations.append(now - self._since)
            self.trained += now - self._since
        self._since = now

    @property
    def median(self) -> float | None:
        """The median time of a step, in seconds; None before the first."""
        return median(self._durations) if self._durations else None

    @property
    def measured(self) -> int:
        """How many steps the median is of."""
        return len(self._durations)


class Progress:
    """Makes the reserved numbers of a line."""

    def __init__(self, times: StepTimes, clock: Callable[[], float]) -> None:
        self._times = times
        self._clock = clock
        self._tokens = 0.0
        self._steps = 0
        self._trained = 0.0
        self._heartbeat = -math.inf

    def begin(self, step: int) -> None:
        """Training begins at this step."""
        self._steps = step

    def of(
        self, step: int, total: int, epoch: float | None, samples_per_step: int
    ) -> dict[str, float]:
        """Return how far the run is and how fast it has been since the last call."""
        values: dict[str, float] = {}
        if epoch is not None:
            values["epoch"] = epoch
        if total > 0:
            values["total_steps"] = total
            values["progress"] = min(step / total, 1.0)
            if (each := self._times.median) is not None:
                values["remaining_seconds"] = max(total - step, 0) * each
        trained = self._times.trained - self._trained
        if step > self._steps and trained > 0:
            values["samples_per_second"] = (step - self._steps) * samples_per_step / trained
        self._heartbeat = self._clock()
        return values

    def tokens(self, total: float) -> dict[str, float]:
        """Return the speed in tokens, from their number since the start; starts to measure anew."""
        trained = self._times.trained - self._trained
        new = total - self._tokens
        self._tokens = total
        return {"tokens_per_second": new / trained} if trained > 0 and new > 0 else {}

    def measured(self, step: int) -> None:
        """The speed is measured anew from here."""
        self._steps = step
        self._trained = self._times.trained

    @property
    def is_due(self) -> bool:
        """Whether progress alone is worth a line."""
        return self._clock() - self._heartbeat >= _HEARTBEAT
