"""What an experiment cost: lines lost and doubled, wrong answers, seconds without lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from scripts.chaos_rig.watching import LEVELS, Watcher
from scripts.chaos_rig.world import Workload


@dataclass
class Tally:
    """The outcome of one experiment."""

    name: str
    #: Clients, and lines that were delivered to them.
    clients: int = 0
    lines: int = 0
    lost: int = 0
    doubled: int = 0
    #: Answers to questions for the job.
    answers: int = 0
    #: Lines that are missing, of which the client was told.
    told: int = 0
    wrong: list[str] = field(default_factory=list)
    #: Seconds from the end of a fault to the next line, by fault.
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    #: Why it was not run.
    skipped: str = ""

    @property
    def bad(self) -> bool:
        """Whether something was lost or doubled silently, or an answer was wrong."""
        return bool(self.lost or self.doubled or self.wrong)

    def recovered(self, fault: str, seconds: float) -> None:
        """Note how long it took until lines came again."""
        self.recoveries.setdefault(fault, []).append(seconds)

    def judge_log(self, workload: Workload, log: Sequence[LogEntry]) -> None:
        """Compare a job's log with what its script wrote."""
        written = Counter(
            entry.message.partition(": ")[2] for entry in log if entry.source == "stdout"
        )
        for number in range(1, workload.lines + 1):
            count = written[f"line {number}"]
            self.lost += count == 0
            self.doubled += max(count - 1, 0)

    def judge(self, watcher: Watcher, log: Sequence[LogEntry]) -> None:
        """Compare what a client got with the job's log."""
        least = LEVELS[watcher.level]
        expected: Mapping[int, str] = {
            entry.offset: entry.message for entry in log if entry.level >= least
        }
        got = Counter(offset for offset, _ in watcher.lines)
        self.clients += 1
        self.lines += len(watcher.lines)
        self.doubled += sum(count - 1 for count in got.values())
        for offset in expected.keys() - got.keys():
            if any(first <= offset <= last for first, last in watcher.told):
                self.told += 1
            else:
                self.lost += 1
        offsets = [offset for offset, _ in watcher.lines]
        if offsets != sorted(offsets):
            self.wrong.append("lines out of order")
        if any(expected.get(offset) != message for offset, message in watcher.lines):
            self.wrong.append("a line that is not the log's")
        if watcher.told:
            # The log of a sound coordinator has no hole.
            self.wrong.append(f"a gap {watcher.told[0]}")
        if not watcher.ended:
            self.wrong.append("a stream without an end")
        self.wrong += watcher.wrong


def table(tallies: Sequence[Tally]) -> str:
    """Write the outcomes for people."""
    rows: list[tuple[str, ...]] = [
        (
            "experiment",
            "clients",
            "lines",
            "answers",
            "lost",
            "doubled",
            "told",
            "wrong",
            "recovery, s",
        )
    ]
    for each in tallies:
        if each.skipped:
            rows.append((each.name, *["-"] * 7, f"not run: {each.skipped}"))
            continue
        counts = (
            *(each.clients, each.lines, each.answers),
            *(each.lost, each.doubled, each.told, len(each.wrong)),
        )
        times = [seconds for found in each.recoveries.values() for seconds in found]
        recovery = f"median {median(times):.1f}, max {max(times):.1f}" if times else "-"
        rows.append((each.name, *(f"{count:,}" for count in counts), recovery))
        for fault, found in each.recoveries.items():
            spread = f"median {median(found):.1f}, max {max(found):.1f}"
            rows.append((f"  {fault}, {len(found)} x", *[""] * 7, spread))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 8) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    for each in tallies:
        for text, count in Counter(each.wrong).items():
            lines.append(f"{each.name}: {text}" + (f" ({count} times)" if count > 1 else ""))
    return "\n".join(lines)
