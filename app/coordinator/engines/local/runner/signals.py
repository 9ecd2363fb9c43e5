"""Signals to a runner, as something to wait for."""

import os
import select
import signal
from contextlib import suppress

from app.coordinator.engines.local.runner_protocol import RUNNER_SIGNALS

_READ = 64


class RunnerSignals:
    """Receives the process's signals. One for a process: it installs their handlers.

    RUNNER_SIGNALS, which the launcher has blocked, are taken from here on;
    SIGCHLD only wakes, SIGINT and SIGHUP are ignored.
    """

    def __init__(self) -> None:
        #: Readable when a signal has come.
        self.file, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup)
        for number in (*RUNNER_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, RUNNER_SIGNALS)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def take(self) -> list[int]:
        """Return the signals that have come since the last call, in order."""
        with suppress(BlockingIOError):
            return list(os.read(self.file, _READ))
        return []

    def wait(self, seconds: float) -> None:
        """Return when a signal comes, or after some seconds."""
        select.select([self.file], [], [], max(seconds, 0.0))
