"""Settings of training without a script."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.configuration.section import Section, parsed
from app.configuration.values import parse_path

_NO_PATH: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(Section):
    """Training of language models (every framework type but CUSTOM)."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    trainers_python: Path | None = parsed(
        _NO_PATH,
        "Python of the environment that language models are trained in, such as `bin/python` in "
        "what `scripts/venv train --path` prints. Every user must be able to read the "
        "environment. Without one, only framework type CUSTOM is accepted. `scripts/run` sets it "
        "where `scripts/venv train` has made one.",
        parse_path,
        example="/srv/trainers/bin/python",
    )
