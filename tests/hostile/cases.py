"""Scripts that once blocked a machine, or broke what is told of its jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

#: What each script begins with: the files that a job has at hand.
_HEAD: Final = """
import json, os, sys
M = os.environ["SCAIMIND_METRICS_FILE"]
C = os.environ["SCAIMIND_CHECKPOINT_DIR"]
O = os.environ["SCAIMIND_OUTPUT_DIR"]
T = os.environ["TMPDIR"]
def measure(*lines):
    with open(M, "a") as file:
        for line in lines:
            file.write(line + "\\n")
def deep(where, depth=1500):
    os.chdir(where)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
print("here")
"""


def script(body: str) -> str:
    """A script with M, C, O and T at hand, `measure` and `deep`."""
    return _HEAD + body + "\n"


@dataclass(frozen=True)
class Case:
    """A script, and what is asked with it."""

    body: str
    #: Changes of the submission.
    asked: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def script(self) -> str:
        """The whole script."""
        return script(self.body)


#: After these a job stayed TRAINING or EXPORTING for ever.
STUCK: Final = MappingProxyType(
    {
        "total_steps NaN": Case('measure(\'{"step": 1, "total_steps": NaN, "loss": 0.5}\')'),
        "total_steps Infinity": Case('measure(\'{"step": 1, "total_steps": Infinity}\')'),
        "total_steps 1e30": Case('measure(\'{"step": 1, "total_steps": 1e30}\')'),
        "total_steps -1e19": Case('measure(\'{"step": 1, "total_steps": -1e19}\')'),
        "total_steps of 401 digits": Case(
            'measure(\'{"step": 1, "loss": 0.5, "total_steps": 1\' + "0" * 400 + "}")'
        ),
        "a step of 401 digits": Case('measure(\'{"step": 1\' + "0" * 400 + "}")'),
        "a step of 5,000 digits": Case('measure(\'{"step": 1\' + "0" * 5000 + "}")'),
        "a line nested 2,000 deep": Case(
            'measure(\'{"step": 1, "x": \' + "[" * 2000 + "]" * 2000 + "}")'
        ),
        "a line nested 200,000 deep": Case(
            'measure(\'{"step": 1, "x": \' + "[" * 200000 + "]" * 200000 + "}")'
        ),
        "a checkpoint numbered by a moment": Case('os.mkdir(C + "/ckpt-20261126154000123456")'),
        "a checkpoint's number of 5,000 digits within its name's 255 bytes": Case(
            'os.mkdir(C + "/step-" + "9" * 240)'
        ),
        "a checkpoint's name that is not UTF-8": Case('os.mkdir(os.fsencode(C) + b"/step-\\xff1")'),
        "deep directories in a checkpoint": Case('os.mkdir(C + "/step-1"); deep(C + "/step-1")'),
        "deep directories among the checkpoints": Case("deep(C)"),
        "deep directories in TMPDIR": Case("deep(T)"),
        "deep directories in the output": Case("deep(O)"),
        "deep directories in the output that is registered": Case(
            "deep(O)", {"output_config": {"register_model": True, "model_name": "deep"}}
        ),
        "an artefact's name that is not UTF-8": Case(
            'open(os.fsencode(O) + b"/m\\xff.bin", "w").write("model")',
            {"output_config": {"register_model": True, "model_name": "odd"}},
        ),
    }
)

#: What these left behind broke the pages that had their jobs.
BROKEN_READS: Final = MappingProxyType(
    {
        "total_steps sys.maxsize": Case(
            'measure(json.dumps({"step": 1, "total_steps": sys.maxsize}))'
        ),
        "total_steps 2^64 - 1": Case('measure(json.dumps({"step": 1, "total_steps": 2**64 - 1}))'),
        "a checkpoint's number over int64": Case('os.mkdir(C + "/step-9223372036854775808")'),
        "a checkpoint's number just under 2^64": Case('os.mkdir(C + "/step-18446744073709551615")'),
    }
)

#: After these the runner died, and with it the training.
RUNNER_DIED: Final = MappingProxyType(
    {
        "a field of a log line nested 255 deep": Case(
            """
print('{"level": "info", "message": "deep", "f": ' + "[" * 255 + "]" * 255 + "}", flush=True)
print("still here")
"""
        ),
        "a field of a log line nested 100,000 deep": Case(
            """
print('{"level": "info", "message": "deep", "f": ' + "[" * 100000 + "]" * 100000 + "}")
print("still here")
"""
        ),
    }
)

_MODEL: Final = """
import atexit, os

class Model:
    def score(self, prompt, continuation):
        return -1.0, len(continuation)

    def generate(self, prompt, max_tokens):
        return "b" * max_tokens

def load(directory):
    return Model()

def left_behind():
    with open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/results.json", "w") as file:
        file.write({text})

atexit.register(left_behind)
"""
_RESULT: Final = (
    '[{"scores": {"perplexity": %s}, "num_samples": %s, "duration_seconds": %s,'
    ' "error_message": %s}]'
)

#: Models that leave results behind which broke the answers about their evaluations.
RESULTS: Final = MappingProxyType(
    {
        name: _MODEL.replace("{text}", text)
        for name, text in {
            "nested 100,000 deep": '"[" * 100000 + "]" * 100000',
            "a score of 400 digits": repr(_RESULT % ("9" * 400, "1", "1", '""')),
            "a score of 5,000 digits": repr(_RESULT % ("9" * 5000, "1", "1", '""')),
            "a number of samples over int64": repr(_RESULT % ("1", 2**63, "1", '""')),
            "an error that is no UTF-8": repr(_RESULT % ("1", "1", "1", r'"\udcff"')),
            "a duration that is not a number": repr(_RESULT % ("1", "1", '"long"', '""')),
        }.items()
    }
)
