"""The samples: texts of real products that a caller may read, and that it may not.

In `samples/`, one JSON object a line. `{{name}}` stands for a credential that
does not exist, put together here, so that no file has anything in it that
looks like one.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from grpc import StatusCode

_FOLDER = Path(__file__).with_name("samples")

_FAKES = {
    "word": "hunter2-Zebra",
    "aws_secret": "Zq3/uV7xK9pL2mN4bC6dF8gH1" + "jR5tY0wQ3eU7iO9",
    "aws_id": "AK" + "IA" + "FAKE" * 4,
    "base64": "b3Vy" * 20 + "AA9x==",
    "hf": "hf" + "_" + "FakeFake" * 4,
    "jwt": "ey" + "JhbGciOiJub25l.ey" + "JmYWtlIjoxfQ.c2lnbmF0dXJl",
    "basic": "bWluZDpodW50ZXIy",
    "github": "gh" + "p_" + "Fake0" * 7,
    "gitlab": "gl" + "pat-" + "Fake0" * 4,
    "slack": "xo" + "xb-" + "0000-fake-0000",
    "openai": "s" + "k-" + "Fake0" * 8,
    "google": "AI" + "za" + "Fake0" * 7,
    "sgk": "sg" + "k_" + "Fake-0" * 4,
    "sgt": "sg" + "t_" + "Fake-0" * 4,
    "pem": "FAKEfakeFAKEfake0123",
    "hex": "0fa4e5" * 6 + "0fa4",
    "nvidia": "nv" + "api-" + "Fake0" * 8,
    "vault": "hv" + "s." + "Fake0" * 5,
}


@dataclass(frozen=True, slots=True)
class Leak:
    """A text with something in it that the caller must not read."""

    status: StatusCode
    detail: str
    hidden: str
    #: A credential is in no log line either.
    is_credential: bool


@dataclass(frozen=True, slots=True)
class Honest:
    """A text that the caller reads as it is; `sent` is what it sent."""

    status: StatusCode
    detail: str
    sent: str


def leaks(name: str) -> list[Leak]:
    """The leaks of a set."""
    return [
        Leak(
            StatusCode[row["status"]],
            _filled(row["detail"]),
            _filled(row["hidden"]),
            row["kind"] == "credential",
        )
        for row in _rows(f"leaks_{name}")
    ]


def honest(name: str) -> list[Honest]:
    """The honest texts of a set."""
    return [
        Honest(StatusCode[row["status"]], row["detail"], row.get("sent", ""))
        for row in _rows(f"honest_{name}")
    ]


def _rows(name: str) -> list[dict[str, str]]:
    lines = (_FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _filled(text: str) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: _FAKES[match[1]], text)
