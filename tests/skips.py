"""Which tests may be skipped: those in `skips.txt`, each with its reason and how to run it.

A plugin of pytest. With CI set in the environment, a run that skips any other
test fails: a skip is a hole in what the run has shown. A line of the file is
`<node id or its beginning> | <reason> | <command that runs it>`.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("skips.txt")


def allowed(text: str) -> tuple[str, ...]:
    """Return the node ids in the list. Raises ValueError for a line without reason or command."""
    found = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"not `node id | reason | command`: {line}")
        found.append(parts[0])
    return tuple(found)


class Skips:
    """Notes what is skipped; one for a run, in the process that reports."""

    def __init__(self, expected: tuple[str, ...]) -> None:
        self._expected = expected
        #: Node id and reason of each skip that is not in the list.
        self.unexpected: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skip. An expected failure (xfail) is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that is skipped as a whole."""
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    def _note(self, node_id: str, why: object) -> None:
        if not node_id.startswith(self._expected):
            self.unexpected[node_id] = str(why[-1]) if isinstance(why, tuple) else str(why)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Fail the run."""
        yield
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name them."""
        if self.unexpected:
            terminalreporter.section(f"skipped, and not in {LIST.name}", sep="=", red=True)
            for node_id, why in self.unexpected.items():
                terminalreporter.line(f"{node_id}: {why}")


def pytest_configure(config: pytest.Config) -> None:
    """Take part in CI, where one process reports for all."""
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(allowed(LIST.read_text())), "scaimind-skips")
