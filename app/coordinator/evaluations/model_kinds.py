"""What kind of model a folder holds, told before anything of it is loaded."""

from typing import Final

from app.coordinator.data.drive import Drive
from app.coordinator.evaluations.evaluator.model_host import is_transformers
from app.coordinator.identity.access import Access

#: Bytes of a model's configuration that are read.
_MAX_CONFIG: Final = 1024 * 1024


def needs_trainers(drive: Drive, access: Access, url: str) -> bool:
    """Whether a folder holds a model of transformers, or an adapter on one, and no code of its
    own to evaluate it with: such a model takes the trainers' environment.

    Raises BadUrl, OSError.
    """
    # Its form, also where nothing is read.
    drive.place(access, url)

    def content(name: str) -> bytes | None:
        return drive.content(access, url, name, limit=_MAX_CONFIG)

    return is_transformers(content)
