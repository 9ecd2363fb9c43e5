"""Which checkpoints a job has in an object store: those whose marks are there."""

from collections.abc import Callable, Sequence

from app.coordinator.execution.checkpoints import is_unfinished, step_of
from app.coordinator.jobs.model import MAX_COUNT, Checkpoint
from app.objects.published import Published, PublishedTrees


def look(
    trees: PublishedTrees,
    known: Sequence[Checkpoint],
    *,
    keep: int,
    remove: Callable[[str], None] | None = None,
) -> tuple[Checkpoint, ...]:
    """Return the job's checkpoints, the oldest first; those over the newest `keep` are removed,
    none if it is 0. `remove` does that in another way than `trees`.

    `known` is what the last look returned. A checkpoint that is new, or was
    written anew, is newer than all that were known. Raises as every call of
    the store.
    """
    there = {each.name: each for each in trees.names() if _is_tellable(each.name)}
    found = [
        each
        for each in known
        if each.checkpoint_id in there and there[each.checkpoint_id].version == each.identity
    ]
    unchanged = {each.checkpoint_id for each in found}
    fresh = sorted((each for name, each in there.items() if name not in unchanged), key=_age)
    last = max((each.sequence for each in known), default=0)
    for sequence, each in enumerate(fresh, last + 1):
        found.append(
            Checkpoint(
                checkpoint_id=each.name,
                step=step_of(each.name),
                size_bytes=_size(trees, each.name),
                created_at=each.published_at,
                sequence=sequence,
                identity=each.version,
            )
        )
    found.sort(key=lambda each: each.sequence)
    if not keep:
        return tuple(found)
    for surplus in found[:-keep]:
        (remove or trees.remove)(surplus.checkpoint_id)
    return tuple(found[-keep:])


def _size(trees: PublishedTrees, name: str) -> int:
    try:
        return min(trees.size(name), MAX_COUNT)
    except (FileNotFoundError, ValueError):
        return 0


def _age(each: Published) -> tuple[int, int, str]:
    return each.published_at, step_of(each.name), each.name


def _is_tellable(name: str) -> bool:
    return name.isprintable() and not is_unfinished(name)
