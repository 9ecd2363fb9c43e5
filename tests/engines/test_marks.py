"""Records of several sources are taken over once each, wherever the writer dies."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from app.coordinator.engines.remote.records.marks import LINES, Mark, MarkFile


class Died(Exception):
    """The writer was killed."""


class Writer:
    """Takes entries over from sources into one list, which may be cut short as a log is."""

    def __init__(self, path: Path, entries: list[tuple[int, int]]) -> None:
        self.entries = entries
        self.marks = MarkFile(path, ends={LINES: len(entries)})

    def take(self, source: int, count: int, *, dies_after: int | None = None) -> None:
        first = self.marks.taken.get((LINES, source), 0) + 1
        new = [(source, number) for number in range(first, first + count)]

        def append() -> None:
            self.entries.extend(new if dies_after is None else new[:dies_after])
            if dies_after is not None:
                # As if it were killed: nothing is put right behind it.
                self.marks.close()
                raise Died

        mark = Mark(LINES, source, count, len(self.entries), first)
        self.marks.taking(mark, append)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(1, 5), st.none() | st.integers(0, 5), st.booleans()
        ),
        max_size=25,
    )
)
def test_no_entry_is_left_out_or_taken_twice(
    steps: list[tuple[int, int, int | None, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taken"
        entries: list[tuple[int, int]] = []
        writer = Writer(path, entries)
        for source, count, dies_after, own_line in steps:
            try:
                writer.take(source, count, dies_after=dies_after)
            except (Died, OSError):
                writer = Writer(path, entries)
            if own_line:
                entries.append((-1, 0))
        writer.marks.close()
        for source in range(3):
            numbers = [number for each, number in entries if each == source]
            assert numbers == list(range(1, len(numbers) + 1))
