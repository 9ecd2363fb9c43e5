"""One run, from the start of its processes to `exit.json`."""

import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Any, Final

from app.coordinator.engines.local.run_orders import is_ordered
from app.coordinator.engines.local.runner.keeper import KEEPER_GONE, Keeper
from app.coordinator.engines.local.runner.outputs import RunOutputs
from app.coordinator.engines.local.runner.process import TrainingProcess
from app.coordinator.engines.local.runner.record import RunnerRecord
from app.coordinator.engines.local.runner.result import RunResult
from app.coordinator.engines.local.runner.signals import RunnerSignals
from app.coordinator.engines.local.runner.telemetry import RunTelemetry
from app.coordinator.engines.local.runner_protocol import (
    RUNNER_SIGNALS,
    inherited_lock,
    leave_exit,
)
from app.coordinator.failures import FailureBackoff, is_disk_full, is_passing
from app.coordinator.isolation.ending.processes import end_descendants
from app.coordinator.isolation.levels import BEFORE_LEVELS, Level
from app.coordinator.isolation.ownership import give_to_job, open_to_job
from app.coordinator.isolation.sandbox import Sandbox
from app.coordinator.jobs.secrets import Concealer, put_in, read_secrets
from app.coordinator.logs.new_entry import AnyEntry
from app.coordinator.resources.resource_watch import Bounds, ResourceWatch
from app.coordinator.storage.job_directory import RunDir

#: Seconds that a batch of lines may be held back while lines keep coming, unless as much was read
#: as is read at once.
COALESCE: Final = 0.003
#: Seconds to read on after the processes have gone, if somebody keeps their pipes open.
LINGER: Final = 5.0
#: Seconds that a full disk has to take the last lines of a run that left by itself; of one that was
#: asked to leave or ended it has LINGER.
ROOM_PATIENCE: Final = 30.0
#: Seconds to try to end what is left, after which the coordinator goes on.
LEFT_PATIENCE: Final = 30.0


class NotEnded(Exception):
    """Something of the run lives and cannot be ended from here: the run is not over."""


class Runner:
    """One run, from the start of its processes to `exit.json`."""

    def __init__(self, directory: RunDir, spec: dict[str, Any], resources: ExitStack) -> None:
        self._directory = directory
        self._spec = spec
        self._grace: float = spec["grace_seconds"]
        self._telemetry = RunTelemetry(directory, spec, resources)
        self._watch = ResourceWatch(Bounds.of(spec.get("limits", {})))
        resources.enter_context(closing(self._watch))
        self._selector = resources.enter_context(selectors.DefaultSelector())
        self._signals = RunnerSignals()
        self._selector.register(self._signals.file, selectors.EVENT_READ)
        self._keeper = Keeper(spec.get("keeper", {}))
        resources.enter_context(closing(self._keeper))
        if self._keeper.file is not None:
            self._selector.register(self._keeper.file, selectors.EVENT_READ, self._keeper)
        self._resources = resources
        #: A specification of a coordinator that isolated by Landlock alone has no such section.
        self._isolation: dict[str, Any] = spec.get("isolation", BEFORE_LEVELS)
        self._sandbox: Sandbox | None = None
        self._outputs = RunOutputs(self._selector)
        self._record = RunnerRecord(directory)
        self._result = RunResult()
        self._give_up_at: float | None = None
        self._kill_at: float | None = None

    def run(self) -> None:
        """Carry the run out. Raises NotEnded; then it leaves no `exit.json`."""
        try:
            if self._spec["announce"]:
                self._telemetry.say(self._spec["announce"])
            for warning in self._spec.get("warnings", ()):
                self._telemetry.say(warning, warning=True)
            self._start()
        except OSError as error:
            self._result.fail(
                f"The training process could not be started: {error.strerror}.",
                transient=is_passing(error),
            )
            self._end_all()
        else:
            self._telemetry.start_gpus()
            self._watch_resources()
            self._supervise()
        self._leave_behind()

    def _start(self) -> None:
        # It must be there: the processes may write it, but make nothing beside it.
        self._with_room(self._directory.metrics_file.touch)
        secrets = read_secrets(self._spec.get("secrets", ""))
        conceal = Concealer(secrets.values())
        for spec in self._spec["ranks"]:
            put_in(spec["env"], secrets)
        isolation = self._isolation
        if isolation["uid"] is not None:
            writable = self._spec["confinement"]["writable"]
            give_to_job(writable, isolation["uid"])
            reached = [*writable, *isolation.get("reached", ())]
            open_to_job(isolation["opened"], reached=reached, roots=isolation["roots"])
        if link := isolation.get("temporary_link"):
            os.symlink(isolation["temporary"], link)
            self._resources.callback(os.unlink, link)
        self._with_room(lambda: self._record.write(self._sandbox))
        self._sandbox = self._resources.enter_context(
            closing(
                Sandbox(
                    isolation,
                    confinement=self._spec["confinement"],
                    limits=self._spec.get("limits", {}),
                    ranks=self._spec["ranks"],
                    held=inherited_lock(),
                )
            )
        )
        self._selector.register(self._sandbox.reports, selectors.EVENT_READ, self._sandbox)
        pairs = zip(self._spec["ranks"], self._sandbox.outputs, strict=True)
        for number, (spec, outputs) in enumerate(pairs):
            # Of a run over several nodes, only some of the ranks are here.
            number = spec.get("rank", number)
            rank = TrainingProcess(number, spec["node_id"], outputs, conceal=conceal)
            self._resources.callback(rank.close)
            self._result.processes.append(rank)
            self._outputs.add(rank)
        # Before anything of the job runs: whoever ends the run in this runner's stead must find it.
        self._with_room(lambda: self._record.write(self._sandbox))
        self._watch.enclose(self._sandbox.first_pid)
        self._sandbox.begin()

    def _with_room(self, write: Callable[[], object]) -> None:
        """Write something, again and again while the disk is full and no signal comes.

        Raises OSError.
        """
        backoff = FailureBackoff()
        while True:
            try:
                write()
            except OSError as error:
                if not is_disk_full(error) or self._asked_within(backoff.after_failure()):
                    raise
            else:
                return

    def _asked_within(self, seconds: float) -> bool:
        """Whether a signal asks the run to leave before it has begun; waits for one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._signals.wait(left)
            asked = set(self._signals.take()) & set(RUNNER_SIGNALS)
            if any(is_ordered(self._directory, self._spec, number) for number in asked):
                self._result.stopped = True
                return True
        return False

    def _watch_resources(self) -> None:
        assert self._sandbox is not None
        self._watch.start(
            self._sandbox.first_pid,
            own_shared_memory=self._isolation["level"] == Level.NAMESPACES,
        )

    def _look_at_resources(self) -> None:
        """End the run if it uses more than it may."""
        if problem := self._watch.take_problem():
            self._telemetry.say(problem, warning=True)
        result = self._result
        if not result.living or result.failure or not (reason := self._watch.reason()):
            return
        result.fail(f"The run {reason}.")
        self._telemetry.say(f"{result.failure} Ending it.", warning=True)
        self._kill()

    def _supervise(self) -> None:
        try:
            self._read_until_gone()
        except OSError as error:
            # Not for a full disk: that is waited for.
            self._result.fail(
                f"The job's log could not be written: {error.strerror}.",
                transient=is_passing(error),
            )
            self._end_all()

    def _end_all(self) -> None:
        if self._sandbox is not None and not self._result.over:
            self._result.add(self._sandbox.end(), overuse=self._watch.over)
            self._end_what_is_left()

    def _read_until_gone(self) -> None:
        over_at: float | None = None
        while True:
            ready = self._selector.select(self._patience(over_at))
            lines: list[AnyEntry] = []
            more = False
            for key, _ in ready:
                if key.data is None:
                    self._take_signals()
                elif key.data is self._keeper:
                    self._end_without_keeper()
                elif key.data is self._sandbox:
                    self._take_report()
                else:
                    lines += self._outputs.read(key.data)
                    more |= key.data.full
            lines += self._outputs.progress()
            self._telemetry.write(lines)
            # While something waits to be written, who writes on waits, too.
            self._outputs.hold(self._telemetry.waits)
            moment = time.monotonic()
            if self._kill_at is not None and moment >= self._kill_at:
                self._kill_at = None
                self._telemetry.say(
                    f"The run did not stop within {self._grace:g} s and was killed.", warning=True
                )
                self._kill()
            if moment >= self._telemetry.due:
                self._telemetry.read_metrics()
                self._telemetry.say_notes()
                self._look_at_resources()
            self._record.update_if_due(self._sandbox)
            if self._result.over and (over_at is None or self._outputs.held):
                over_at = moment + LINGER
            if over_at is not None and self._is_read(over_at):
                break
            if lines and not more:
                time.sleep(COALESCE)
        self._telemetry.write(self._outputs.rest())
        self._telemetry.read_metrics(last=True)
        self._telemetry.say_notes()

    def _is_read(self, over_at: float) -> bool:
        """Whether nothing more is to be read of a run that is over."""
        if self._outputs.held:
            return not self._may_wait()
        return time.monotonic() >= over_at or self._outputs.at_end

    def _may_wait(self) -> bool:
        """Whether a run that is over still waits for room on the disk."""
        if self._give_up_at is None:
            ended = self._result.failure or self._result.stopped
            patience = LINGER if ended else ROOM_PATIENCE
            self._give_up_at = time.monotonic() + patience
        return time.monotonic() < self._give_up_at

    def _take_report(self) -> None:
        """Take note of what the first process tells."""
        assert self._sandbox is not None
        report = self._sandbox.report()
        self._result.add(report, overuse=self._watch.over)
        if report.over:
            self._selector.unregister(self._sandbox.reports)
            self._end_what_is_left()
        elif report.started:
            self._record.update(self._sandbox)
        if not self._result.living:
            self._kill_at = None
        elif self._result.must_be_killed:
            self._kill()

    def _end_what_is_left(self) -> None:
        """Without namespaces, end what a first process that was killed could not.

        Raises NotEnded.
        """
        if self._isolation["level"] == Level.NAMESPACES:
            return
        deadline = time.monotonic() + LEFT_PATIENCE
        backoff = FailureBackoff()
        while True:
            try:
                end_descendants(self._isolation["uid"])
            except OSError as error:
                # It goes to `runner.err`.
                sys.stderr.write(f"what is left of the run cannot be ended: {error}\n")
                if time.monotonic() > deadline:
                    raise NotEnded from error
                time.sleep(backoff.after_failure())
            else:
                return

    def _kill(self) -> None:
        assert self._sandbox is not None
        self._sandbox.kill()

    def _end_without_keeper(self) -> None:
        """End the run at once: from now on nobody knows that it is here."""
        assert self._keeper.file is not None
        self._selector.unregister(self._keeper.file)
        if self._result.living and not self._result.failure:
            self._result.fail(KEEPER_GONE, transient=True)
            self._telemetry.say(f"{KEEPER_GONE} Ending the run.", warning=True)
            self._kill()

    def _patience(self, over_at: float | None) -> float:
        """Seconds until something is due though nothing happens."""
        due = [self._telemetry.due]
        due += self._outputs.due()
        due += [at for at in (self._kill_at, over_at) if at is not None]
        return max(min(due) - time.monotonic(), 0.0)

    def _take_signals(self) -> None:
        for number in self._signals.take():
            if not self._result.living or self._sandbox is None:
                continue
            if number in RUNNER_SIGNALS and not is_ordered(self._directory, self._spec, number):
                continue
            if number == signal.SIGTERM and not self._result.stopped:
                self._result.stopped = True
                self._kill_at = time.monotonic() + self._grace
                self._sandbox.ask_to_leave()
            elif number == signal.SIGUSR1:
                self._result.stopped = True
                self._kill()

    def _await_room(self) -> None:
        """Have what was read written, for a bounded time: the run is over."""
        while self._telemetry.waits and self._may_wait():
            self._signals.wait(self._telemetry.retry_at - time.monotonic())
            self._signals.take()
            self._telemetry.write([])
            if not self._telemetry.waits:
                self._telemetry.read_metrics(last=True)

    def _leave_behind(self) -> None:
        with suppress(OSError):
            self._telemetry.say_what_was_left_out()
        if line := self._result.exit_line():
            text, warning = line
            with suppress(OSError):
                self._telemetry.say(text, warning=warning)
        with suppress(OSError):
            self._await_room()
        if self._telemetry.has_lost or self._outputs.has_unread():
            self._result.add_loss(self._telemetry.obstacle)
        leave_exit(self._directory, self._result.as_json())
