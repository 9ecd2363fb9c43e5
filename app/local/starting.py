"""Runs the steps of a start, each a program of its own (`app.local.steps`)."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import app
from app.local.child import dying_with_parent, last_line
from app.local.data_dir import CannotStart

#: Status of a step whose last line on stderr says to a person why the stack cannot start.
CANNOT_START: Final = 3


async def run_step(
    name: str,
    *arguments: str,
    environ: Mapping[str, str],
    log: Path,
    tell: Callable[[str], None],
    holding: int,
) -> None:
    """Run a step, and wait until it exits. `tell` is given each line that it prints.

    `log` gets its stderr, `holding` is a descriptor that it inherits. A cancellation ends the
    program. Raises `CannotStart`.
    """
    command = (sys.executable, "-m", "app.local.steps", name, *arguments)
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *dying_with_parent(command, signal_number=signal.SIGTERM),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=Path(app.__file__).parent.parent,
            env=environ,
            start_new_session=True,
            pass_fds=(holding,),
        )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            tell(line.decode(errors="replace").rstrip("\n"))
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status == CANNOT_START:
        raise CannotStart(last_line(log))
    if status < 0:
        # Nobody can write a reason into the log then.
        raise CannotStart(
            f"The step '{name}' of the start was ended by signal {-status}"
            f" ({signal.strsignal(-status)}). Start again; if it was killed for lack of memory,"
            f" free some first (log: {log})."
        )
    if status:
        raise CannotStart(f"The step '{name}' of the start failed: {last_line(log)} (log: {log})")
