"""The language models that a start puts on the local drive, where there is an environment for them.

They are made by programs that run in that environment, while the stack is in use already.
"""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.local.child import dying_with_parent, last_line

#: Names the Python of the environment, here as for the coordinator.
PYTHON_VARIABLE: Final = "SCAIMIND_COORDINATOR_TRAINERS_PYTHON"
#: Set by `scripts/run --with-model`.
MODEL_VARIABLE: Final = "SCAIMIND_EXAMPLE_MODEL"
#: The folder of the drive, beside those of the tenants, in which models are made.
MAKING: Final = ".example"
#: What the example's model learns, beside the corpus.
SUMS: Final = "sums.jsonl"
#: The same questions with a right and a useless answer each.
PAIRS: Final = "pairs.jsonl"
_NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)


@dataclass(frozen=True, slots=True)
class ExampleModel:
    """A model to be made."""

    #: Of its folder, and of the program beside this module.
    name: str
    program: str
    arguments: tuple[str, ...]
    about: str


TINY: Final = ExampleModel(
    "tiny-model",
    "tiny_model.py",
    ("300",),
    "a language model of a million parameters, which has read the corpus for half a minute",
)
SMOLLM2: Final = ExampleModel("smollm2", "smollm2.py", (), "SmolLM2-135M-Instruct")


def wanted_models(environ: Mapping[str, str]) -> tuple[ExampleModel, ...]:
    """Return the models that a start is to make: none without an environment for them."""
    if not environ.get(PYTHON_VARIABLE):
        return ()
    return (TINY, SMOLLM2) if environ.get(MODEL_VARIABLE) == "smollm2" else (TINY,)


def write_sums(folder: Path) -> bool:
    """Write a hundred questions with their answers, as conversations, and as pairs of a right and
    a useless answer, unless they are there.

    Returns whether it wrote any.
    """
    sums, pairs = [], []
    for a, one in enumerate(_NUMBERS[:10]):
        for b, other in enumerate(_NUMBERS[:10]):
            asked = [{"role": "user", "content": f"What is {one} plus {other}?"}]
            right, useless = (
                [{"role": "assistant", "content": text}]
                for text in (f"It is {_NUMBERS[a + b]}.", "I do not know.")
            )
            sums.append({"messages": [*asked, *right]})
            pairs.append({"prompt": asked, "chosen": right, "rejected": useless})
    written = [_write_lines(folder / name, each) for name, each in ((SUMS, sums), (PAIRS, pairs))]
    return any(written)


def _write_lines(path: Path, records: Iterable[Mapping[str, object]]) -> bool:
    if path.exists():
        return False
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    beside.replace(path)
    return True


async def make_model(
    model: ExampleModel,
    folder: Path,
    *,
    environ: Mapping[str, str],
    log: Path,
    tell: Callable[[str], None],
) -> None:
    """Make a model in a tenant's folder of the drive, unless it is there, and tell of it.

    It appears as a whole, and is made beside the tenants' folders, where nobody lists. What its
    program says goes into `log`. A cancellation ends the program. Raises OSError.
    """
    if (folder / model.name).exists():
        return
    beside = folder.parent / MAKING / model.name
    # An earlier start may have been killed while it made it.
    await asyncio.to_thread(shutil.rmtree, beside, ignore_errors=True)
    beside.mkdir(mode=0o700, parents=True)
    try:
        made = beside / "model"
        if await _run(model, made, environ, log):
            tell(f"The example's model could not be made: {last_line(log)} (log: {log})")
            return
        made.rename(folder / model.name)
        tell(f"Made {model.about}: scaidrive://{folder.name}/{model.name}")
    finally:
        await asyncio.to_thread(shutil.rmtree, beside, ignore_errors=True)


async def _run(model: ExampleModel, made: Path, environ: Mapping[str, str], log: Path) -> int:
    """Run a model's program, and return its status."""
    program = Path(__file__).with_name(model.program)
    command = (environ[PYTHON_VARIABLE], "-P", str(program), str(made), *model.arguments)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *dying_with_parent(command, signal_number=signal.SIGKILL),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # The rest is the secrets of other programs. What torch leaves in its TMPDIR goes with
            # the folder.
            env={name: environ[name] for name in ("PATH", "LANG", "HOME") if name in environ}
            | {"TMPDIR": str(made.parent)}
            | {name: value for name, value in environ.items() if name.startswith("PIP_")},
            cwd=made.parent,
            start_new_session=True,
        )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
