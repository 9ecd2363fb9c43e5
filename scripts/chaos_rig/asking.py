"""A client that asks for a job again and again: what it is told must never be wrong."""

import asyncio
from dataclasses import dataclass, field

import aiohttp
import orjson

from scripts.chaos_rig.watching import PASSING

#: Seconds between two questions.
PAUSE = 0.25
#: What a job of the rig may be before its end, and at it.
_BEFORE = frozenset(
    {"PENDING", "QUEUED", "SCHEDULING", "PREPARING", "TRAINING", "CHECKPOINTING", "EXPORTING"}
)
_END = "COMPLETED"


@dataclass
class Asker:
    """Asks for a job's status. An answer may say that the gateway cannot answer now."""

    url: str
    key: str

    #: Answers that told a status, and that said that there is none now.
    answers: int = 0
    refusals: int = 0
    wrong: list[str] = field(default_factory=list)
    _ended: bool = False

    async def run(self) -> None:
        """Ask until cancelled."""
        async with self._session() as session:
            while True:
                await self._ask(session)
                await asyncio.sleep(PAUSE)

    async def check_end(self, patience: float) -> None:
        """Ask until the job is told as completed, for so many seconds at most."""
        try:
            async with asyncio.timeout(patience), self._session() as session:
                while not self._ended:
                    await self._ask(session)
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            self.wrong.append("a job that has ended is never told as COMPLETED")

    @staticmethod
    def _session() -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=20)
        return aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)
        )

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            async with session.get(self.url, headers=headers) as answer:
                status, body = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        try:
            told = orjson.loads(body)
            if status == 200:
                self._take(told["data"]["status"])
            elif status in PASSING and told["error"]["code"]:
                self.refusals += 1
            else:
                self.wrong.append(f"GET: {status} {told['error']['code']}")
        except (ValueError, KeyError, TypeError):
            self.wrong.append(f"GET: {status} that cannot be read")

    def _take(self, status: str) -> None:
        self.answers += 1
        if status == _END:
            self._ended = True
        elif self._ended or status not in _BEFORE:
            self.wrong.append(f"GET: {status}" + (" after COMPLETED" if self._ended else ""))
