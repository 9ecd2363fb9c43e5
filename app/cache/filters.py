"""Which jobs a list of the cache has: the filters of `GET /jobs`, as the coordinator has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson

from app.cache.write_buffer import status_numbers

#: The kind of jobs that have the label `type=evaluation`.
_EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Conditions, all of which a job meets; what is empty sets none."""

    statuses: Sequence[str] = ()
    #: Labels that a job has, all of them.
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Text in its name, whatever its case.
    name: str = ""
    users: Sequence[str] = ()
    created_after: datetime | None = None
    #: `training` or `evaluation`.
    kind: str = ""
    #: The job whose retries they are.
    parent: str = ""

    @property
    def only_statuses(self) -> bool:
        """Whether the tallies by status know how many jobs there are."""
        others = (self.labels, self.name, self.users, self.created_after, self.kind, self.parent)
        return not any(others)

    def parameters(self) -> dict[str, Any]:
        """Return the conditions' parameters, as `statements.search_jobs` names them."""
        found: dict[str, Any] = {}
        if self.statuses:
            found["statuses"] = status_numbers(self.statuses)
        if self.labels:
            found["labels"] = orjson.dumps(dict(self.labels)).decode()
        if self.name:
            found["name"] = self.name.casefold()
        if self.users:
            found["users"] = list(self.users)
        if self.created_after is not None:
            found["created_after"] = self.created_after
        if self.kind:
            found["evaluations"] = self.kind == _EVALUATION
        if self.parent:
            found["parent"] = self.parent
        return found

    def asked(self) -> list[Any]:
        """Return what tells two lists apart, for orjson."""
        after = self.created_after
        return [
            sorted(status_numbers(self.statuses)),
            sorted(self.labels.items()),
            self.name.casefold(),
            sorted(self.users),
            None if after is None else after.astimezone(UTC),
            self.kind,
            # Tokens of lists without one are those of earlier versions.
            *([self.parent] if self.parent else []),
        ]
