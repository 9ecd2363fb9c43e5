"""A run of the tests that leaves something fails, and what it left is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tests.leftovers import Leftovers, left_behind, memory_folder

pytest_plugins = ["pytester"]

_SLEEPS = "import time; print('there', flush=True); time.sleep(600)"

TESTS = f"""
    import os, subprocess, sys, tempfile
    from pathlib import Path

    def test_that_is_tidy(tmp_path):
        with tempfile.TemporaryDirectory():
            subprocess.run([sys.executable, "-c", "pass"], cwd=tmp_path, check=True)

    def test_that_forgets_a_file():
        tempfile.mkdtemp(prefix="forgotten-")

    def test_that_forgets_a_process():
        with open(os.environ["PIDS"], "w") as file:
            child = subprocess.Popen(
                [sys.executable, "-c", {_SLEEPS!r}], stdout=subprocess.PIPE, start_new_session=True
            )
            child.stdout.read(5)
            file.write(str(child.pid))
"""


@pytest.mark.parametrize(
    "workers", [("-p", "xdist", "-n", "1"), pytest.param((), marks=pytest.mark.slow)]
)
def test_a_run_that_leaves_something_fails_and_names_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    folder = pytester.mkpydir("listed")
    own = Path(leftovers.__file__).read_text()
    (folder / "leftovers.py").write_text(own.replace("_PATIENCE: Final = 20.0", "_PATIENCE = 0.1"))
    pytester.makepyfile(test_it=TESTS)
    pids = pytester.path / "pids"
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PIDS", str(pids))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    arguments = ("-p", "listed.leftovers", *workers)
    result = pytester.runpytest_subprocess(*arguments)
    os.kill(int(pids.read_text()), 9)
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*left behind by the tests*",
            "*/forgotten-*, since test_it.py::test_that_forgets_a_file",
            f"process {pids.read_text()}, since test_it.py::test_that_forgets_a_process*",
        ]
    )
    tidy = pytester.runpytest_subprocess(*arguments, "-k", "tidy")
    tidy.assert_outcomes(passed=1)
    assert tidy.ret == pytest.ExitCode.OK


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that other tests of this process use, such as a database, are no leftovers yet."""
    monkeypatch.setattr(Leftovers, "processes", lambda _: ())


@pytest.mark.usefixtures("no_process")
def test_nothing_is_named_where_nothing_is_left(tmp_path: Path) -> None:
    folder, works = tmp_path / "t", tmp_path / "popen-gw1"
    folder.mkdir()
    assert Leftovers(folder, memory=tmp_path / "memory", works=[works]).found(patience=0) == []


@pytest.mark.usefixtures("no_process")
def test_a_file_of_shared_memory_is_of_the_process_whose_number_it_bears(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    own = Leftovers(folder, memory=tmp_path, works=[])
    for name in (f"sem.x-{os.getpid()}", f"x{os.getpid()}0", "x"):
        (tmp_path / name).touch()
    own.look("a test")
    (folder / "late").touch()
    assert own.found(patience=0) == [
        f"{tmp_path}/sem.x-{os.getpid()}, since a test",
        f"{folder}/late, since the last test",
    ]


@pytest.mark.parametrize("what", ["argument", "folder", "variable", "another's folder"])
def test_a_process_is_of_the_run_whose_folders_it_works_in(tmp_path: Path, what: str) -> None:
    folder, works = tmp_path / "t", tmp_path / "popen-gw1"
    for each in (folder, works, tmp_path / "popen-gw10"):
        each.mkdir()
    own = Leftovers(folder, memory=tmp_path / "memory", works=[works])
    # Its parent has ended: it is no child of this process.
    starts = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=2).pid)"
    cwd = {"folder": works, "another's folder": tmp_path / "popen-gw10"}.get(what, "/")
    pid = int(
        subprocess.run(
            [
                *(sys.executable, "-c", starts, sys.executable, "-c", _SLEEPS),
                str(works) if what == "argument" else "-",
            ],
            cwd=cwd,
            env={"X": f"{works}/x"} if what == "variable" else {},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    )
    try:
        found = [each.pid for each in own.processes()]
        assert (pid in found) == (what != "another's folder")
    finally:
        os.kill(pid, 9)


def test_a_folder_in_memory_bears_the_number_of_its_process_and_goes() -> None:
    with memory_folder() as path:
        assert str(os.getpid()) in path.name
        (path / "a" / "b").mkdir(parents=True)
    assert not path.exists()


def test_what_was_made_since_is_named(tmp_path: Path) -> None:
    names = ("scaimind-1", "PostgreSQL.5", "org.chromium.Chromium.x", "somebody-elses")
    for name in names:
        (tmp_path / name).touch()
    since = os.stat(tmp_path / "scaimind-1").st_ctime
    named = [str(tmp_path / name) for name in sorted(names[:3])]
    assert left_behind([tmp_path, tmp_path / "not-there"], since=since) == named
    assert left_behind([tmp_path], since=since + 3600) == []
