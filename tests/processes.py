"""What processes have started, and whether they still live."""

import psutil


def descendants(pid: int) -> list[psutil.Process]:
    """Everything that a process has started and that runs now, and what those started."""
    return psutil.Process(pid).children(recursive=True)


def lives(process: psutil.Process) -> bool:
    """Whether a process still runs: one that has ended may wait for its parent to be told so."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_lives(pid: int) -> bool:
    """Whether a process with this number still runs."""
    try:
        return lives(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def command_line(process: psutil.Process) -> list[str]:
    """What a process was started with; nothing of one that has ended."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def name_of(process: psutil.Process) -> str:
    """The name of a process; nothing of one that has ended."""
    try:
        return process.name()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
