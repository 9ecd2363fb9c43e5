"""Shows what the tests of this room measured: figures are reported, never asserted."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("passed", ()):
        if report.nodeid.startswith("tests/deploy/"):
            for name, seen in report.user_properties:
                terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {name}: {seen}")
