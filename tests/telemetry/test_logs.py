"""One JSON object a line, whoever logs, with what the context knows, without secrets."""

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app.telemetry import logs
from app.telemetry.settings import TelemetrySettings

KEY = "sgk_" + "k" * 43


class Output(io.BytesIO):
    """What was logged, line by line."""

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def out() -> Iterator[Output]:
    root = logging.getLogger()
    names = ("alembic", "grpc", "asyncio")
    levels = {each: logging.getLogger(each).level for each in names}
    before = root.level, list(root.handlers)
    output = Output()
    logs.configure(TelemetrySettings(), out=output, known_secrets=("the-api-secret",))
    yield output
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_an_event_is_one_line_with_its_context(out: Output) -> None:
    structlog.contextvars.bind_contextvars(request_id="req_1", tenant_id="acme", user_id="ann")
    structlog.get_logger().info("thing_done", count=3, text="two\nlines")
    assert out.getvalue().count(b"\n") == 1
    [event] = out.events()
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "thing_done",
        "level": "info",
        "request_id": "req_1",
        "tenant_id": "acme",
        "user_id": "ann",
        "count": 3,
        "text": "two\nlines",
    }


def test_its_time_is_that_of_the_clock(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1_790_000_000_123_456_789, 1_790_000_000_000_000_999, 1_790_000_001_000_000_000]
    monkeypatch.setattr(time, "time_ns", iter(times).__next__)
    for _ in times:
        structlog.get_logger().info("thing_done")
    assert [event["timestamp"] for event in out.events()] == [
        "2026-09-21T14:13:20.123456Z",
        "2026-09-21T14:13:20.000000Z",
        "2026-09-21T14:13:21.000000Z",
    ]


def test_for_good_a_logger_is_made_once(out: Output) -> None:
    later, log = Output(), structlog.get_logger()
    logs.configure(TelemetrySettings(), out=out, for_good=True)
    log.info("one")
    logs.configure(TelemetrySettings(), out=later)
    log.info("two")
    assert [event["event"] for event in out.events()] == ["one", "two"]
    assert later.getvalue() == b""


@pytest.mark.writes_secrets
def test_the_standard_library_goes_the_same_way(out: Output) -> None:
    structlog.contextvars.bind_contextvars(request_id="req_1")
    logging.getLogger("aiohttp.server").error("went %s with %s", "wrong", KEY)
    [event] = out.events()
    assert event["event"] == "went wrong with ***"
    assert (event["logger"], event["level"]) == ("aiohttp.server", "error")
    assert event["request_id"] == "req_1"


@pytest.mark.writes_secrets
def test_exceptions_are_within_the_line_and_without_secrets(out: Output) -> None:
    try:
        raise ValueError(f"cannot use {KEY}")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("some.library").exception("failed too")
    ours, theirs = out.events()
    for event in (ours, theirs):
        assert "ValueError: cannot use ***" in event["exception"]
        assert "Traceback" in event["exception"]
    assert KEY.encode() not in out.getvalue()


def test_levels_below_the_setting_are_left_out(out: Output) -> None:
    structlog.get_logger().debug("quiet")
    logging.getLogger("some.library").debug("quiet")
    logging.getLogger("alembic.runtime.migration").info("Context impl PostgresqlImpl.")
    assert out.events() == []


def test_a_level_of_its_own_is_taken_for_the_next_lower_one(out: Output) -> None:
    logging.getLogger("some.library").log(35, "noticed")
    assert out.events()[0]["level"] == "warning"


def test_a_record_that_does_not_fit_its_text_is_logged_nevertheless(out: Output) -> None:
    record = logging.makeLogRecord({"msg": "%d things", "args": ("many",), "levelno": 30})
    logs.StandardLibraryHandler(structlog.get_logger()).handle(record)
    assert out.events()[0]["event"] == "%d things"


@pytest.mark.parametrize(
    "value",
    ["\ud800", 2**70, {1: {2, 3}}, object(), {"a": ["\udfff", 2**70]}, b"\xff", float("nan")],
)
def test_no_value_can_cost_the_line(out: Output, value: Any) -> None:
    structlog.get_logger().info("strange", value=value)
    [event] = out.events()
    assert event["event"] == "strange"
    assert "value" in event


def test_known_secrets_do_not_appear(out: Output) -> None:
    structlog.get_logger().info(
        "calling", header="x: the-api-secret", nested={"a": ["the-api-secret"]}
    )
    assert b"the-api-secret" not in out.getvalue()
    assert out.events()[0]["header"] == "x: ***"


def test_configuring_again_replaces(out: Output) -> None:
    other = Output()
    logs.configure(TelemetrySettings(log_level="error"), out=other)
    logging.getLogger("some.library").error("once")
    logging.getLogger("some.library").warning("not at all")
    assert out.events() == []
    assert [event["event"] for event in other.events()] == ["once"]
