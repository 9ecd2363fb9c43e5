"""The records of a job as two data sets: what is trained on and what is held back."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import TrainingRefused, did_you_mean, is_out_of_memory, listed, shown
from ..job import Data, Source
from .files import SourceFiles, csv_columns, null_record, source_files
from .filters import read_filter
from .forms import BadRecord, Form, check_record, recognise

if TYPE_CHECKING:
    from datasets import Dataset

#: Characters of a library's message that are repeated.
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Records:
    """Checked records of one form; columns beyond the form's are kept where all sources have
    them."""

    form: Form
    training: "Dataset"
    #: None where nothing is held back.
    validation: "Dataset | None"
    #: For the log: each source and how many of its records are used.
    summary: tuple[str, ...]


def read_records(data: Data, forms: tuple[Form, ...], *, wanted: str, cache: Path) -> Records:
    """Read, choose and check the records of all sources. `wanted` names the training type.

    The same job reads the same records in the same order: sampling and splitting follow
    `data.seed`. `cache` is a directory that all ranks of the machine share. Raises
    TrainingRefused, which names the source and the first bad record.
    """
    read: list[tuple[Form, Dataset, bool]] = []
    summary = []
    seen: set[str] = set()
    for number, source in enumerate(data.sources):
        files = source_files(source)
        dataset = _load(source, files, cache)
        found = len(dataset)
        seen.update(dataset.column_names)
        dataset = _chosen(source, dataset, data, number)
        form = recognise(
            dataset.column_names, forms, where=f"data source {shown(source.path)}", wanted=wanted
        )
        _check(source, dataset, form)
        use = "validation" if files.held_back else "training"
        summary.append(f"{source.path}: {len(dataset)} of {found} records for {use}")
        read.append((form, dataset, files.held_back))
    _check_mapping(data, seen)
    kinds = {form for form, _, _ in read}
    if len(kinds) > 1:
        raise TrainingRefused(
            f"the data sources have several forms ({', '.join(form.shown for form in kinds)});"
            " bring them into one by preprocess.field_mapping, or train one after the other"
        )
    training = _joined([dataset for _, dataset, held_back in read if not held_back])
    validation = _joined([dataset for _, dataset, held_back in read if held_back])
    if training is None:
        raise TrainingRefused(
            "all data sources are held back for validation by their splits; name one to train on"
        )
    if data.validation_split:
        training, held = _split(training, data)
        validation = held if validation is None else _joined([validation, held])
    return Records(kinds.pop(), training, validation, tuple(summary))


def _load(source: Source, files: SourceFiles, cache: Path) -> "Dataset":
    import datasets

    datasets.disable_progress_bars()
    # What is wrong is said below.
    datasets.logging.set_verbosity(logging.CRITICAL)
    options: dict[str, Any] = {}
    try:
        if files.format == "csv":
            # All values as they are written: `NA` and `007` are texts.
            texts = dict.fromkeys(csv_columns(files.paths[0]), datasets.Value("string"))
            options = {
                "features": datasets.Features(texts),
                "keep_default_na": False,
                # Else a line with too many values would lend the others another column's.
                "index_col": False,
            }
        elif files.format in ("json", "jsonl"):
            _refuse_null(source, files)
        return datasets.load_dataset(
            {"jsonl": "json"}.get(files.format, files.format),
            data_files={"train": [str(path) for path in files.paths]},
            split=f"train{files.part}",
            cache_dir=str(cache),
            **options,
        )
    except TrainingRefused:
        raise
    except Exception as error:  # of many readers, each with exceptions of its own
        if is_out_of_memory(error):
            raise
        raise TrainingRefused(
            f"data source {shown(source.path)}: it cannot be read as {files.format}"
            f" ({_cause(error)})"
        ) from None


def _refuse_null(source: Source, files: SourceFiles) -> None:
    for path in files.paths:
        if line := null_record(path):
            raise TrainingRefused(
                f"data source {shown(source.path)}: line {line} of {shown(path.name)} is null, and"
                " no record"
            )


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__


def _check_mapping(data: Data, seen: set[str]) -> None:
    """Raise TrainingRefused for a mapping of a column that no source has."""
    for column in data.preprocess.field_mapping:
        if column not in seen:
            raise TrainingRefused(
                f"data_config.preprocess.field_mapping: no data source has the column"
                f" {shown(column)}{did_you_mean(column, seen)}; they have {listed(sorted(seen))}"
            )


def _chosen(source: Source, dataset: "Dataset", data: Data, number: int) -> "Dataset":
    """Return what filters, columns and sampling leave, with the columns renamed."""
    there = dataset.column_names
    for column in (*source.filters, *source.columns):
        if column not in there:
            raise TrainingRefused(
                f"data source {shown(source.path)}: it has no column {shown(column)}"
                f"{did_you_mean(column, there)}; it has {listed(there)}"
            )
    for column, condition in source.filters.items():
        test = read_filter(column, condition)
        dataset = dataset.select([at for at, value in enumerate(dataset[column]) if test(value)])
    if not len(dataset):
        raise TrainingRefused(
            f"data source {shown(source.path)}: "
            + ("no record passes its filters" if source.filters else "it has no records")
        )
    if source.columns:
        dataset = dataset.select_columns([*dict.fromkeys(source.columns)])
    dataset = _renamed(dataset, data.preprocess.field_mapping, source)
    if source.sampling < 1:
        count = max(round(len(dataset) * source.sampling), 1)
        # Each source draws its own numbers, whatever stands before it.
        drawn = random.Random(f"{data.seed}:{number}").sample(range(len(dataset)), count)
        dataset = dataset.select(sorted(drawn))
    return dataset


def _renamed(dataset: "Dataset", mapping: Mapping[str, str], source: Source) -> "Dataset":
    renamed = {old: new for old, new in mapping.items() if old in dataset.column_names}
    for old, new in renamed.items():
        if old == new:
            continue
        if new in dataset.column_names:
            if new in renamed:
                continue
            # What the mapping names takes the place of what has the name by chance.
            dataset = dataset.remove_columns(new)
    if "" in renamed.values():
        raise TrainingRefused("data_config.preprocess.field_mapping: a column needs a name")
    if len(set(renamed.values())) < len(renamed):
        raise TrainingRefused(
            f"data source {shown(source.path)}: preprocess.field_mapping gives two columns one name"
        )
    return dataset.rename_columns({old: new for old, new in renamed.items() if old != new})


def _check(source: Source, dataset: "Dataset", form: Form) -> None:
    first = None
    for number, record in enumerate(dataset.select_columns([*form.columns]), 1):
        try:
            kind = check_record(record, form)
            if (first := first or kind) != kind:
                raise BadRecord(f"it has {kind}, and the first record has {first}")
        except BadRecord as bad:
            raise TrainingRefused(
                f"data source {shown(source.path)}: record {number} of those chosen: {bad}"
            ) from None


def _joined(parts: "Sequence[Dataset]") -> "Dataset | None":
    import datasets

    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    shared = [
        column
        for column in parts[0].column_names
        if all(column in part.column_names for part in parts)
    ]
    parts = [part.select_columns(shared) for part in parts]
    features = parts[0].features
    try:
        return datasets.concatenate_datasets([part.cast(features) for part in parts])
    except (ValueError, TypeError) as error:
        raise TrainingRefused(
            f"the data sources cannot be joined: their columns have several types"
            f" ({_cause(error)}); choose columns that all have alike"
        ) from None


def _split(dataset: "Dataset", data: Data) -> "tuple[Dataset, Dataset]":
    count = round(len(dataset) * data.validation_split)
    if not 0 < count < len(dataset):
        raise TrainingRefused(
            f"data_config.validation_split: {data.validation_split:g} of {len(dataset)} records"
            f" leaves {'none to hold back' if not count else 'none to train on'}"
        )
    order = [*range(len(dataset))]
    random.Random(f"{data.seed}:validation").shuffle(order)
    held = sorted(order[:count])
    kept = sorted(order[count:])
    return dataset.select(kept), dataset.select(held)
