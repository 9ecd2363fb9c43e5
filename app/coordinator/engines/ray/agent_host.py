"""The actor on a node that has the agent of one run: a detached one, found by its name.

It may be killed at any moment: the run's runner is nobody's child and goes on,
and the next actor of the name finds it by its directory.
"""

import os
from pathlib import Path

from app.coordinator.engines.agent.agent import RunAgent
from app.coordinator.engines.agent.answers import Answer, answer_of
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.agent.part_files import PartFiles
from app.coordinator.engines.agent.protocol import PROTOCOL
from app.coordinator.engines.agent.records_server import RecordsServer
from app.coordinator.engines.engine import Discard
from app.coordinator.engines.programs import Programs
from app.coordinator.storage.process_identity import process_identity


class AgentHost:
    """Makes an agent's methods callable from elsewhere. No call raises what is the agent's."""

    def __init__(
        self, settings: bytes, job_id: str, run: int, address: str, keeper: int | None = None
    ) -> None:
        """The node is reached at `address`. `keeper` is the process of the run's keeper; an
        actor's parent is Ray's process for the node."""
        decoded = NodeSettings.decoded(settings)
        self._agent = RunAgent(
            decoded,
            job_id=job_id,
            run=run,
            keeper=process_identity(keeper or os.getppid()),
            open_files=self.open_files if decoded.files else None,
        )
        self._server = RecordsServer(self._agent, host=address, job_id=job_id, run=run)

    @staticmethod
    def open_files(settings: NodeSettings, directory: Path, programs: Programs) -> PartFiles:
        """Open a part's files, where the nodes share no disk: by what lies above the engines."""
        raise NotImplementedError

    async def open(self, term: int) -> Answer:
        """Return a port for the ranks to meet, where the agent listens, its secret, and the
        protocol that it speaks. Whatever is added comes behind them."""
        return await answer_of(self._opened(term))

    async def start(self, term: int, part: bytes) -> Answer:
        """As `RunAgent.start`."""
        return await answer_of(self._agent.start(part, term=term))

    async def stop(self, term: int, at_once: bool, discard: int) -> Answer:
        """As `RunAgent.stop`."""
        what = Discard(discard)
        return await answer_of(self._agent.stop(term=term, at_once=at_once, discard=what))

    async def kill(self, term: int) -> Answer:
        """As `RunAgent.kill`."""
        return await answer_of(self._agent.kill(term=term))

    async def forget(self, term: int) -> Answer:
        """As `RunAgent.forget`."""
        return await answer_of(self._agent.forget(term=term))

    async def close(self) -> Answer:
        """As `RunAgent.close`; nobody is answered any more."""
        await self._server.close()
        return await answer_of(self._agent.close())

    async def _opened(self, term: int) -> tuple[int, str, str, int]:
        port = await self._agent.meeting_port(term=term)
        await self._server.start()
        return port, self._server.address, self._server.secret, PROTOCOL
