"""Asks the trainers which hyperparameters they take, while the coordinator does other work.

They import torch for it, which takes seconds, and on a busy machine a minute.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from app.coordinator.trainers.environment import (
    TrainersEnvironment,
    closed_to_others,
    find_environment,
)
from app.coordinator.trainers.program import LAUNCHER, place_trainers
from app.coordinator.trainers.schema import BadSchema, Schema
from app.coordinator.workers.process import WorkerProcess
from app.coordinator.workers.rules import Rules
from app.files.directory import Directory

#: The module of the worker.
WORKER: Final = "app.coordinator.trainers.schema_worker"
#: Seconds that a submission waits for the schema, and that the trainers may take for it.
PATIENCE: Final = 10.0
_LIMIT: Final = 300.0
#: Seconds after a failure in which it is not asked for again.
_PAUSE: Final = 30.0
#: Bytes of the schema.
_MAX_SCHEMA: Final = 4 * 1024 * 1024
#: Bytes of a file that libraries write while they are imported.
_MAX_FILE: Final = 64 * 1024 * 1024
_MEMORY: Final = 32 * 1024**3
#: Characters of what a failure said that the log has.
_SAID: Final = 300
NO_ENVIRONMENT: Final = (
    "this coordinator has no environment to train language models in. Its operator makes one and"
    " starts with it by: scripts/run --with-trainers; a coordinator that runs alone names it by"
    " SCAIMIND_COORDINATOR_TRAINERS_PYTHON"
)
_NOT_USABLE: Final = "the environment to train language models in cannot be used"
_WHO: Final = "(its operator finds more in the coordinator's log, trainers_not_usable)"

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerRules:
    """What submissions of a framework type other than CUSTOM are checked by."""

    #: Why they are refused here; empty where they are not.
    refused: str = ""
    #: None while the trainers have not said it.
    schema: Schema | None = None


class _Failed(Exception):
    """The trainers did not say their schema; the message says why, without this machine's paths.

    `said` is what their program wrote last, for the operator.
    """

    def __init__(self, reason: str, said: str = "") -> None:
        self.said = said
        super().__init__(reason)


class Trainers:
    """The environment and what is known of it. For one event loop; close it."""

    def __init__(
        self,
        python: Path | None,
        *,
        readable: tuple[str, ...],
        private: Collection[Path] = (),
        other_users: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`readable` is what of the system the trainers may read while they are asked, and
        `private` what no environment may lie around; with `other_users`, jobs reach it as users
        of their own."""
        self._python = python
        self._readable = readable
        self._private = private
        self._other_users = other_users
        self._monotonic = monotonic
        self._asking: asyncio.Task[TrainerRules] | None = None
        self._failed_at = 0.0

    @property
    def environment(self) -> TrainersEnvironment | None:
        """Return the environment; None if none is named. Raises OSError if it is not there."""
        return (
            None if self._python is None else find_environment(self._python, private=self._private)
        )

    def start(self) -> None:
        """Begin to ask, if there is an environment to be asked."""
        if self._python is not None:
            self._begin()

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def rules(self) -> TrainerRules:
        """Return what submissions are checked by, after PATIENCE seconds at the latest."""
        if self._python is None:
            return TrainerRules(refused=NO_ENVIRONMENT)
        asking = self._asking
        if asking is None or (asking.done() and self._may_have_passed(asking.result())):
            asking = self._begin()
        await asyncio.wait([asking], timeout=PATIENCE)
        return asking.result() if asking.done() else TrainerRules()

    def _may_have_passed(self, rules: TrainerRules) -> bool:
        return bool(rules.refused) and self._monotonic() - self._failed_at >= _PAUSE

    def _begin(self) -> asyncio.Task[TrainerRules]:
        self._asking = asyncio.create_task(self._ask(), name="schema of the trainers")
        return self._asking

    async def _ask(self) -> TrainerRules:
        began = self._monotonic()
        try:
            async with asyncio.timeout(_LIMIT):
                schema = await self._answer()
        except (TimeoutError, OSError, _Failed) as error:
            self._failed_at = self._monotonic()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            reason = reason or f"no answer in {_LIMIT:g} s"
            said = error.said if isinstance(error, _Failed) else str(error)
            log.error("trainers_not_usable", python=str(self._python), reason=reason, said=said)
            return TrainerRules(refused=f"{_NOT_USABLE}: {reason} {_WHO}")
        seconds = round(self._monotonic() - began, 1)
        types = sorted(schema.training_types)
        log.info("trainers_ready", python=str(self._python), training_types=types, seconds=seconds)
        return TrainerRules(schema=schema)

    async def _answer(self) -> Schema:
        """Run the trainers' program. Raises _Failed, OSError."""
        environment = await asyncio.to_thread(lambda: self.environment)
        assert environment is not None
        if self._other_users and (closed := closed_to_others(environment)) is not None:
            raise _Failed("users that jobs run as cannot read it", f"closed to others: {closed}")
        with tempfile.TemporaryDirectory(prefix="scaimind-trainers-") as name:
            program, temporary = Path(name, "program"), Path(name, "tmp")
            await _placed(program, temporary)
            rules = Rules(
                readable=(*self._readable, *map(str, environment.roots), str(program)),
                writable=(str(temporary),),
                memory_bytes=_MEMORY,
                file_bytes=_MAX_FILE,
                open_files=1024,
                cpu_seconds=int(_LIMIT),
            )
            async with WorkerProcess(
                WORKER,
                rules,
                str(environment.python),
                str(program / LAUNCHER),
                str(temporary),
                asked=b"",
                name="schema of the trainers",
            ) as worker:
                said = bytearray()
                while block := await worker.output.read(64 * 1024):
                    said += block
                    if len(said) > _MAX_SCHEMA:
                        raise _Failed(f"it printed more than {_MAX_SCHEMA} bytes")
                status = await worker.ended()
                words = worker.last_words
        if status:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            raise _Failed(f"its program ended with {how}", " ".join(words.split())[-_SAID:])
        try:
            # What libraries print while they are imported comes before.
            return Schema.read(bytes(said).strip().rpartition(b"\n")[2])
        except BadSchema as error:
            raise _Failed(f"what its program printed is not a schema: {error}") from None


async def _placed(program: Path, temporary: Path) -> None:
    """Make both folders, with the trainers' program in the one. A cancellation waits until nothing
    is written there any more: they are removed then."""
    abandoned = threading.Event()
    loop = asyncio.get_running_loop()
    placing = loop.run_in_executor(None, _place, program, temporary, abandoned)
    try:
        await asyncio.shield(placing)
    except asyncio.CancelledError:
        abandoned.set()
        await asyncio.wait([placing])
        placing.exception()  # Nobody asks for it any more.
        raise


def _place(program: Path, temporary: Path, abandoned: threading.Event) -> None:
    temporary.mkdir()
    program.mkdir()
    with Directory.open(program) as directory:
        place_trainers(directory, abandoned)
