"""How far a job is, in the last line of a terminal."""

import threading
import time
from contextlib import suppress

from scaimind import models
from scaimind.cli.output import printable
from scaimind.cli.status_line import StatusLine, bar
from scaimind.cli.times import span
from scaimind.client import Client
from scaimind.core.events import JobChanged
from scaimind.core.follow import ended


class Progress:
    """Follows a job's state in a thread of its own, and writes it into a status line.

    `status` is the newest; empty while it is not known.
    """

    def __init__(self, made: Client, job_id: str, line: StatusLine) -> None:
        self.status = ""
        self._made = made
        self._job_id = job_id
        self._line = line
        self._pace = Pace()
        self._stopped = False

    def start(self) -> None:
        """Begin; nothing where nobody would see it. The thread does not keep the command."""
        if self._line.visible:
            threading.Thread(target=self._follow, name="progress", daemon=True).start()

    def stop(self) -> None:
        """Write no more, and remove the line."""
        self._stopped = True
        self._line.show("")

    def _follow(self) -> None:
        # The line is an addition: whatever happens to it, the log goes on. A gateway may not have
        # it, and the client is closed under it in the end.
        with suppress(Exception):
            for event in self._made.events(job_id=self._job_id):
                if self._stopped:
                    return
                if isinstance(event, JobChanged):
                    self.status = event.job.status
                    self._line.show("" if ended(self.status) else self._text(event.job))

    def _text(self, job: models.JobState) -> str:
        if job.progress is None or not job.progress.step or job.status == "PAUSED":
            return printable(f"{job.status}  {job.message}")
        return describe(job.progress, self._pace.of(job.progress, time.monotonic()))


class Pace:
    """Steps in a second, since the first step that was seen of this run."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._last = 0

    def of(self, progress: models.JobProgress, now: float) -> float:
        """Return it at a time in seconds; 0 while it is not known."""
        if self._first is None or progress.step < self._last:
            self._first = progress.step, now
        self._last = progress.step
        step, since = self._first
        return (progress.step - step) / (now - since) if now > since else 0.0


def describe(progress: models.JobProgress, pace: float) -> str:
    """Return how far a job is, for people: with a bar where its end is known."""
    step, total = progress.step, progress.total_steps
    parts = [f"step {step:,}"]
    if total > 0:
        share = min(step / total, 1.0)
        parts = [f"{bar(share)} {share:.0%}", f"step {step:,} of {total:,}"]
    if pace > 0:
        parts.append(f"{pace:.3g} steps/s")
        if total > step:
            parts.append(f"{span((total - step) / pace)} left")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    return "  ".join(parts)
