"""The credentials among the variables that jobs are submitted with.

In a submission that is kept, shown or written to a job's directory, MASK
stands in their place. The values are apart, a file a job in a directory of
the coordinator's own, which no job can read; they are there from before the
job is stored until it is COMPLETED or CANCELLED, and stay with a job that can
be retried.
"""

import json
import re
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

from app.credentials import MASK, is_credential
from app.files.directory import Directory


def take_out(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Put MASK in the place of each credential, and return what stood there, by name.

    A value that is MASK already is none that is known, and stays.
    """
    found = {
        name: value
        for name, value in environment.items()
        if value != MASK and is_credential(name, value)
    }
    for name in found:
        environment[name] = MASK
    return found


def put_in(environment: MutableMapping[str, str], values: Mapping[str, str]) -> None:
    """Undo `take_out`. A variable that somebody has set to something else stays as it is."""
    for name, value in values.items():
        if environment.get(name) == MASK:
            environment[name] = value


def unknown(environment: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """The names of masked variables whose value is not among `values`, sorted."""
    return sorted(
        name for name, value in environment.items() if value == MASK and name not in values
    )


class Concealer:
    """Puts MASK in the place of credentials that a training process writes.

    It knows them as they are, and as JSON and Python's `repr` have them; of
    several lines, each, and all in one. What is shorter than SHORTEST bytes
    would be found in lines that do not mean it, and stays.
    """

    #: Bytes.
    SHORTEST: Final = 8
    #: Bytes of the beginning of one that are taken for it.
    _BEGINNING: Final = 4

    def __init__(self, values: Iterable[str]) -> None:
        texts = {text.strip() for value in values for text in (value, *value.splitlines())}
        known = {form for text in texts for form in _forms(text)}
        # The longest first: one may be the beginning of another.
        found = sorted((form for form in known if len(form) >= self.SHORTEST), key=len)
        self._forms = tuple(reversed(found))
        self._known = re.compile(b"|".join(map(re.escape, self._forms))) if found else None
        #: Bytes of the longest form.
        self.longest = len(found[-1]) if found else 0

    def __call__(self, line: bytes, most: int | None = None) -> bytes:
        """The line as it may be shown, or what becomes of its first `most` bytes.

        A credential that begins within these and ends behind them is found if
        the line has `longest` bytes more.
        """
        most = len(line) if most is None else most
        if self._known is None:
            return line[:most]
        pieces: list[bytes] = []
        at = 0
        for match in self._known.finditer(line):
            if match.start() >= most:
                break
            pieces += (line[at : match.start()], MASK.encode())
            at = match.end()
        return b"".join((*pieces, line[at:most]))

    def conceals(self, lines: bytes) -> bool:
        """Whether something may have to be taken out of lines, each by itself."""
        return self._known is not None and self._known.search(lines) is not None

    def unfinished(self, line: bytes) -> bytes:
        """A line of which more may follow as it may be shown: without a credential's beginning."""
        shown = self(line)
        ends = (
            size
            for form in self._forms
            for size in range(min(len(form) - 1, len(shown)), self._BEGINNING - 1, -1)
            if shown.endswith(form[:size])
        )
        if size := max(ends, default=0):
            return shown[:-size] + MASK.encode()
        return shown

    def settled(self, line: bytes) -> int:
        """How many bytes of a line can be shown by themselves: no credential begins in them that
        may end behind them."""
        begins = [
            len(line) - size
            for form in self._forms
            for size in range(min(len(form) - 1, len(line)), 0, -1)
            if line.endswith(form[:size])
        ]
        settled = min(begins, default=len(line))
        for match in self._known.finditer(line) if self._known else ():
            if match.start() < settled < match.end():
                return match.start()
        return settled


def _forms(text: str) -> set[bytes]:
    """A text as programs write it."""
    written = text.encode()
    return {
        written,
        json.dumps(text)[1:-1].encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        repr(text)[1:-1].encode(),
        repr(written)[2:-1].encode(),
    }


def read_secrets(path: str) -> dict[str, str]:
    """The values in a job's file; none if `path` is empty. Raises OSError."""
    values: dict[str, str] = orjson.loads(Path(path).read_bytes()) if path else {}
    return values


class JobSecrets:
    """The files that hold them. Every call blocks shortly, and may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, job_id: str) -> Path:
        """The file of a job: a JSON object, values by name."""
        return self._folder / f"{job_id}.json"

    def keep(self, job_id: str, values: Mapping[str, str]) -> None:
        """Keep a job's values, replacing what was kept; makes no file for none."""
        if not values:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            Directory.open(self._folder) as folder,
            folder.create(self.path(job_id).name, 0o600, durable=True) as file,
        ):
            file.write(orjson.dumps(dict(values)))

    def of(self, job_id: str) -> dict[str, str]:
        """A job's values; empty if none are kept."""
        try:
            return read_secrets(str(self.path(job_id)))
        except FileNotFoundError:
            return {}

    def forget(self, job_id: str) -> None:
        """Remove a job's values, if there are any."""
        self.path(job_id).unlink(missing_ok=True)

    def sweep(self) -> list[str]:
        """Return the ids of the jobs of which values are kept now; what was being written is
        removed.

        Call while nobody else keeps any.
        """
        found = []
        with suppress(FileNotFoundError):
            for entry in sorted(self._folder.iterdir()):
                if entry.name.startswith("."):
                    entry.unlink(missing_ok=True)
                else:
                    found.append(entry.name.removesuffix(".json"))
        return found
