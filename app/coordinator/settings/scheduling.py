"""Settings of the scheduler: queues, tenants, and which nodes are close to each other."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

from app.configuration.section import Section, parsed
from app.coordinator.identity.tenant_ids import TENANT
from app.coordinator.jobs.queue_rules import (
    ANY,
    LONGEST_RUN,
    QUEUE_NAME,
    Limits,
    QueueOrder,
    QueueRules,
    TenantRules,
)

_MOST_RULES: Final = 1000
_MOST: Final = 1_000_000
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_NO_QUEUES: tuple[tuple[str, QueueRules], ...] = ()
_NO_TENANTS: tuple[tuple[str, TenantRules], ...] = ()

_R = TypeVar("_R")


def parse_queues(text: str) -> tuple[tuple[str, QueueRules], ...]:
    """Read the rules of queues, such as `night:order=fair:gpus=16,*:tenant_jobs=4`.

    Raises ValueError.
    """
    return _rules(text, QUEUE_NAME, "a queue", _queue)


def parse_tenants(text: str) -> tuple[tuple[str, TenantRules], ...]:
    """Read the rules of tenants, such as `acme:gpus=8:shares=2,*:jobs=4`. Raises ValueError."""
    return _rules(text, TENANT, "a tenant", _tenant)


def parse_label(text: str) -> str:
    """Read the name of a label. Raises ValueError."""
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of letters, digits, '.', '_', '/' and '-'")
    return text


def _rules(
    text: str, name: re.Pattern[str], what: str, rules_of: Callable[[dict[str, str]], _R]
) -> tuple[tuple[str, _R], ...]:
    found: dict[str, _R] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        named, *settings = entry.split(":")
        if named != ANY and not name.fullmatch(named):
            raise ValueError(f"{named!r} is neither the name of {what} nor {ANY}")
        if named in found:
            raise ValueError(f"{named!r} has rules twice")
        if len(found) == _MOST_RULES:
            raise ValueError(f"there are more than {_MOST_RULES} rules")
        values: dict[str, str] = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals or key in values:
                raise ValueError(f"{entry!r}: {setting!r} is not of the form <key>=<value>, once")
            values[key] = value
        try:
            found[named] = rules_of(values)
        except ValueError as error:
            raise ValueError(f"{entry!r}: {error}") from None
        if values:
            raise ValueError(f"{entry!r}: {next(iter(values))!r} is not a key")
    return tuple(found.items())


def _queue(values: dict[str, str]) -> QueueRules:
    order = values.pop("order", QueueOrder.PRIORITY)
    if order not in tuple(QueueOrder):
        raise ValueError(f"order {order!r} is not one of {', '.join(QueueOrder)}")
    return QueueRules(
        QueueOrder(order),
        Limits(_number(values, "gpus"), _number(values, "jobs")),
        Limits(_number(values, "tenant_gpus"), _number(values, "tenant_jobs")),
        _number(values, "max_runtime", most=LONGEST_RUN) or 0,
    )


def _tenant(values: dict[str, str]) -> TenantRules:
    shares = _number(values, "shares")
    if shares == 0:
        raise ValueError("shares must be at least 1")
    return TenantRules(Limits(_number(values, "gpus"), _number(values, "jobs")), shares or 1)


def _number(values: dict[str, str], key: str, *, most: int = _MOST) -> int | None:
    text = values.pop(key, None)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) > most:
        raise ValueError(f"{key} must be a number from 0 to {most}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class SchedulingSettings(Section):
    """Scheduling."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    queues: tuple[tuple[str, QueueRules], ...] = parsed(
        _NO_QUEUES,
        "Rules of queues: `<name>`, or `*` for each that is not named, then any of `:order=` "
        "(`priority`: by priority, then age; `age`; `fair`: by priority, then by what each tenant "
        "holds for each of its shares, then age), `:gpus=` and `:jobs=` (the most that its jobs "
        "may hold, and that may run, at once), `:tenant_gpus=` and `:tenant_jobs=` (the same of "
        "each tenant), `:max_runtime=` (seconds; the `max_runtime_seconds` of jobs that set none, "
        "so that others can be planned around them; no limit unless set). Queues without rules are "
        "in one order by priority, then age.",
        parse_queues,
        example="night:order=fair:gpus=16:tenant_gpus=8",
        separator=",",
    )
    tenants: tuple[tuple[str, TenantRules], ...] = parsed(
        _NO_TENANTS,
        "Rules of tenants: `<tenant>`, or `*` for each that is not named, then any of `:gpus=` and "
        "`:jobs=` (the most that its jobs may hold, and that may run, at once, in all queues "
        "together) and `:shares=` (its weight in queues of the order `fair`, 1 unless set).",
        parse_tenants,
        example="acme:gpus=8:shares=2",
        separator=",",
    )
    topology_label: str = parsed(
        "",
        "Label of nodes that are close to each other if they have the same value of it: a job on "
        "several nodes is put onto such nodes where it fits.",
        parse_label,
        example="rack",
    )
