"""Records as the tensors of a step, divided among the replicas of the model.

What a step sees follows from its number alone, so that a run that goes on needs no more than
that: each epoch is a permutation of the records, drawn by the seed and the epoch's number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...data.tokenising import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one forward pass; all tensors are [records, tokens]."""

    tokens: torch.Tensor
    #: The token that comes next; IGNORED where it does not count for the loss.
    labels: torch.Tensor
    #: Whether a token sees another one, [records, 1, tokens, tokens]; None is causal.
    mask: torch.Tensor | None
    #: Tokens of the records, without what fills them up.
    count: int

    def on(self, device: torch.device) -> "Batch":
        """Return the same on a device."""
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        return Batch(self.tokens.to(device), self.labels.to(device), mask, self.count)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How records are divided."""

    #: Records of one forward pass.
    micro_batch: int
    #: Forward passes of a replica for one step.
    accumulated: int
    #: The replica of this rank, among `replicas`.
    replica: int
    replicas: int
    #: Tokens of a record are filled up to a multiple of it.
    multiple: int
    #: Token that fills records up.
    padding: int

    @property
    def step(self) -> int:
        """Records of a step, in all replicas."""
        return self.micro_batch * self.accumulated * self.replicas


class Steps:
    """The records to train on, by step."""

    def __init__(self, records: "Dataset", sizes: Sizes, *, seed: int) -> None:
        self._records = records
        self._sizes = sizes
        self._seed = seed
        #: The last step of an epoch begins with records of it again, as the Trainer has it.
        self.per_epoch = -(-len(records) // sizes.step)
        self._epoch: int | None = None
        self._order: list[int] = []

    def of(self, step: int) -> list[Batch]:
        """Return this replica's batches of a step, counted from 0. They have one length."""
        epoch, within = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            drawn = torch.Generator().manual_seed(self._seed + epoch)
            self._order = torch.randperm(len(self._records), generator=drawn).tolist()
            self._epoch = epoch
        sizes = self._sizes
        own = sizes.micro_batch * sizes.accumulated
        begin = within * sizes.step + sizes.replica * own
        order = self._order
        chosen = [self._records[order[at % len(order)]] for at in range(begin, begin + own)]
        length = _length(chosen, sizes.multiple)
        return [
            collated(chosen[at : at + sizes.micro_batch], length, sizes.padding)
            for at in range(0, own, sizes.micro_batch)
        ]


def held_back(records: "Dataset", sizes: Sizes) -> Iterator[Batch]:
    """Yield this replica's batches of the records to evaluate with, in their order.

    Every replica has as many; where the records do not suffice, some that count for nothing.
    """
    filler = {"input_ids": [sizes.padding] * 2, "labels": [IGNORED] * 2}
    each = sizes.micro_batch * sizes.replicas
    for begin in range(0, len(records), each):
        first = begin + sizes.replica * sizes.micro_batch
        chosen = [
            records[at] if at < len(records) else filler
            for at in range(first, first + sizes.micro_batch)
        ]
        yield collated(chosen, _length(chosen, sizes.multiple), sizes.padding)


def _length(records: Sequence[dict[str, Any]], multiple: int) -> int:
    longest = max(len(record["input_ids"]) for record in records)
    return -(-longest // multiple) * multiple


def collated(records: Sequence[dict[str, Any]], length: int, padding: int) -> Batch:
    """Return a batch of records, each filled up to a length at its end.

    A record with `seq_lengths` is several joined ones (packing): none sees another one, and
    none is learnt from another one.
    """
    tokens = torch.full((len(records), length), padding)
    labels = torch.full((len(records), length), IGNORED)
    parts = torch.zeros((len(records), length), dtype=torch.int32)
    joined = False
    count = 0
    for row, record in enumerate(records):
        size = len(record["input_ids"])
        count += size
        tokens[row, :size] = torch.tensor(record["input_ids"])
        labels[row, : size - 1] = torch.tensor(record["labels"][1:])
        begin = 0
        for number, length_of_part in enumerate(record.get("seq_lengths") or ()):
            joined = True
            parts[row, begin : begin + length_of_part] = number + 1
            if begin:
                labels[row, begin - 1] = IGNORED
            begin += length_of_part
    if not joined:
        return Batch(tokens, labels, None, count)
    same = parts[:, :, None] == parts[:, None, :]
    return Batch(tokens, labels, same.tril()[:, None], count)
