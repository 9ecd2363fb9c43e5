"""`scripts/run`, `scripts/venv` and `scripts/test`, in a small project without any package."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.functional.stack import PATIENCE, PROJECT
from tests.functional.test_refusals import AS_ANYONE

#: Stands in for the project's program: says how it was called.
APP = """\
import os, sys
print(os.environ["SCAIMIND_INVOKED_AS"], *sys.argv[1:])
print(os.environ["SCAIMIND_DATA_DIR"])
print(sys.prefix)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with these scripts, whose locks are empty, in a folder with a space."""
    root = tmp_path / "a project"
    shutil.copytree(PROJECT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("*.py"))
    (root / "requirements").mkdir()
    for name in ("local", "dev"):
        (root / "requirements" / f"{name}.txt").write_text("# nothing\n")
    (root / "setup.cfg").touch()
    (root / "app").mkdir()
    (root / "app" / "__main__.py").write_text(APP)
    return root


def run(
    *command: Path | str, cwd: Path, within: tuple[str, ...] = (), **variables: str
) -> "subprocess.CompletedProcess[str]":
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "VENV") and not name.startswith("SCAIMIND_")
    }
    return subprocess.run(
        (*within, *command),
        cwd=cwd,
        env={**clean, "PYTHON": sys.executable, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line that a refused script says last; a notice about VENV may come before."""
    assert done.returncode == 1, done
    lines = [line for line in done.stderr.splitlines() if not line.startswith("VENV is called ")]
    (line,) = lines
    return line


@pytest.mark.parametrize("variable", ["SCAIMIND_VENV", "VENV"])
@pytest.mark.parametrize("script", ["scripts/run", "scripts/test", "scripts/venv local"])
def test_a_folder_of_somebody_is_refused_and_left_as_it_is(
    project: Path, tmp_path: Path, variable: str, script: str
) -> None:
    theirs = tmp_path / "thesis"
    theirs.mkdir()
    (theirs / "chapter 1").write_text("once")
    name, *arguments = script.split()
    named = {variable: str(theirs)}
    done = run(project / name, *arguments, cwd=tmp_path, within=(), **named)
    line = refusal(done)
    assert f"{theirs} is left as it is" in line
    assert "SCAIMIND_VENV" in line
    assert {each.name: each.read_text() for each in theirs.iterdir()} == {"chapter 1": "once"}


def test_a_broken_environment_of_somebody_is_refused_and_left_as_it_is(
    project: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "bin").mkdir(parents=True)
    (theirs / "bin" / "python").symlink_to("/nowhere/python3")
    (theirs / "pyvenv.cfg").touch()
    # A former release left these in whatever it was told to use.
    (theirs / ".unfinished").touch()
    (theirs / ".holds-local").touch()
    done = run(project / "scripts/venv", "local", cwd=tmp_path, SCAIMIND_VENV=str(theirs))
    assert "is left as it is" in refusal(done)
    assert len([*theirs.iterdir()]) == 4


def test_what_is_no_folder_is_refused(project: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "file"
    theirs.write_text("mine")
    done = run(project / "scripts/venv", "local", cwd=tmp_path, SCAIMIND_VENV=str(theirs))
    assert "is left as it is" in refusal(done)
    assert theirs.read_text() == "mine"


def test_an_environment_of_somebody_that_works_is_refused_and_left_as_it_is(
    project: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    venv.create(theirs, with_pip=True)
    before = sorted(theirs.rglob("*"))
    done = run(project / "scripts/run", cwd=tmp_path, VENV=str(theirs))
    assert "is left as it is" in refusal(done)
    assert sorted(theirs.rglob("*")) == before


def test_an_environment_that_an_earlier_release_used_is_brought_up_to_date_and_never_emptied(
    project: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    venv.create(theirs, with_pip=True)
    (theirs / "notes").write_text("mine")
    (theirs / ".holds-local").write_text("the digest of an earlier lock")
    for _ in range(2):
        done = run(project / "scripts/venv", "local", cwd=tmp_path, SCAIMIND_VENV=str(theirs))
        assert done.returncode == 0, done.stderr
        assert "Making" not in done.stderr
        # As if it had been broken off.
        (theirs / ".unfinished").touch()
    assert (theirs / "notes").read_text() == "mine"


def test_its_own_environment_is_made_afresh_when_its_python_is_gone(project: Path) -> None:
    assert run(project / "scripts/venv", "local", cwd=project).returncode == 0
    python = project / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    done = run(project / "scripts/venv", "local", cwd=project)
    assert done.returncode == 0, done.stderr
    assert f"Making {project}/.venv" in done.stderr
    assert python.exists()
    assert run(project / "scripts/venv", "local", cwd=project).stderr == ""


def test_an_empty_folder_is_filled_and_a_relative_one_is_that_of_the_caller(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    done = run(project / "scripts/run", cwd=tmp_path, VENV="mine", SCAIMIND_DATA_DIR="data")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("VENV is called SCAIMIND_VENV now") == 1
    assert done.stdout.splitlines()[1:] == [f"{tmp_path}/data", f"{tmp_path}/mine"]
    assert not (project / ".venv").exists()


def test_a_folder_that_cannot_be_written_to_has_its_remedy(project: Path, tmp_path: Path) -> None:
    project.chmod(0o500)
    within = AS_ANYONE if os.geteuid() == 0 else ()
    try:
        done = run(project / "scripts/run", cwd=tmp_path, within=within)
    finally:
        project.chmod(0o700)
    assert done.returncode == 1
    assert "cannot be written to" in done.stderr.splitlines()[-1]
    assert "SCAIMIND_VENV" in done.stderr.splitlines()[-1]


def test_a_link_to_it_runs_it_and_stdout_is_the_commands_own(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "scaimind"
    link.symlink_to(project / "scripts" / "run")
    done = run(link, "keys", "list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{link} keys list",
        f"{project}/var",
        f"{project}/.venv",
    ]


def test_it_brings_the_command_of_the_client(project: Path, tmp_path: Path) -> None:
    client = project / "clients/python"
    shutil.copytree(PROJECT / "clients/python/scripts", client / "scripts")
    (client / "scaimind/cli").mkdir(parents=True)
    prints = "import sys\ndef main(): print(*sys.argv[1:])\n"
    (client / "scaimind/cli/main.py").write_text(prints)
    (tmp_path / "scaimind.py").write_text("raise SystemExit('the folder of the caller')\n")
    environment = tmp_path / "it's one"
    assert run(project / "scripts/run", cwd=tmp_path, SCAIMIND_VENV=str(environment)).stderr
    command = environment / "bin/scaimind"
    before = command.stat().st_ino
    done = run(command, "jobs", "a b", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("jobs a b\n", "")
    run(project / "scripts/run", cwd=tmp_path, SCAIMIND_VENV=str(environment))
    # It is the same file: nothing was written.
    assert command.stat().st_ino == before


def test_the_help_of_the_tests_names_its_options(project: Path) -> None:
    done = run(project / "scripts/test", "--help", cwd=project)
    assert done.returncode == 0
    assert "--all" in done.stdout
    assert "--install" in done.stdout
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("ci", "arguments", "asked"),
    [("", (), False), ("", ("--install",), True), ("true", (), True), ("", ("--all",), False)],
)
def test_system_packages_are_installed_only_where_that_is_asked_for(
    project: Path, ci: str, arguments: tuple[str, ...], asked: bool
) -> None:
    (project / "scripts" / "debian").write_text("#!/bin/sh\necho asked\nexit 3\n")
    # Without pytest in the environment the run ends there.
    done = run(project / "scripts/test", *arguments, cwd=project, CI=ci)
    assert ("asked" in done.stdout) == asked
    assert (done.returncode == 3) == asked


def test_only_the_machines_own_package_sources_are_used() -> None:
    text = (PROJECT / "scripts" / "debian").read_text()
    assert "://" not in text
    assert "dpkg -i" not in text


@pytest.fixture
def training(project: Path) -> Path:
    """The project with locks for training, which are as empty."""
    for name in ("train", "train-torch", "train-megatron"):
        (project / "requirements" / f"{name}.txt").write_text("# nothing\n")
    return project


def test_the_environment_for_training_is_shared_by_clones_and_made_once(
    training: Path, tmp_path: Path
) -> None:
    cache = str(tmp_path / "a cache")

    def train(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run(root / "scripts/venv", "train", *arguments, cwd=root, XDG_CACHE_HOME=cache)

    path = Path(train(training, "--path").stdout.strip())
    assert path.parent == tmp_path / "a cache/scaimind"
    assert train(training, "--ready").returncode == 1
    assert not path.parent.exists()
    made = train(training)
    assert made.returncode == 0, made
    # Before anything is fetched.
    assert "1.6 GB" in made.stderr.partition("Installing")[0]
    assert Path(train(training, "--ready").stdout.strip()) == path
    assert not (training / ".venv").exists()

    clone = tmp_path / "clone"
    shutil.copytree(training, clone)
    assert train(clone).stderr == ""
    (path / ".unfinished").touch()
    assert train(clone, "--ready").returncode == 1
    assert f"Making {path}" in train(clone).stderr

    (clone / "requirements/train.txt").write_text("# another\n")
    other = Path(train(clone, "--path").stdout.strip())
    assert other != path
    assert path.exists()
    (path.parent / "train-of-somebody").mkdir()
    assert train(clone, "--prune").returncode == 0
    assert [each.name for each in path.parent.glob("train-*")] == ["train-of-somebody"]


def test_run_uses_the_environment_for_training_that_is_there(
    training: Path, tmp_path: Path
) -> None:
    (training / "app/__main__.py").write_text(
        'import os; print(os.environ.get("SCAIMIND_COORDINATOR_TRAINERS_PYTHON"))\n'
        'print(os.environ.get("SCAIMIND_EXAMPLE_MODEL"))\n'
    )

    cache = str(tmp_path / "cache")

    def said(*arguments: str, own: str = "") -> list[str]:
        done = run(
            training / "scripts/run",
            *arguments,
            cwd=training,
            XDG_CACHE_HOME=cache,
            SCAIMIND_COORDINATOR_TRAINERS_PYTHON=own,
        )
        assert done.returncode == 0, done
        return done.stdout.splitlines()

    assert said() == ["", "None"]
    path = run(
        training / "scripts/venv", "train", "--path", cwd=training, XDG_CACHE_HOME=cache
    ).stdout.strip()
    # As scripts/venv leaves it.
    python = Path(path, "bin/python")
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    Path(path, "pyvenv.cfg").touch()
    lock = (training / "requirements/train.txt").read_bytes()
    Path(path, ".holds-train").write_text(hashlib.sha256(lock).hexdigest())
    assert said("--with-model") == [str(python), "smollm2"]
    assert said() == [str(python), "None"]
    assert said(own="/opt/python") == ["/opt/python", "None"]
