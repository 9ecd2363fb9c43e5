"""The command's parts that need no gateway."""

import json
import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from scaimind.cli.jobs.following import Printer
from scaimind.cli.jobs.progress import Pace, describe
from scaimind.cli.jobs.statuses import exit_status
from scaimind.cli.jobs.submission import Submission
from scaimind.cli.jobs.uploads import Uploads
from scaimind.cli.main import cli
from scaimind.cli.output import cut, printable, steers_nothing, width
from scaimind.cli.profiles import Profile, chosen, config_file, store
from scaimind.cli.status_line import StatusLine
from scaimind.cli.times import seconds
from scaimind.core.cursor import Cursor
from scaimind.core.entries import Gap, LogLine
from scaimind.core.files import Folder
from scaimind.errors import NotFound
from scaimind.models import JobProgress

NOTHING: dict[str, Any] = {
    "base": None,
    "path": None,
    "program": None,
    "script": None,
    "requirements": None,
    "model": None,
    "training_type": None,
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
    # A profile that is named has its own key: that of the environment is another gateway's.
    assert chosen("work") == Profile("work", "https://work", "sgk_1")
    store(Profile("keyless", "https://keyless", ""), default=False)
    assert chosen("keyless") == Profile("keyless", "https://keyless", "sgk_env")


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


def test_a_field_of_a_source_is_set_by_its_number() -> None:
    made = build(
        program="scaidrive://t/a",
        sources=("scaidrive://t/x", "scaidrive://t/y"),
        sets=("data_config.sources.1.filters.lang=en", "data_config.sources.0={path: z}"),
    )
    assert made.body["data_config"]["sources"] == [
        {"path": "z"},
        {"path": "scaidrive://t/y", "filters": {"lang": "en"}},
    ]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"program": "scaidrive://t/a", "sets": ("data_config.sources.0.split=x",)},
        {"program": "scaidrive://t/a", "sets": ("data_config.sources.first.split=x",)},
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


def test_a_model_is_trained_without_a_script() -> None:
    made = build(model="scaidrive://t/base/", training_type="sft", sources=("scaidrive://t/x",))
    training = made.body["training_config"]
    assert training["base_model"] == {"model_id": "scaidrive://t/base/"}
    assert training["framework"] == {"type": "HF_TRAINER"}
    assert training["training_type"] == "SFT"
    assert made.body["name"] == "base"
    assert build(model="m").body["training_config"]["training_type"] == "LORA"
    # A script trains whatever model it is given.
    own = build(model="m", program="scaidrive://t/a.py").body["training_config"]
    assert own["framework"]["type"] == "CUSTOM"
    assert own["base_model"]["model_id"] == "m"


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


class Drive:
    """What uploads need of a client's files; holds names alone."""

    def __init__(self) -> None:
        self.stored: list[str] = []

    def folder(self) -> Folder:
        return Folder(uri="scaidrive://t/")

    def get(self, path: str) -> None:
        if path not in self.stored:
            raise NotFound("no", code="FILE_NOT_FOUND", status=404)

    def upload(self, local: Path, path: str, **_: Any) -> None:
        self.stored.append(path)

    def sync(self, selected: Any, path: str, **_: Any) -> None:
        self.stored += [f"{path}/{each.name}" for each in selected]


def test_much_is_asked_about_and_refused_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("22")
    (tmp_path / ".env").write_text("secret")
    (tmp_path / "link").symlink_to("/etc/passwd")
    drive: Any = Drive()

    def uploads() -> tuple[Uploads, dict[str, Any]]:
        made, holder = Uploads(), {"path": str(tmp_path)}
        made.add(holder, "path", Path())
        return made, holder

    for limit in ("MAX_FILES", "MAX_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(f"scaimind.cli.jobs.uploads.{limit}", 1)
            with pytest.raises(click.ClickException, match=r"2 files with 0\.0 MB"):
                uploads()[0].carry_out(drive, yes=False)
            assert drive.stored == []
            if limit == "MAX_BYTES":
                made, holder = uploads()
                made.carry_out(drive, yes=True)
                assert [each.rpartition("/")[2] for each in drive.stored] == ["a", "b"]
                assert holder["path"] == f"scaidrive://t/{drive.stored[0].rpartition('/')[0]}"
    assert "link: a link that leaves the folder" in capsys.readouterr().err


def entry(offset: int, message: str, **fields: str) -> LogLine:
    return LogLine("j", "e", offset, "INFO", message, None, "stdout", 0, "", fields)


def test_pieces_of_a_line_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(StatusLine(), as_json=False)
    for item in (
        entry(1, "Loading", partial="true"),
        entry(2, "...", partial="true", continues="1"),
        entry(3, " done", continues="1"),
        entry(4, "Reading", partial="true"),
        entry(5, "another"),
        Gap("j", Cursor("e", 6), Cursor("e", 9), "dropped"),
        entry(10, "open", partial="true"),
    ):
        printer.show(item)
    printer.finish()
    assert capsys.readouterr().out.splitlines() == [
        "Loading... done",
        "Reading",
        "another",
        "[scaimind: lines 6 to 9 are missing: dropped]",
        "open",
    ]


def test_a_terminal_shows_how_far_a_job_is() -> None:
    pace = Pace()
    assert pace.of(JobProgress(step=100, total_steps=200), 10.0) == 0
    assert pace.of(JobProgress(step=150, total_steps=200), 20.0) == 5
    text = describe(JobProgress(step=150, total_steps=200, loss=1.25), 5.0)
    assert text.endswith("75%  step 150 of 200  5 steps/s  10s left  loss 1.25")
    # Another run begins again.
    assert pace.of(JobProgress(step=10, total_steps=200), 21.0) == 0
    assert steers_nothing("a\x1b[31mb\x1b[2Jc\rd\te") == "a\x1b[31mb[2Jcd\te\x1b[0m"


def children_seconds() -> float:
    """What the processes that have ended have used of processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_there_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    root = str(Path(__file__).parents[1])
    begin = f"import sys; sys.path.insert(0, {root!r}); sys.argv = ['scaimind', '--help'];"
    programs = "pass", f"{begin} from scaimind.cli.main import main; main()"
    best = [math.inf, math.inf]
    # In turns, and by the processor's time: what else the machine does, it does to both.
    for number in [0, 1] * 15:
        began = children_seconds()
        command = (sys.executable, "-c", programs[number])
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        best[number] = min(best[number], children_seconds() - began)
    ratio = best[1] / best[0]
    with capsys.disabled():
        print(f"\nscaimind --help takes {ratio:.1f} times as long as python -c pass")  # noqa: T201
    assert ratio < 12
