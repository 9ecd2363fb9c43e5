"""Which places in sources are the coordinator's, and which are in a job's script."""

import re
from typing import Final

_SOURCE: Final = (
    "py|pyx|pyi|java|kt|kts|scala|clj|go|rs|c|cc|cpp|cxx|h|hpp|cu|js|mjs|ts|rb|php|cs|swift|sql"
)

POSITION: Final = re.compile(
    r"(?<![\w./~+-])(?P<folders>(?:[\w.~+-]{0,100}/){0,20})(?P<stem>[\w-]{1,100})\."
    rf"(?P<kind>{_SOURCE})(?P<line>:\d+|, line \d+|\(\d+|#L\d+|:line \d+)"
)
#: What people call the scripts that they train with.
_SCRIPTS: Final = re.compile(
    r"(?i)(?:my_?|run_?|the_?)?(?:train\w*|main|run\w*|fine_?tun\w*|eval\w*|test\w*|data\w*|model\w*"
    r"|prepro\w*|prepare\w*|script\w*|infer\w*|sft\w*|dpo\w*|grpo\w*|lora\w*|example\w*|notebook\w*"
    r"|job|launch|entry\w*|dataset\w*|tokeni\w*|config\w*|benchmark\w*|export\w*|trainer\w*)"
)
_OWN_FOLDERS: Final = re.compile(
    r"(?:\./)?(?:(?:scripts?|src|code|work|program|examples?|experiments?|training|train|project"
    r"|workspace|notebooks?|my\w*)/)*"
)
#: Sources of what a training process uses, which its errors name.
_LIBRARIES: Final = re.compile(r"(?i)\b(?:torch|aten|c10d?|csrc|nccl|cutlass|triton|cuda|thc)\b")


def is_position(match: re.Match[str]) -> bool:
    """Whether a place in a source is in one of the coordinator's, and not in the job's script."""
    folders, stem = match["folders"], match["stem"]
    if _LIBRARIES.search(f"{folders}{stem}"):
        return False
    if match["kind"] != "py":
        return True
    if not _OWN_FOLDERS.fullmatch(folders):
        return True
    return _SCRIPTS.fullmatch(stem) is None and not (
        not folders and match["line"].startswith(", line")
    )
