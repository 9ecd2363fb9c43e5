"""Jobs that prove how often they run, and a crowd that follows them through a gateway."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.api.settings import LimitsSettings
from app.gateway.routes import PREFIX
from app.hub.settings import HubSettings
from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from scripts.chaos_rig.tally import Tally
from scripts.chaos_rig.watching import Watcher
from tests.coordinator.harness import PATIENCE, SECRET, Client
from tests.replicas import new_key, replica, settings_for

#: Each process says numbers with a name of its own, until it is told to go. It holds a lock that
#: is its rank's: a second one beside it would say so. Each line is one write: runs have
#: PYTHONUNBUFFERED, with which `print` writes word by word, and a kill leaves half a line.
COUNTING = """
import fcntl, os, pathlib, sys, time, uuid
folder = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"])
lock = open(folder / ("rank-" + os.environ.get("RANK", "0")), "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another run of it lives")
    sys.exit(9)
name, number = uuid.uuid4().hex, 0
while not (folder / "go").exists():
    number += 1
    sys.stdout.write(f"number {{number}} {{name}}\\n")
    time.sleep({pause})
sys.stdout.write(f"last {{number}} {{name}}\\n")
sys.exit({status})
"""


def counting(*, pause: float = 0.05, status: int = 0) -> str:
    """Return such a script, which exits with `status`."""
    return COUNTING.format(pause=pause, status=status)


async def go(client: Client, job_id: str) -> None:
    """Let the job end."""
    folder = client.drive / client.tenant / "jobs" / job_id / "checkpoints"
    await asyncio.to_thread((folder / "go").touch)


def assert_runs(entries: Sequence[LogEntry], *, ranks: int = 1) -> int:
    """Assert that each run was there once and said all its lines in order, whatever ended it, and
    the last one its last; returns how many runs there were."""
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    texts = [entry.message for entry in entries]
    assert not [text for text in texts if "Gap" in text or "another run" in text]
    begins = [at for at, text in enumerate(texts) if text.startswith("Run ") and " begins" in text]
    assert [texts[at].split()[1] for at in begins] == [
        str(number) for number in range(1, len(begins) + 1)
    ]
    for first, behind in itertools.pairwise([*begins, len(entries)]):
        for rank in range(ranks):
            said = [
                entry.message.split()
                for entry in entries[first:behind]
                if entry.source == "stdout" and entry.rank == rank
            ]
            assert len({name for _, _, name in said}) <= 1
            numbers = [int(number) for word, number, _ in said if word == "number"]
            assert numbers == list(range(1, len(numbers) + 1)), rank
            if behind == len(entries):
                assert said[-1][:2] == ["last", str(len(numbers))]
    return len(begins)


@dataclass
class Crowd:
    """Clients that follow jobs' logs to their ends."""

    url: str
    key: str
    watchers: dict[str, list[Watcher]] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def follow(self, job_id: str, count: int) -> None:
        """Have so many more follow a job."""
        for _ in range(count):
            watcher = Watcher(f"{self.url}/jobs/{job_id}/logs", self.key)
            self.watchers.setdefault(job_id, []).append(watcher)
            self.tasks.append(asyncio.create_task(watcher.run(), name=f"watcher of {job_id}"))

    async def until_more(self, count: int) -> None:
        """Wait until all of them together have got `count` more lines."""
        wanted = self._lines() + count
        async with asyncio.timeout(2 * PATIENCE):
            while self._lines() < wanted:  # noqa: ASYNC110  # each tells of its own
                await asyncio.sleep(0.02)

    async def until_each_has(self, count: int) -> None:
        """Wait until each of them has so many lines."""
        async with asyncio.timeout(2 * PATIENCE):
            while min(len(each.lines) for each in self._all()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def until_ended(self) -> None:
        """Wait until all jobs have ended for all of them."""
        async with asyncio.timeout(2 * PATIENCE):
            await asyncio.gather(*self.tasks)

    def judged(self, logs: dict[str, list[LogEntry]]) -> Tally:
        """Compare what they got with the jobs' logs."""
        tally = Tally("crowd")
        for job_id, watchers in self.watchers.items():
            for watcher in watchers:
                tally.judge(watcher, logs[job_id])
        return tally

    def _all(self) -> list[Watcher]:
        return [each for watchers in self.watchers.values() for each in watchers]

    def _lines(self) -> int:
        return sum(len(each.lines) for each in self._all())


@asynccontextmanager
async def crowd(dsn: str, coordinators: str) -> AsyncIterator[Crowd]:
    """A crowd before a gateway of its own; `dsn` is of a migrated database."""
    key = await new_key(dsn, tenant="local")
    settings = settings_for(
        dsn,
        coordinators,
        api_secret=SECRET,
        limits=LimitsSettings(rate=0),
        hub=HubSettings(linger=0, keepalive_interval=2, reconnect_max=1, outage_limit=600),
    )
    async with replica(settings) as gateway:
        found = Crowd(str(gateway.server.make_url(PREFIX)), key.secret)
        try:
            yield found
        finally:
            for task in found.tasks:
                task.cancel()
            if found.tasks:
                await asyncio.wait(found.tasks)
