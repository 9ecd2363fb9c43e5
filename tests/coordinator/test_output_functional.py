"""What a training process writes, however odd, as it is read back from its job's log."""

import asyncio
from pathlib import Path

from app.coordinator.logs.log import MAX_MESSAGE
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel
from tests.coordinator.harness import running, status_of


async def log_of(path: Path, script: str) -> list[LogEntry]:
    """The lines of a job that runs the script."""
    async with running(path) as (_, client):
        job_id = await client.submit(script)
        entries = await client.log(job_id)
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job
        assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
        return [entry for entry in entries if entry.source != "coordinator"]


async def test_a_line_of_ten_megabytes_is_cut_with_a_mark(tmp_path: Path) -> None:
    script = """
        import sys
        print("before")
        print("x" * 10_000_000)
        # Each becomes a replacement character of three bytes.
        sys.stdout.buffer.write(b"\\xff" * 10_000_000 + b"\\n")
        print("after")
    """
    before, long, odd, after = await log_of(tmp_path, script)
    assert (before.message, after.message) == ("before", "after")
    mark = " ... [cut: the line has 10000000 bytes]"
    assert long.message == "x" * MAX_MESSAGE + mark
    assert odd.message == "\ufffd" * MAX_MESSAGE + mark


async def test_bytes_that_are_not_utf8_survive_as_replacements(tmp_path: Path) -> None:
    script = r"""
        import sys
        sys.stdout.buffer.write(b"caf\xe9 \xf0\x9f\x98\x80 \x00 \xc3\n")
        sys.stdout.buffer.flush()
        sys.stderr.buffer.write(b"ERROR: \xed\xa0\x80\n")
    """
    entries = await log_of(tmp_path, script)
    by_source = {entry.source: entry for entry in entries}
    assert by_source["stdout"].message == "caf\ufffd \U0001f600 \0 \ufffd"
    assert by_source["stderr"].message == "ERROR: \ufffd\ufffd\ufffd"
    assert by_source["stderr"].level == LogLevel.LOG_LEVEL_ERROR


async def test_a_progress_bar_is_a_line_a_second_and_its_last_state(tmp_path: Path) -> None:
    script = """
        import sys, time
        began = time.monotonic()
        end = began + 2.5
        state = 0
        while time.monotonic() < end:
            state += 1
            sys.stdout.write(f"\\r{state} done")
            sys.stdout.flush()
            time.sleep(0.005)
        print("\\rall done")
        print("next", state, time.monotonic() - began)
    """
    *states, last, after = await log_of(tmp_path, script)
    assert last.message == "all done"
    assert after.message.startswith("next ")
    shown = [int(entry.message.removesuffix(" done")) for entry in states]
    assert shown == sorted(set(shown))
    # However slow this machine is: states are a second apart when they are taken, and the last one
    # may be taken when the bar is at its end.
    _, written, seconds = after.message.split()
    assert 0 < len(states) <= float(seconds) + 2
    assert len(states) < int(written) / 2


async def test_lines_appear_while_the_process_runs(tmp_path: Path) -> None:
    """A state is told though no line ever ends."""
    script = """
        import sys, time
        sys.stdout.write("\\r1 of 2")
        sys.stdout.flush()
        time.sleep(600)
    """
    async with running(tmp_path, stop_grace=0.2) as (_, client):
        job_id = await client.submit(script)
        async with asyncio.timeout(60):
            assert (await client.until_line(job_id, "1 of 2")).source == "stdout"
