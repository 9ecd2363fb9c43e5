"""The command's parts that need no gateway."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from scaimind.cli.jobs.statuses import exit_status
from scaimind.cli.jobs.submission import Submission
from scaimind.cli.jobs.uploads import Uploads
from scaimind.cli.main import cli
from scaimind.cli.output import cut, printable, width
from scaimind.cli.profiles import Profile, chosen, config_file, store
from scaimind.cli.times import seconds

NOTHING: dict[str, Any] = {
    "base": None,
    "path": None,
    "program": None,
    "script": None,
    "requirements": None,
    "arguments": None,
    "name": None,
    "sources": (),
    "destination": None,
    "hyperparameters": (),
    "environment": (),
    "labels": (),
    "gpus": None,
    "sets": (),
}


def build(**given: Any) -> Submission:
    return Submission.build(**NOTHING | {"uploads": Uploads()} | given)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SCAIMIND_URL", "SCAIMIND_API_KEY", "SCAIMIND_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["COMPLETED"], 0),
        (["COMPLETED", "CANCELLED"], 3),
        (["CANCELLED", "PREEMPTED"], 4),
        (["PREEMPTED", "FAILED", "CANCELLED"], 1),
        ([""], 1),
    ],
)
def test_the_exit_status_is_the_jobs(statuses: list[str], status: int) -> None:
    assert exit_status(statuses) == status


def test_a_profile_leaves_comments_and_others_as_they_are(home: Path) -> None:
    path = config_file()
    path.parent.mkdir()
    path.write_text('# mine\n[profiles.other]\nurl = "https://other"  # the other\n')
    store(Profile("work", "https://work", "sgk_1"), default=True)
    store(Profile("work", "https://work", "sgk_2"), default=False)
    text = path.read_text()
    assert "# mine" in text
    assert "# the other" in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert chosen(None) == Profile("work", "https://work", "sgk_2")
    assert chosen("other").url == "https://other"
    assert "sgk_2" not in repr(chosen(None))


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store(Profile("work", "https://work", "sgk_1"), default=True)
    monkeypatch.setenv("SCAIMIND_URL", "https://env")
    monkeypatch.setenv("SCAIMIND_API_KEY", "sgk_env")
    assert chosen(None) == Profile("", "https://env", "sgk_env")
    assert chosen("work") == Profile("work", "https://work", "sgk_env")


@pytest.mark.parametrize("text", ["[profiles", "profiles = 3\n", ""])
def test_a_file_that_says_nothing_is_an_error_for_people(text: str) -> None:
    config_file().parent.mkdir()
    config_file().write_text(text)
    with pytest.raises(click.ClickException):
        chosen("work")


def test_flags_win_over_the_file_and_that_over_another_job(tmp_path: Path) -> None:
    body = tmp_path / "job.yaml"
    body.write_text("name: mine\ntraining_config:\n  hyperparameters:\n    lr: '1'\n")
    made = build(
        base={"name": "theirs", "labels": {"a": "b"}, "job_id": "j"},
        path=str(body),
        hyperparameters=("lr=2", "x=a=b"),
        sets=("resource_config.gpu_count=2", "training_config.hyperparameters.steps=10"),
    )
    assert made.body == {
        "name": "mine",
        "labels": {"a": "b"},
        "training_config": {"hyperparameters": {"lr": "2", "x": "a=b", "steps": "10"}},
        "resource_config": {"gpu_count": 2},
    }
    assert made.place("training_config.hyperparameters.lr") == f"{body}:4: "
    assert made.place("training_config.nowhere") == f"{body}:2: "


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"program": "scaidrive://t/a", "hyperparameters": ("x",)},
        {"base": {"name": "x"}, "sets": ("name.x=1",)},
        {"path": "/nowhere/job.yaml"},
    ],
)
def test_what_cannot_be_submitted_is_wrong_usage(given: dict[str, Any]) -> None:
    with pytest.raises(click.ClickException):
        build(**given)


def test_a_folder_and_its_arguments_are_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    with pytest.raises(click.UsageError, match=r"no train.py or main.py"):
        build(program="job")
    (tmp_path / "job/main.py").touch()
    (tmp_path / "corpus.jsonl").touch()
    uploads = Uploads()
    made = build(
        program="job",
        arguments=["--lr", "1e-4", "a b"],
        requirements="requirements.txt",
        sources=("corpus.jsonl", "scaidrive://t/x.jsonl", "/only/there.jsonl"),
        uploads=uploads,
    )
    framework = made.body["training_config"]["framework"]
    assert framework == {
        "type": "CUSTOM",
        "custom_script_path": "main.py",
        "config": {
            "working_dir": "job",
            "arguments": '["--lr", "1e-4", "a b"]',
            "requirements": "requirements.txt",
        },
    }
    assert made.body["name"] == "job"
    assert [(str(each.path), each.packed) for each in uploads.wanted] == [
        ("job", True),
        ("corpus.jsonl", False),
    ]
    with pytest.raises(click.ClickException, match="no such file"):
        build(program="trian.py")


def test_a_file_names_what_is_beside_it_with_a_dot(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "training_config: {framework: {custom_script_path: ./train.py}}\n"
        "data_config: {sources: [{path: ./a.jsonl}, {path: a.jsonl}]}\n"
    )
    (tmp_path / "train.py").touch()
    (tmp_path / "a.jsonl").touch()
    uploads = Uploads()
    build(path=str(path), uploads=uploads)
    assert [each.path.name for each in uploads.wanted] == ["train.py", "a.jsonl"]


def test_what_follows_two_dashes_is_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    (config_file().parent).mkdir()
    store(Profile("work", "http://127.0.0.1:1", "k"), default=True)
    ran = CliRunner().invoke(
        cli, ["jobs", "submit", "scaidrive://t/a.py", "--print", "--", "--name", "-x", "--", "y"]
    )
    assert ran.exit_code == 0, ran.output
    config = yaml.safe_load(ran.output)["training_config"]["framework"]["config"]
    assert json.loads(config["arguments"]) == ["--name", "-x", "--", "y"]


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1\nb", 2), ("a: 1\n  b: 2\n", 2), ("a: *x\n", 1), ("\ta: 1\n", 1)]
)
def test_what_is_no_yaml_is_shown_at_its_line(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(click.ClickException) as caught:
        build(path=str(path))
    assert caught.value.format_message().startswith(f"{path}:{line}: no YAML: ")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n", "a: !!python/object:os.system {}\n", "\x00"])
def test_a_file_that_is_no_submission_is_wrong_usage(text: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(click.ClickException):
        build(path=str(path))


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200)])
def test_times_are_short(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "-1", "nan", "1w", "1e99"])
def test_no_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        seconds(text)


def test_text_of_others_steers_no_terminal() -> None:
    assert printable("a\x1b[31m\nb\u202e") == "a [31m b "
    assert width("é中") == 3
    assert width(cut("中" * 50, 20)) <= 20


def test_help_imports_little() -> None:
    code = (
        "import sys; from scaimind.cli.main import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(set(sys.modules) & {'httpx2', 'yaml', 'rich', 'tomlkit', 'asyncio'}))"
    )
    done = subprocess.run(
        (sys.executable, "-c", code),
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_login_shows_where_the_key_is_and_not_the_key(home: Path) -> None:
    store(Profile("work", "https://gateway.example", "sgk_secret"), default=True)
    result = CliRunner().invoke(cli, ["login", "--show"])
    assert result.exit_code == 0
    assert "https://gateway.example" in result.output
    assert str(home / "scaimind/config.toml") in result.output
    assert "sgk_secret" not in result.output


def test_login_without_an_address_says_what_to_give() -> None:
    result = CliRunner().invoke(cli, ["login"])
    assert result.exit_code == 2
    assert "Say which gateway" in result.output


def test_help_is_there_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    def best(*arguments: str) -> float:
        took = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run((sys.executable, *arguments), stdout=subprocess.DEVNULL, check=True)
            took.append(time.perf_counter() - began)
        return min(took)

    root = str(Path(__file__).parents[1])
    begin = f"import sys; sys.path.insert(0, {root!r}); sys.argv = ['scaimind', '--help'];"
    help_takes = best("-c", f"{begin} from scaimind.cli.main import main; main()")
    ratio = help_takes / best("-c", "pass")
    with capsys.disabled():
        print(f"\nscaimind --help takes {ratio:.1f} times as long as python -c pass")  # noqa: T201
    assert ratio < 12
