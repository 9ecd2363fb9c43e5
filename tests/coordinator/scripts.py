"""Training scripts that tests submit."""

from collections.abc import Iterable

from generated.mindcoordinator.v1.watch_pb2 import LogEntry

#: Counts up to UP_TO, saves a checkpoint when asked to leave, and goes on from it. At each of
#: STAYS_AT it waits to be asked once: a test that is to catch it there is never too late.
COUNTS = """
    import json, os, signal, sys, time
    at = 0
    if os.environ["SCAIMIND_RESUME_FROM"]:
        at = int(open(os.environ["SCAIMIND_RESUME_FROM"] + "/at").read())
    leaving = False
    def leave(*_):
        global leaving
        leaving = True
    signal.signal(signal.SIGTERM, leave)
    end = int(os.environ["UP_TO"])
    stays = set(map(int, os.environ.get("STAYS_AT", "").split()))
    while at < end and not leaving:
        at += 1
        stay = at in stays and not os.path.exists(f"stayed-{at}")
        if stay:
            # Before it is seen: it may be killed as soon as it is.
            open(f"stayed-{at}", "w").close()
        print("count", at)
        with open(os.environ["SCAIMIND_METRICS_FILE"], "a") as file:
            file.write(json.dumps({"step": at}) + "\\n")
        while stay and not leaving:
            time.sleep(0.01)
        time.sleep(0.01)
    if leaving:
        folder = os.environ["SCAIMIND_CHECKPOINT_DIR"] + f"/step-{at}"
        os.mkdir(folder + ".tmp")
        open(folder + ".tmp/at", "w").write(str(at))
        os.rename(folder + ".tmp", folder)
"""

#: Says that it is there, then stays until it is ended.
WAITS = """
    import time
    print("ready")
    time.sleep(600)
"""


def counting(up_to: int, *stays_at: int) -> dict[str, str]:
    """The environment of COUNTS."""
    return {"UP_TO": str(up_to), "STAYS_AT": " ".join(map(str, stays_at))}


def counted(entries: Iterable[LogEntry]) -> list[int]:
    """The numbers that COUNTS printed."""
    return [
        int(entry.message.split()[1]) for entry in entries if entry.message.startswith("count ")
    ]
