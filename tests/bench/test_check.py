"""What `scripts/bench/check` decides, and the tables that documents have from its baseline."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from scripts.bench import size
from scripts.bench.check_rig import baseline, tables
from scripts.bench.check_rig.__main__ import FAMILIES, left_out
from scripts.bench.check_rig.axis import Axis, Expected, Family, Found, Measure, losses, measured
from scripts.bench.fanout_rig.peers import Endpoint
from scripts.bench.fanout_rig.processes import Dialog, RigError, WatchersDropped
from scripts.bench.fanout_rig.station import Station

NAME = "requests: CPU"


def family(ratios: Sequence[float], *, judged: bool = True) -> Family:
    """Measures these, one after the other."""

    @contextmanager
    def opened() -> Iterator[Measure]:
        left = iter(ratios)
        yield lambda: {NAME: next(left)}

    return Family("requests", (Axis(NAME, "one / other", judged=judged),), opened)


def found_of(ratios: Sequence[float], *, judged: bool = True, thoroughly: bool = False) -> Found:
    """What is found of them where the baseline has 1."""
    expected = {NAME: Expected(1.0, 0.25)}
    (found,) = measured(family(ratios, judged=judged), expected, thoroughly=thoroughly)
    return found


def test_an_axis_within_its_tolerance_is_measured_three_times() -> None:
    found = found_of([1.0, 1.24, 1.9])
    assert found.ratios == (1.0, 1.24, 1.9)
    assert not found.worse
    assert losses([found]) == []


def test_a_loss_is_measured_further_and_fails_by_the_middle_of_all() -> None:
    found = found_of([1.1, 1.4, 1.4, 1.3, 1.3, 1.2, 1.5, 1.6, 1.2])
    assert len(found.ratios) == 9
    assert found.ratio == 1.3
    assert losses([found]) == [
        "requests: CPU: 1.30, in the middle of 9, is 30% above the baseline (1.00; at most 25%)"
    ]


def test_noise_in_the_first_rounds_is_outvoted_and_not_thrown_away() -> None:
    found = found_of([1.5, 1.4, 1.1, *[1.0] * 6])
    assert found.ratios[:3] == (1.5, 1.4, 1.1)
    assert found.ratio == 1.0
    assert losses([found]) == []


def dropping(times: int) -> tuple[Family, list[int]]:
    """Has its watchers dropped in the second round of its first servers; each server's rounds."""
    servers: list[int] = []

    @contextmanager
    def opened() -> Iterator[Measure]:
        servers.append(0)

        def measure() -> dict[str, float]:
            if servers[-1] == 1 and len(servers) <= times:
                raise WatchersDropped("wrong delivery through /logs: {'closed': 1}")
            servers[-1] += 1
            return {NAME: float(sum(servers))}

        yield measure

    return Family("requests", (Axis(NAME, "one / other"),), opened), servers


def test_watchers_that_were_dropped_are_measured_once_more_and_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stalled, servers = dropping(1)
    (found,) = measured(stalled, {NAME: Expected(4.0, 0.25)})
    assert found.ratios == (1.0, 2.0, 3.0)
    assert servers == [1, 2]
    assert "requests: wrong delivery through /logs: {'closed': 1}" in capsys.readouterr().err


def test_watchers_that_are_dropped_again_fail() -> None:
    stalled, servers = dropping(2)
    with pytest.raises(WatchersDropped):
        measured(stalled, {NAME: Expected(4.0, 0.25)})
    assert servers == [1, 1]


@pytest.mark.parametrize(
    ("wrong", "raised"),
    [
        ({"closed": 1, "missing_at_end": 7}, WatchersDropped),
        ({"gap_events": 1, "holes": 3}, WatchersDropped),
        ({"holes": 3}, RigError),
        ({"missing_at_end": 1}, RigError),
        ({"closed": 1, "doubled": 1}, RigError),
    ],
)
def test_only_losses_that_the_server_has_told_are_measured_once_more(
    wrong: Mapping[str, int], raised: type[RigError]
) -> None:
    counted = ("holes", "missing_at_end", "doubled", "closed", "gap_events")
    said = {name: wrong.get(name, 0) for name in counted}
    watchers = Mock(spec=Dialog)
    watchers.ask.return_value = said
    endpoint = Endpoint(pid=1, port=1, path="/logs")
    with pytest.raises(RigError, match="wrong delivery through /logs") as caught:
        Station(endpoint, watchers, watchers).await_line(9)
    assert caught.type is raised


@pytest.mark.parametrize("asked", [False, True])
def test_what_is_left_out_fails_unless_it_was_asked_for(
    asked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not left_out({}, asked=asked)
    assert left_out({"requests": "wrk"}, asked=asked) is not asked
    assert "LEFT OUT requests: this machine lacks wrk" in capsys.readouterr().out


def test_a_baseline_is_measured_thoroughly() -> None:
    assert len(found_of([1.0] * 9, thoroughly=True).ratios) == 9


def test_what_is_only_told_never_fails() -> None:
    found = found_of([5.0, 5.0, 5.0], judged=False)
    assert losses([found]) == []
    assert "told" in tables.row(found)


def test_an_axis_that_the_baseline_lacks_fails() -> None:
    (found,) = measured(family([1.0] * 3), {})
    assert losses([found]) == [
        "requests: CPU: the baseline has no such axis; scripts/bench/check --update adds it"
    ]


def test_an_update_keeps_the_tolerance_of_the_file() -> None:
    known = {"axes": {NAME: {"ratio": 2.0, "tolerance": 0.5}}, "fanout": {}}
    (found,) = measured(family([1.0] * 3), baseline.expected_of(known))
    axis = baseline.updated(known, [found])["axes"][NAME]
    assert (axis["ratio"], axis["tolerance"], axis["measurements"]) == (1.0, 0.5, 3)


def test_the_baseline_has_every_axis_and_no_other() -> None:
    known = baseline.load()["axes"]
    axes = {axis.name: axis for family in FAMILIES for axis in family.axes}
    assert set(known) == set(axes)
    assert {name: known[name]["what"] for name in axes} == {
        name: axis.what for name, axis in axes.items()
    }


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
def test_documents_have_the_tables_that_the_baseline_gives(page: str) -> None:
    path = tables.ROOT / page
    text = path.read_text(encoding="utf-8")
    table = tables.tables(baseline.load())[path]
    assert text == tables.written(text, table), "scripts/bench/check --table prints it"


def test_a_document_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no '<!-- From"):
        tables.written("# Costs\n", "| a |")


def test_the_fan_out_s_table_has_the_middle_of_the_runs(tmp_path: Path) -> None:
    runs = []
    for number, cpu in enumerate((7, 5, 6)):
        results = [
            f'{{"workload": {{"name": "W1", "watchers": 500, "rate": 50}}, "peer": "{peer}",'
            f' "lost": 0, "doubled": 0, "cpu_us_per_delivery": {cpu}, "p50_ms": 1.26,'
            f' "p99_ms": 1234.5, "kept_up": {kept_up}}}'
            for peer, kept_up in (("gateway", 1.0), ("nchan", 0.5))
        ]
        path = tmp_path / f"{number}.json"
        path.write_text(f'{{"rounds": 2, "results": [{", ".join(results)}]}}')
        runs.append(path)
    table = tables.fan_out_table(tables.fan_out_of(runs))
    assert "| 500 x 50 | 6.0 / 6.0 (saturated) | 1.3 / 1.3 | 1,234 / 1,234 |" in table.splitlines()
    assert "Medians of 6 runs in turn" in table


def test_a_program_that_ends_while_memory_is_read_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = (sys.executable, "-c", "import sys; sys.stdin.read()")
    with subprocess.Popen(reading, stdin=subprocess.PIPE) as process:
        gone = psutil.Process(process.pid)
    supervisor = psutil.Process()
    monkeypatch.setattr(supervisor, "children", lambda recursive: [gone])
    table = size._table(supervisor)
    assert [count for count, _, _ in table.values()] == [1]
