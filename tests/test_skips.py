"""The list of tests that may be skipped."""

from pathlib import Path

import pytest

from tests.skips import LIST, allowed

pytest_plugins = ["pytester"]
TESTS = """
    import pytest

    @pytest.mark.skip(reason="no time")
    def test_one(): ...

    @pytest.mark.xfail(reason="it is wrong")
    def test_other():
        assert False
"""


def test_the_committed_list_can_be_read() -> None:
    allowed(LIST.read_text())


#: As `scripts/test` runs them. Without another process is only for those who run a few tests.
WORKERS = [("-p", "xdist", "-n", "1"), pytest.param((), marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def without_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading all that are installed takes several times as long as these runs."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize("line", ["tests/a.py", "tests/a.py | reason", "tests/a.py | | command"])
def test_each_line_needs_a_reason_and_a_command(line: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        allowed(line)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("ci", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_a_skip_that_is_not_listed_fails_the_run_in_ci(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    workers: tuple[str, ...],
    ci: bool,
    listed: bool,
) -> None:
    folder = pytester.mkpydir("listed")
    (folder / "skips.py").write_text(Path(LIST.with_name("skips.py")).read_text())
    (folder / "skips.txt").write_text("test_it.py::test_one | why | how\n" if listed else "")
    pytester.makepyfile(test_it=TESTS)
    monkeypatch.setenv("CI", "true" if ci else "")
    result = pytester.runpytest_subprocess("-p", "listed.skips", *workers)
    result.assert_outcomes(skipped=1, xfailed=1)
    assert (result.ret == pytest.ExitCode.OK) == (listed or not ci)


SLOW = """
    import pytest

    @pytest.mark.slow
    def test_slow(): ...

    @pytest.mark.skip(reason="needs a GPU")
    def test_on_a_gpu(): ...
"""


@pytest.mark.parametrize("workers", WORKERS)
def test_what_is_slow_runs_when_all_is_asked_for_and_what_cannot_run_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    folder = pytester.mkpydir("listed")
    (folder / "skips.py").write_text(Path(LIST.with_name("skips.py")).read_text())
    (folder / "skips.txt").write_text(
        "test_it.py::test_slow | slow | scripts/test --all\n"
        "test_it.py::test_on_a_gpu | no GPU | run it on a GPU\n"
    )
    pytester.makepyfile(test_it=SLOW)
    monkeypatch.setenv("CI", "true")
    arguments = ("-p", "listed.skips", "--strict-markers", *workers)
    in_ci = pytester.runpytest_subprocess(*arguments)
    in_ci.assert_outcomes(skipped=2)
    assert in_ci.ret == pytest.ExitCode.OK
    complete = pytester.runpytest_subprocess(*arguments, "--all")
    complete.assert_outcomes(passed=1, skipped=1)
    complete.stdout.fnmatch_lines(["test_it.py::test_on_a_gpu: *needs a GPU | run it on a GPU"])
