"""Refuse bodies of one MiB, beside orjson.loads of the same bytes.

    .venv/bin/python -m scripts.bench.refusals [--rounds 15]

Each body is refused as a request's would be: decoded, checked for duplicate
names, and validated. `ratio` is that CPU time over what orjson.loads alone takes, for
which the last line has the largest.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import thread_time

import orjson
from marshmallow import Schema

from app.api.bodies import decode_object
from app.errors import ApiError
from app.schemas.data import VALIDATE_DATA_BODY
from app.schemas.jobs import SUBMIT_JOB_BODY
from app.schemas.loading import load_body
from scripts.bench.measuring import timed

SIZE = 1024 * 1024
#: Times what orjson.loads takes that refusing a body may.
TARGET = 4.0


@dataclass(frozen=True, slots=True)
class Refused:
    """A body, and the schema that refuses it."""

    what: str
    schema: Schema
    body: bytes


def listed(entry: Callable[[int], object]) -> bytes:
    """Encode a list that fills the body."""
    step = len(orjson.dumps(entry(10_000))) + 1
    return orjson.dumps([entry(number) for number in range(SIZE // step)])


def mapped(value: object) -> bytes:
    """Encode an object that fills the body."""
    step = len(orjson.dumps({"100000": value})) - 1
    return orjson.dumps({str(number): value for number in range(100_000, 100_000 + SIZE // step)})


def source(path: str) -> dict[str, object]:
    """Make a data source of a KiB."""
    return {"path": path, "split": "x" * 250, "type": "x" * 60, "columns": ["c" * 100] * 6}


def sources(*, bad: Callable[[int], bool]) -> bytes:
    """Encode as many data sources as a submission may have."""
    return orjson.dumps([source("" if bad(number) else "p") for number in range(1000)])


def bodies() -> Iterator[Refused]:
    """Yield what is refused."""
    submit, validate = SUBMIT_JOB_BODY, VALIDATE_DATA_BODY
    text = b'{"name":"%b"}' % (b"x" * SIZE)
    yield Refused("text", submit, text)
    yield Refused("text of a map", submit, b'{"labels":{"a":%b}}' % text[8:-1])
    yield Refused(
        "list of objects", validate, b'{"data_sources":%b}' % listed(lambda n: {"path": str(n)})
    )
    yield Refused("list of numbers", validate, b'{"data_sources":%b}' % listed(lambda n: n))
    yield Refused("list of lists", validate, b'{"data_sources":%b}' % listed(lambda _: []))
    yield Refused(
        "list of texts", validate, b'{"data_sources":[{"path":"p","columns":%b}]}' % listed(str)
    )
    yield Refused("map", submit, b'{"labels":%b}' % mapped("x"))
    yield Refused("map of objects", submit, b'{"labels":%b}' % mapped({}))
    yield Refused("unknown names", validate, mapped(0))
    yield Refused("no object", validate, listed(lambda n: n))
    yield Refused("white space", validate, b'{"a":%b1}' % (b" " * SIZE))
    yield Refused("cut", validate, b'{"data_sources":%b' % listed(lambda n: {"path": str(n)}))
    yield Refused("a name twice", validate, mapped(0)[:-1] + b',"100000":0}')
    for what, bad in (("1,000 bad entries", True), ("the last of 1,000 bad", False)):
        found = sources(bad=lambda number, bad=bad: bad or number == 999)  # type: ignore[misc]
        yield Refused(what, submit, b'{"data_config":{"sources":%b}}' % found)


def refuse(each: Refused) -> None:
    """Refuse a body; raises `AssertionError` if it is accepted."""
    try:
        load_body(each.schema, decode_object(each.body))
    except ApiError:
        return
    raise AssertionError(f"accepted: {each.what}")


def decode(body: bytes) -> None:
    """Do what every JSON API has to."""
    with suppress(orjson.JSONDecodeError):
        orjson.loads(body)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds that a body takes."""

    decoded: float
    refused: float

    @property
    def ratio(self) -> float:
        """Times what orjson.loads takes."""
        return self.refused / self.decoded


def measured(each: Refused, *, rounds: int) -> Spent:
    """Measure a body. Other programs on the machine do not count."""
    spent = partial(timed, rounds=rounds, clock=thread_time)
    return Spent(spent(lambda: decode(each.body)), spent(lambda: refuse(each)))


def main() -> int:
    """Print a table; 1 if a body costs more than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    largest = 0.0
    print(f"{'body':24} {'bytes':>9} {'orjson ms':>10} {'refused ms':>11} {'ratio':>6}")
    for each in bodies():
        spent = measured(each, rounds=rounds)
        largest = max(largest, spent.ratio)
        print(
            f"{each.what:24} {len(each.body):>9,} {spent.decoded * 1e3:>10.2f}"
            f" {spent.refused * 1e3:>11.2f} {spent.ratio:>6.1f}"
        )
    reached = largest <= TARGET
    print(f"largest: {largest:.1f} (to reach: {TARGET:g}): {'reached' if reached else 'MISSED'}")
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
