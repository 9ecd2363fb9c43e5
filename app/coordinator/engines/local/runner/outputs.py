"""The outputs of a run's training processes, as the runner reads them."""

import selectors

from app.coordinator.engines.local.runner.process import Pipe, TrainingProcess
from app.coordinator.logs.new_entry import AnyEntry, NewEntry


class RunOutputs:
    """The pipes of all processes of a run, registered with the runner's selector.

    While they are held, nothing is read: a process that keeps writing waits.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._pipes: list[Pipe] = []
        #: Those that are not at their end.
        self._open: list[Pipe] = []
        self.held = False

    @property
    def at_end(self) -> bool:
        """Whether nobody can write to any of them anymore."""
        return not self._open

    def add(self, process: TrainingProcess) -> None:
        """Read a process's outputs from now on."""
        for pipe in process.pipes:
            self._selector.register(pipe.file, selectors.EVENT_READ, pipe)
            self._pipes.append(pipe)
            self._open.append(pipe)

    def read(self, pipe: Pipe) -> list[AnyEntry]:
        """Return the lines that a readable pipe has."""
        entries = pipe.read()
        if entries is None:
            self._selector.unregister(pipe.file)
            self._open.remove(pipe)
            return []
        return entries

    def progress(self) -> list[NewEntry]:
        """Return what is due of bars and unfinished lines; none while the pipes are held."""
        if self.held:
            return []
        return [entry for pipe in self._pipes for entry in pipe.progress()]

    def rest(self) -> list[NewEntry]:
        """Return what is left of unfinished lines. Call once, at the end."""
        return [entry for pipe in self._pipes for entry in pipe.end()]

    def due(self) -> list[float]:
        """Return when progress bars and unfinished lines are due, on the monotonic clock."""
        if self.held:
            return []
        return [at for pipe in self._pipes if (at := pipe.splitter.due()) is not None]

    def hold(self, held: bool) -> None:
        """Stop reading, or continue."""
        if self.held == held:
            return
        self.held = held
        for pipe in self._open:
            if held:
                self._selector.unregister(pipe.file)
            else:
                self._selector.register(pipe.file, selectors.EVENT_READ, pipe)

    def has_unread(self) -> bool:
        """Whether the pipes are held and something was written to them."""
        return self.held and any(pipe.unread() for pipe in self._open)
