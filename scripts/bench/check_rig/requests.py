"""Requests beside a bare call and the usual way, and refusals beside orjson."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.bench import refusals, unary
from scripts.bench.check_rig.axis import Axis, Family, Measure
from scripts.bench.fanout_rig.peers import Endpoint
from scripts.bench.fanout_rig.processes import RigError, cpu_of
from scripts.bench.unary import JOB_QUESTION, PAGE_QUESTION, Question

#: Clients of a server, and seconds for which they ask. With as few, how many requests a turn of
#: the event loop has, and so what each costs, follows least what else the machine does.
CLIENTS, SECONDS = 4, 1
#: Times that a body is refused in a round.
REPEATS = 5
REFUSAL = "refusal: CPU"
_OF_JOB, _OF_PAGE, _OF_CALL = (
    "job, usual way: CPU",
    "100 jobs, usual way: CPU",
    "job, bare call: CPU",
)


@contextmanager
def requests() -> Iterator[Measure]:
    """All servers of the unary benchmark, one after the other."""
    with unary.rig() as rig:

        def measure() -> dict[str, float]:
            job = {
                name: cost_of(rig.servers[name], JOB_QUESTION)
                for name in ("gateway", "usual", "call")
            }
            page = {
                name: cost_of(rig.servers[name], PAGE_QUESTION) for name in ("gateway", "usual")
            }
            return {
                _OF_JOB: job["gateway"] / job["usual"],
                _OF_PAGE: page["gateway"] / page["usual"],
                _OF_CALL: job["gateway"] / job["call"],
            }

        yield measure


def cost_of(endpoint: Endpoint, question: Question) -> float:
    """CPU seconds of a request."""
    headers = [part for header in endpoint.headers for part in ("-H", header)]
    url = f"http://127.0.0.1:{endpoint.port}{question.path}"
    tree = endpoint.tree()
    before = cpu_of(tree)
    said = subprocess.run(
        ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", *headers, url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = cpu_of(tree) - before
    count = re.search(r"([1-9]\d*) requests in", said)
    if count is None or "Non-2xx" in said:
        raise RigError(f"{question.name}: wrk said:\n{said}")
    return used / int(count[1])


@contextmanager
def refused() -> Iterator[Measure]:
    """Bodies of a MiB, in this process."""
    bodies = [*refusals.bodies()]
    yield lambda: {REFUSAL: max(_least(each) for each in bodies)}


def _least(each: refusals.Refused) -> float:
    """A body's refusal over its decoding, each the quickest of some: the least disturbed."""
    spent = [refusals.measured(each, rounds=1) for _ in range(REPEATS)]
    return min(each.refused for each in spent) / min(each.decoded for each in spent)


def _lacks_peers() -> str:
    if shutil.which("wrk") is None:
        return "wrk"
    return (
        "" if unary.usual_python().exists() else "the usual way's environment (scripts/venv bench)"
    )


FAMILIES = (
    Family("refusals", (Axis(REFUSAL, "the dearest refusal / orjson.loads of the body"),), refused),
    Family(
        "requests",
        (
            Axis(_OF_JOB, "GET of a job through the gateway / the usual way"),
            Axis(_OF_PAGE, "GET of 100 jobs through the gateway / the usual way"),
            Axis(_OF_CALL, "GET of a job through the gateway / aiohttp with a bare call"),
        ),
        requests,
        _lacks_peers,
        rounds=4,
    ),
)
