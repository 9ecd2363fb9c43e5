"""A coordinator that was replaced changes no run: its term is lower than the newest."""

import asyncio
import re
import signal
import time
from pathlib import Path

import pytest

from app.coordinator.engines.local import launcher
from app.coordinator.engines.local.local_run import LocalRun
from app.coordinator.engines.local.run_orders import RunOrders, is_ordered
from app.coordinator.failures import LeadershipLost
from app.coordinator.leadership.term_file import TermFile
from tests.coordinator.test_launcher import run_of

PATIENCE = 60


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_newest_term_only_grows(tmp_path: Path) -> None:
    terms = TermFile.of(tmp_path)
    assert terms.read() == 0
    terms.raise_to(3)
    terms.raise_to(3)
    with pytest.raises(LeadershipLost):
        terms.raise_to(2)
    assert terms.read() == 3
    terms.check(3)
    with pytest.raises(LeadershipLost):
        terms.check(2)


@pytest.mark.parametrize("content", ["{}", "[]", "7", '{"term": null}', '{"term": "x"}', "{", ""])
def test_a_damaged_term_is_a_value_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    terms = TermFile.of(tmp_path)
    terms.path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(terms.path))):
        terms.read()


def test_a_signal_is_obeyed_that_left_no_word_behind_another_that_did(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, "")
    directory.path.mkdir(parents=True)
    (directory.path / "stop-0").touch()
    assert is_ordered(directory, spec, signal.SIGTERM)
    # The disk has no room for another file by now, or an earlier version has taken over.
    assert is_ordered(directory, spec, signal.SIGUSR1)
    terms = TermFile.of(tmp_path)
    terms.raise_to(1)
    assert not is_ordered(directory, {**spec, "term_file": str(terms.path)}, signal.SIGTERM)


async def test_a_runner_of_a_lower_term_begins_nothing(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, "open('trace', 'w')")
    terms = TermFile.of(tmp_path)
    terms.raise_to(2)
    handle = launcher.start(directory, {**spec, "term": 1, "term_file": str(terms.path)})
    async with asyncio.timeout(PATIENCE):
        await handle.gone()
    handle.close()
    assert not (directory.job.work / "trace").exists()
    assert not directory.runner.exists()
    assert not directory.exit.exists()


async def test_a_runner_is_stopped_by_the_newest_term_alone(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, "import time; time.sleep(600)")
    terms = TermFile.of(tmp_path)
    terms.raise_to(1)
    runner = launcher.start(directory, {**spec, "term": 1, "term_file": str(terms.path)})
    await asyncio.to_thread(wait_for, directory.runner)
    former = LocalRun(directory, runner, grace=5.0, orders=RunOrders(directory, terms, term=1))
    # The one that has stopped it before does not know that it was replaced.
    (directory.path / "kill-1").touch()
    terms.raise_to(2)
    former.stop(at_once=True)
    runner.signal(signal.SIGUSR1)
    present = LocalRun(
        directory,
        await launcher.find(directory),
        grace=5.0,
        orders=RunOrders(directory, terms, term=2),
    )
    present.stop(at_once=False)
    async with asyncio.timeout(PATIENCE):
        end = await present.wait()
    # By the second alone: it was asked to leave.
    assert (end.stopped, end.exit_code) == (True, -signal.SIGTERM)
    with pytest.raises(LeadershipLost):
        await former.wait()
    former.close()
