"""Which tests may be skipped: those in `skips.txt`, each with its reason and how to run it.

A plugin of pytest. With CI set in the environment, a run that skips any other
test fails: a skip is a hole in what the run has shown. A line of the file is
`<node id or its beginning> | <reason> | <command that runs it>`.

Tests marked `slow` are skipped unless pytest is given `--all`; they are in the file, too.
With `--all` the run says at its end what of the file it could not run, and the command.
"""

import os
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("skips.txt")


def allowed(text: str) -> dict[str, str]:
    """Return the listed node ids, each with the command that runs it.

    Raises ValueError for a line without reason or command.
    """
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"not `node id | reason | command`: {line}")
        found[parts[0]] = parts[2]
    return found


class Skips:
    """Notes what is skipped; one for a run, in the process that reports.

    `expected` maps beginnings of node ids to commands. With `strict`, a skip that is not
    among them fails the run.
    """

    def __init__(self, expected: Mapping[str, str], *, strict: bool) -> None:
        self._expected = expected
        self._strict = strict
        #: Node id and reason of each skip that is not in the list.
        self.unexpected: dict[str, str] = {}
        #: Node id and reason of each skip that is in the list.
        self.listed: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skip. An expected failure (xfail) is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that is skipped as a whole."""
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    def _note(self, node_id: str, why: object) -> None:
        kind = self.listed if node_id.startswith(tuple(self._expected)) else self.unexpected
        kind[node_id] = str(why[-1]) if isinstance(why, tuple) else str(why)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Fail the run."""
        yield
        if self._strict and self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name them."""
        if self._strict and self.unexpected:
            terminalreporter.section(f"skipped, and not in {LIST.name}", sep="=", red=True)
            for node_id, why in self.unexpected.items():
                terminalreporter.line(f"{node_id}: {why}")
        if terminalreporter.config.getoption("--all") and self.listed | self.unexpected:
            terminalreporter.section("not run, though --all was given", sep="=", yellow=True)
            for node_id, why in (self.listed | self.unexpected).items():
                terminalreporter.line(f"{node_id}: {why}{self._command(node_id)}")

    def _command(self, node_id: str) -> str:
        commands = (run for each, run in self._expected.items() if node_id.startswith(each))
        return next((f" | {run}" for run in commands), "")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--all`."""
    parser.addoption(
        "--all", action="store_true", help="Also run the tests marked slow, which CI leaves out."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark, and take part where one process reports for all."""
    config.addinivalue_line("markers", "slow: run by scripts/test --all alone; listed in skips.txt")
    if not hasattr(config, "workerinput"):
        skips = Skips(allowed(LIST.read_text()), strict=bool(os.environ.get("CI")))
        config.pluginmanager.register(skips, "scaimind-skips")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked slow, unless all is asked for."""
    if not config.getoption("--all"):
        for each in items:
            if each.get_closest_marker("slow"):
                each.add_marker(pytest.mark.skip(reason="slow: scripts/test --all runs it"))
