"""Starts the trainers' launcher in processes that have the libraries imported already.

    warm_start.py PROGRAM LAUNCHER

Imports take seconds of a core, and a tiny run not much more. Each line of the input is a JSON
object of `variables`, `folder`, `log`, `status` and `hold_at`: a process is forked, which has those
variables alone, works in the folder, writes to the log and runs LAUNCHER as `python LAUNCHER`
would. Its number is printed; when it has ended, the file `status` has what it returned, as
`subprocess.Popen.returncode`. When it first prints one of the texts of `hold_at`, it stops until it
gets SIGCONT. At the end of the input all are killed.
"""

import json
import os
import runpy
import selectors
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Start what is asked for until the input ends; returns in each process that is started."""
    program, launcher = sys.argv[1:]
    # What libraries print while they are imported is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import(program)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, str] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == reading:
                    os.read(reading, 4096)
                    _note_ends(running)
                elif not (line := sys.stdin.readline()):
                    for pid in running:
                        os.kill(pid, signal.SIGKILL)
                    # Nothing of the libraries' is to be ended: they have done nothing here.
                    os._exit(0)
                elif pid := os.fork():
                    running[pid] = json.loads(line)["status"]
                    print(pid, file=answers, flush=True)
                else:
                    os.close(reading)
                    os.close(writing)
                    _become(json.loads(line), launcher)
                    return


def _import(program: str) -> None:
    sys.path.insert(0, program)
    from scaimind_trainers.main import _prepare_environment  # type: ignore[import-not-found]

    _prepare_environment()
    import datasets
    import peft
    import transformers
    import trl

    _ = datasets.Dataset, peft.LoraConfig, transformers.Trainer, transformers.LlamaForCausalLM
    for name in ("SFT", "DPO", "GRPO", "RLOO", "Reward"):
        getattr(trl, f"{name}Config")
        getattr(trl, f"{name}Trainer")
    # Threads would not be in what is forked; jemalloc begins its own again.
    names = [each.read_text().strip() for each in Path("/proc/self/task").glob("*/comm")]
    assert len([name for name in names if name != "jemalloc_bg_thd"]) == 1, names


def _note_ends(running: dict[int, str]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        place = Path(running.pop(pid))
        beside = place.with_suffix(".partial")
        beside.write_text(str(os.waitstatus_to_exitcode(status)))
        beside.rename(place)


def _become(asked: dict[str, Any], launcher: str) -> None:
    """Run the launcher as the process's program. Raises SystemExit as it does."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for descriptor, place in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, place)
    os.environ.clear()
    os.environ.update(asked["variables"])
    os.chdir(asked["folder"])
    tempfile.tempdir = None
    if texts := asked["hold_at"]:
        sys.stdout = _Holding(sys.stdout, texts)
    sys.argv = [launcher]
    runpy.run_path(launcher, run_name="__main__")


class _Holding:
    """A standard output at which the process stops."""

    def __init__(self, stream: TextIO, texts: list[str]) -> None:
        self._stream = stream
        self._texts = texts

    def write(self, text: str) -> int:
        count = self._stream.write(text)
        if reached := [each for each in self._texts if each in text]:
            self._texts = [each for each in self._texts if each not in reached]
            self._stream.flush()
            os.kill(os.getpid(), signal.SIGSTOP)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


if __name__ == "__main__":
    main()
