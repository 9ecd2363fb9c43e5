"""The watchdog says that training stands still, once, and ends nothing."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from app.trainers.metrics import MetricsFile, Progress, StepTimes, numbers
from app.trainers.watchdog import AT_LEAST, Watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Training:
    """A training whose steps take as long as a test says."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.times = StepTimes(self.clock)
        self.path = folder / "metrics"
        self.dumps = 0
        self.watchdog = Watchdog(
            self.times, MetricsFile(self.path), self.clock, dump=self._note_dump
        )
        self.step = 0
        self.times.begin()

    def _note_dump(self) -> None:
        self.dumps += 1

    def train(self, *durations: float) -> None:
        for each in durations:
            self.clock.now += each
            self.step += 1
            self.times.ended()
            self.watchdog.alive(self.step)

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_ten_times_the_usual_step_without_one_is_said_once(
    training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    training.train(3, 2, 2, 2, 9)
    training.clock.now += 19
    assert not training.watchdog.look()
    training.clock.now += 2
    with caplog.at_level(logging.WARNING):
        assert training.watchdog.look()
    assert "No step for 21 s after step 5; a step takes 2.00 s usually" in caplog.text
    assert training.dumps == 1
    training.clock.now += 1000
    assert not training.watchdog.look()
    assert training.metrics() == [{"step": 5, "stalled_seconds": 21}]


def test_a_step_that_comes_after_all_is_said_too(training: Training) -> None:
    training.train(2, 2, 2)
    training.clock.now += 25
    assert training.watchdog.look()
    training.train(1)
    assert training.metrics()[-1] == {"step": 4, "stalled_seconds": 0}
    # And another one is said again.
    training.clock.now += 25
    assert training.watchdog.look()


def test_short_steps_are_not_missed_at_once(training: Training) -> None:
    training.train(*[0.01] * 9)
    training.clock.now += AT_LEAST - 1
    assert not training.watchdog.look()
    training.clock.now += 2
    assert training.watchdog.look()


def test_evaluations_saves_and_compilations_are_no_steps(training: Training) -> None:
    training.train(2, 2, 2)
    training.watchdog.pause()
    training.watchdog.pause()
    training.clock.now += 5000
    assert not training.watchdog.look()
    training.watchdog.resume()
    training.clock.now += 5000
    assert not training.watchdog.look()
    training.watchdog.resume()
    training.clock.now += 19
    assert not training.watchdog.look()
    training.clock.now += 2
    assert training.watchdog.look()


def test_the_first_steps_set_no_measure(training: Training) -> None:
    training.train(2, 2)
    training.clock.now += 5000
    assert not training.watchdog.look()


def test_the_speed_leaves_out_what_is_no_step(training: Training) -> None:
    progress = Progress(training.times, training.clock)
    progress.begin(0)
    training.train(2, 2)
    # An evaluation.
    training.clock.now += 100
    training.times.begin()
    training.train(2, 2)
    values = progress.of(4, 10, 0.5, samples_per_step=16)
    assert values == {
        "epoch": 0.5,
        "total_steps": 10,
        "progress": 0.4,
        "remaining_seconds": 12,
        "samples_per_second": 8,
    }
    assert progress.tokens(800) == {"tokens_per_second": 100}
    progress.measured(4)
    training.train(1)
    assert progress.of(5, 10, 0.6, samples_per_step=16)["samples_per_second"] == 16
    assert progress.tokens(1000) == {"tokens_per_second": 200}


def test_the_mean_loss_of_the_run_is_not_taken_for_that_of_a_step() -> None:
    logs = {"train_loss": 2.5, "loss": 1.5, "ok": True, "note": "x", "eval_loss": 1}
    assert numbers(logs) == {"mean_train_loss": 2.5, "loss": 1.5, "eval_loss": 1}
