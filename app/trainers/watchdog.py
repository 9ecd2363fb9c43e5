"""Says so when training stands still, without ending it."""

import faulthandler
import logging
import sys
import threading
from collections.abc import Callable
from typing import Final

from .metrics import MetricsFile, StepTimes

log: Final = logging.getLogger(__name__)

#: A step is missed after so many times the median time of a step,
FACTOR: Final = 10.0
#: but not before so many seconds: machines pause for that long without a fault.
AT_LEAST: Final = 10.0
#: Steps that the median needs; the first ones compile and fill caches.
_STEPS: Final = 3
_LOOK: Final = 1.0


class Watchdog:
    """Watches the time since the last step, in a thread of its own.

    `pause` and `resume` stand around what is no step: evaluations, saves, compilation.
    """

    def __init__(
        self,
        times: StepTimes,
        metrics: MetricsFile,
        clock: Callable[[], float],
        *,
        dump: Callable[[], None] | None = None,
    ) -> None:
        """`dump` writes all stacks; the process's standard error by default."""
        self._times = times
        self._metrics = metrics
        self._clock = clock
        self._dump = dump or _dump_stacks
        self._lock = threading.Lock()
        self._since = clock()
        self._step = 0
        self._paused = 0
        self._stalled = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, step: int) -> None:
        """Begin to watch."""
        self.alive(step)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def alive(self, step: int) -> None:
        """A step has ended, or something else shows that training goes on."""
        with self._lock:
            was = self._clock() - self._since
            self._since = self._clock()
            self._step = step
            stalled, self._stalled = self._stalled, False
        if stalled:
            log.warning("Training goes on after %.0f s without a step.", was)
            self._metrics.write(step, {"stalled_seconds": 0.0})

    def pause(self) -> None:
        """What takes long from here on is meant to."""
        with self._lock:
            self._paused += 1

    def resume(self) -> None:
        """End what `pause` began."""
        with self._lock:
            self._paused = max(self._paused - 1, 0)
            self._since = self._clock()

    def look(self) -> bool:
        """Complain once if a step is missing; return whether it did."""
        usual = self._times.median
        with self._lock:
            if usual is None or self._times.measured < _STEPS or self._paused or self._stalled:
                return False
            limit = max(FACTOR * usual, AT_LEAST)
            waited = self._clock() - self._since
            if waited < limit:
                return False
            self._stalled = True
            step = self._step
        log.warning(
            "No step for %.0f s after step %d; a step takes %.2f s usually. Training may hang: the"
            " stacks of all threads follow. The run goes on.",
            waited,
            step,
            usual,
        )
        self._dump()
        self._metrics.write(step, {"stalled_seconds": waited})
        return True

    def _run(self) -> None:
        while not self._ended.wait(_LOOK):
            self.look()


def _dump_stacks() -> None:
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
