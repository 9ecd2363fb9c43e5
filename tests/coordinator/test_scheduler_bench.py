"""The day that `scripts.bench.scheduler` replays: public traces are read, and every job starts."""

import json
from pathlib import Path

import pytest

from scripts.bench.scheduler import cost, replay, traces

PHILLY = [
    {
        "user": "u",
        "submitted_time": "2017-10-09 07:02:00",
        "attempts": [
            {
                "start_time": "2017-10-09 07:03:00",
                "end_time": "2017-10-09 07:05:00",
                "detail": [{"ip": "m1", "gpus": ["gpu0", "gpu1"]}, {"ip": "m2", "gpus": ["gpu0"]}],
            }
        ],
    },
    {"user": "u", "submitted_time": "None", "attempts": []},
]


@pytest.mark.parametrize(
    ("text", "gpus", "runs"),
    [
        (json.dumps(PHILLY), 3, 120),
        ("job_id,num_gpu,submit_time,duration\n1,3,50,120\n2,,,\n", 3, 120),
        (
            "name,cpu_milli,num_gpu,creation_time,deletion_time,scheduled_time\np,1,3,10,150,30\n",
            3,
            120,
        ),
        ("j,t,3,Terminated,100.0,220.0,600.0,29.0,100.0,V100\n", 3, 120),
    ],
)
def test_public_traces_are_read(text: str, gpus: int, runs: float, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    (job,) = traces.read(path, most=10)
    assert (job.submitted, job.gpus, job.runs) == (0, gpus, runs)


def test_another_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no time of submission: a, b"):
        traces.read(path, most=10)


def test_a_made_day_is_the_same_each_time_and_all_of_it_starts() -> None:
    day = traces.made(3, jobs=40)
    assert day == traces.made(3, jobs=40)
    assert len(replay.strict(day, nodes=4, gpus=8).waits) == 40
    assert len(replay.Replay(day, nodes=4, gpus=8).play().waits) == 40


def test_the_cost_is_measured_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    cost.report([120], rounds=1)
    told = capsys.readouterr().out
    assert all(name in told for name in cost.KINDS)
    assert "at most 2.5 times" in told
