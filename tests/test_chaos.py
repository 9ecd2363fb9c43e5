"""What `scripts/chaos` counts: a line that is lost, doubled or another one does not pass."""

from collections.abc import Callable

import pytest

from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel
from scripts.chaos_rig.tally import Tally, table
from scripts.chaos_rig.watching import Watcher
from scripts.chaos_rig.world import Workload

LINES = 6
WORKLOAD = Workload("job-1", LINES)


def log(*, level: LogLevel.ValueType = LogLevel.LOG_LEVEL_INFO) -> list[LogEntry]:
    return [
        LogEntry(offset=number, level=level, source="stdout", message=f"INFO: line {number}")
        for number in range(1, LINES + 1)
    ]


def client(level: str = "DEBUG") -> Watcher:
    """One that got all of it."""
    watcher = Watcher("", "", level=level, ended=True)
    watcher.lines = [(entry.offset, entry.message) for entry in log()]
    return watcher


def judged(watcher: Watcher) -> Tally:
    tally = Tally("test")
    tally.judge(watcher, log())
    return tally


def test_a_client_that_got_everything_costs_nothing() -> None:
    tally = judged(client())
    tally.judge_log(WORKLOAD, log())
    assert (tally.clients, tally.lines, tally.lost, tally.doubled) == (1, LINES, 0, 0)
    assert not tally.bad
    assert "test" in table([tally])


def test_lines_below_the_level_are_not_missed() -> None:
    watcher = client("ERROR")
    watcher.lines = []
    assert not judged(watcher).bad


@pytest.mark.parametrize(
    ("harm", "lost", "doubled", "told"),
    [
        (lambda watcher: watcher.lines.pop(3), 1, 0, 0),
        (lambda watcher: watcher.lines.insert(3, watcher.lines[3]), 0, 1, 0),
        (lambda watcher: watcher.lines.reverse(), 0, 0, 0),
        (lambda watcher: watcher.lines.__setitem__(2, (3, "INFO: line 4")), 0, 0, 0),
        (lambda watcher: watcher.wrong.append("500 COORDINATOR_ERROR"), 0, 0, 0),
        (lambda watcher: setattr(watcher, "ended", False), 0, 0, 0),
        (
            lambda watcher: (watcher.lines.pop(3), watcher.told.append((4, 4))),
            *(0, 0, 1),
        ),
    ],
    ids=["lost", "doubled", "disordered", "another line", "wrong answer", "no end", "false gap"],
)
def test_harm_is_counted(
    harm: Callable[[Watcher], object], lost: int, doubled: int, told: int
) -> None:
    watcher = client()
    harm(watcher)
    tally = judged(watcher)
    assert (tally.lost, tally.doubled, tally.told) == (lost, doubled, told)
    assert tally.bad


def test_a_line_that_the_log_itself_lacks_is_lost() -> None:
    tally = Tally("test")
    tally.judge_log(WORKLOAD, log()[1:])
    assert tally.lost == 1
