"""What a job's log is told of an installation, however much that says."""

from pathlib import Path

from app.coordinator.logs.lines import Line
from app.coordinator.packages.build_log import MAX_BYTES, MAX_LINES, BuildLog
from generated.mindcoordinator.v1.watch_pb2 import LogLevel


def taken(*lines: bytes) -> tuple[list[Line], BuildLog]:
    said: list[Line] = []

    def say(line: Line, *, source: str = "coordinator") -> None:
        assert (source == "coordinator") == ("left out" in line.message)
        said.append(line)

    log = BuildLog(say, places={Path("/data/job/env"): "<env>", Path("/data/job"): "<job>"})
    for line in lines:
        log.take(line)
    log.close()
    return said, log


def test_lines_are_told_with_their_levels_and_without_credentials() -> None:
    said, _ = taken(
        b"Resolved 2 packages", b"warning: odd", b"https://me:s3cr3tpassw0rd@host/simple"
    )

    assert [line.level for line in said] == [
        LogLevel.LOG_LEVEL_INFO,
        LogLevel.LOG_LEVEL_WARNING,
        LogLevel.LOG_LEVEL_INFO,
    ]
    assert "s3cr3tpassw0rd" not in said[2].message


def test_lines_beyond_the_bound_are_counted_and_the_last_are_told() -> None:
    said, log = taken(*(b"line %d" % number for number in range(MAX_LINES + 100)), b"error: why")

    told = [line.message for line in said]
    assert told[MAX_LINES] == "61 lines of uv are left out here."
    assert told[-1] == "error: why"
    assert len(told) == MAX_LINES + 1 + 40
    assert log.reason() == "error: why"


def test_bytes_are_bounded_too() -> None:
    said, _ = taken(*[b"x" * 60_000] * 50)

    assert sum(len(line.message) for line in said) < MAX_BYTES + 41 * 60_000
    assert any("left out" in line.message for line in said)


def test_paths_of_the_machine_are_not_told() -> None:
    said, log = taken(b"error: not found at file:///data/job/x.whl or /data/job/env/lib")

    assert said[0].message == "error: not found at file://<job>/x.whl or <env>/lib"
    assert log.reason() == said[0].message


def test_the_reason_is_what_was_said_from_the_first_error_on() -> None:
    _, log = taken(b"Resolved 1 package", b"error: No solution", b"  cause: Because", b"     and")

    assert log.reason() == "error: No solution cause: Because and"
