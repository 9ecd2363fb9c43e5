"""Every example of docs/client.md and of `scaimind ... --help` works against a real stack."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import click
import pytest
from scaimind import Client
from scaimind.cli.main import cli, main
from scaimind.errors import Conflict

from tests.functional.stack import PROJECT, Stack

PAGE = (PROJECT / "docs/client.md").read_text()
SHELL = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
#: Prints without an end.
ENDLESS = "import time\nwhile True:\n    print('line', flush=True)\n    time.sleep(0.05)\n"


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below a group, by their names."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            found = group.get_command(context, name)
            assert found is not None
            if isinstance(found, click.Group):
                yield from commands(found, *names, name)
            else:
                yield (*names, name), found


def examples(text: str) -> list[list[str]]:
    """The words of each `scaimind` in some lines: without comments, pipes and what follows."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            if part.strip().startswith("scaimind "):
                found.append(shlex.split(re.split(r" [|<>]", part)[0])[1:])
    return found


class Workplace:
    """A folder as the examples suppose it, and jobs in the states that they need."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        drive = stack.data_dir / "drive/local"
        for name in ("train.py", "corpus.jsonl"):
            shutil.copy(drive / name, folder)
        (folder / "requirements.txt").touch()
        (folder / "project").mkdir()
        shutil.copy(drive / "train.py", folder / "project")
        (folder / "endless.py").write_text(ENDLESS)
        (folder / "failing.py").write_text("raise SystemExit(1)\n")
        (folder / "job.yaml").write_text(
            "name: from a file\n"
            "training_config:\n"
            "  training_type: FULL_FINETUNE\n"
            "  base_model: {model_id: none}\n"
            "  framework: {type: CUSTOM, custom_script_path: ./train.py}\n"
            "  hyperparameters: {steps: '5'}\n"
            "data_config: {sources: [{path: ./corpus.jsonl}]}\n"
            "resource_config: {}\n"
        )
        self.client = Client(stack.url, stack.key)
        drive.joinpath("examples").mkdir(exist_ok=True)
        for name in ("endless.py", "failing.py"):
            shutil.copy(folder / name, drive / "examples")
        self.ended = self.submit("train.py", steps="5")
        assert self.client.jobs.wait(self.ended) == {self.ended: "COMPLETED"}
        evaluation: dict[str, Any] = {
            "job_id": self.ended,
            "benchmarks": [
                {
                    "name": "perplexity",
                    "dataset": "scaidrive://local/corpus.jsonl",
                    "num_samples": 1,
                }
            ],
        }
        (folder / "evaluation.yaml").write_text(json.dumps(evaluation))
        self.evaluation = self.client.evaluations.submit(evaluation).evaluation_id
        (folder / "models").mkdir()
        shutil.copytree(
            drive / "jobs" / self.ended / "output", drive / "models/first-steps", dirs_exist_ok=True
        )

    def submit(self, script: str, **hyperparameters: str) -> str:
        body = {
            "name": "an example's",
            "training_config": {
                "training_type": "FULL_FINETUNE",
                "base_model": {"model_id": "none"},
                "framework": {
                    "type": "CUSTOM",
                    "custom_script_path": f"scaidrive://local/{script}",
                },
                "hyperparameters": hyperparameters,
            },
            "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
            "resource_config": {},
        }
        return self.client.jobs.submit(body).job_id

    def running(self) -> str:
        job_id = self.submit("examples/endless.py")
        self._stack.await_status(job_id, "TRAINING")
        return job_id

    def paused(self) -> str:
        job_id = self.running()
        self.client.jobs.pause(job_id)
        self._stack.await_status(job_id, "PAUSED")
        return job_id

    def failed(self) -> str:
        job_id = self.submit("examples/failing.py")
        self._stack.await_status(job_id, "FAILED")
        return job_id

    def cancel_all(self) -> None:
        """End what an example left, so that the next one has the cores."""
        for job in self.client.jobs.list(status=["QUEUED", "SCHEDULING", "TRAINING", "PAUSED"]):
            # It may have ended since it was listed.
            with suppress(Conflict):
                self.client.jobs.cancel(job.job_id)


@pytest.fixture(scope="module")
def workplace(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("examples")
    with chdir(folder):
        made = Workplace(stack, folder)
        with made.client:
            yield made
            made.cancel_all()


@pytest.fixture
def run(
    stack: Stack, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], int]:
    for name in ("SCAIMIND_URL", "SCAIMIND_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(stack.config_home))

    def run(words: list[str]) -> int:
        monkeypatch.setattr("sys.argv", ["scaimind", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code

    return run


#: Without an end, or for a browser: run elsewhere.
ELSEWHERE = {("jobs", "watch"), ("console",)}
IN_HELP = {
    " ".join(names): examples(command.help or "")
    for names, command in commands(cli)
    if names not in ELSEWHERE
}


@pytest.mark.parametrize("name", IN_HELP)
def test_the_examples_of_help_work(
    name: str,
    stack: Stack,
    workplace: Workplace,
    run: Callable[[list[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = {
        "api": workplace.running,
        "jobs cancel": workplace.running,
        "jobs pause": workplace.running,
        "jobs resume": workplace.paused,
        "jobs retry": workplace.failed,
        "jobs delete": workplace.failed,
    }
    job_for = jobs.get(name, lambda: workplace.ended)
    job = job_for()
    if name == "login":
        # Its profiles are no others' business.
        monkeypatch.setenv("XDG_CONFIG_HOME", str(stack.data_dir.parent / "other config"))
        monkeypatch.setenv("SCAIMIND_API_KEY", stack.key)
    names = {"JOB": job, "NODE": "local", "EVALUATION": workplace.evaluation}
    assert IN_HELP[name], f"scaimind {name} --help has no example"
    for number, words in enumerate(IN_HELP[name]):
        if number and words[:2] == name.split():
            # What one example has done to its job, the next one may not do again.
            names["JOB"] = job = job_for()
        words = [names.get(word, word) for word in words]
        words = [stack.url if "gateway.example" in word else word for word in words]
        words = [word.replace("/JOB/", f"/{job}/") for word in words]
        words = ["steps=8" if word == "steps=8000" else word for word in words]
        status = run(words)
        said = capsys.readouterr()
        assert status == 0, (words, said.out[-500:], said.err)
    workplace.cancel_all()


@pytest.mark.parametrize("block", SHELL, ids=range(len(SHELL)))
def test_the_commands_of_the_page_work(
    block: str, workplace: Workplace, run: Callable[[list[str]], int]
) -> None:
    if "jobs submit" not in block:
        # '-' is the newest job.
        newest = workplace.submit("train.py", steps="5")
        workplace.client.jobs.wait(newest)
    for words in examples(block):
        assert run(words) == 0, words
    workplace.cancel_all()


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_the_programs_of_the_page_work(
    block: str, stack: Stack, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCAIMIND_URL", stack.url)
    monkeypatch.setenv("SCAIMIND_API_KEY", stack.key)
    submitted = workplace.client.jobs.get(workplace.ended).raw
    parts = ("name", "training_config", "data_config", "resource_config")
    body = {name: submitted[name] for name in parts}
    exec(compile(block, "docs/client.md", "exec"), {"body": body})
