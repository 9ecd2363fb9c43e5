"""Tasks of lm-evaluation-harness: its own by their names, and those that come in a folder.

Stands alone beside `model_host`. What a task's file names by `!function` runs, as a model's own
code does.
"""

import contextlib
import difflib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Scores = dict[str, float]
#: How often the samples are drawn anew for a standard error.
_RESAMPLED = 100


def is_task_file(name: str) -> bool:
    """Whether a file of a task's folder is the task, and nothing that it includes."""
    return name.endswith((".yaml", ".yml")) and not name.startswith(("_", "."))


class HarnessTasks:
    """Evaluates a loaded model of transformers."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        #: Knows all tasks by name; looking them up takes half a minute, so it is kept.
        self._manager: Any = None

    def evaluate(self, task: str, limit: int, shots: int | None) -> tuple[Scores, int]:
        """Return the scores of a task, or of the tasks of a group, and how many samples it had.

        `task` is a name or the absolute path of a folder. `limit` 0 takes all samples; `shots`
        None has as many examples before each question as the task says. Raises ValueError for a
        name that is not known, and what the harness raises, also for data that it cannot fetch.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        # Pools of processes would have this one's memory; and it warns of what is meant here:
        # that a loaded model is handed to it.
        os.environ["DISABLE_MULTIPROC"] = "1"
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        if task.startswith("/"):
            folder = Path(task)
            manager, spec = TaskManager(include_defaults=False), str(_task_file(folder))
        else:
            self._manager = self._manager or TaskManager()
            folder, manager, spec = None, self._manager, task
            _check_name(task, manager.all_tasks)
        with _inside(folder):
            loaded = manager.load([spec])
        found = simple_evaluate(
            model=HFLM(pretrained=self._model, tokenizer=self._tokenizer, batch_size=1),
            tasks=[*(loaded.get("groups") or loaded["tasks"]).values()],
            task_manager=manager,
            num_fewshot=shots,
            limit=limit or None,
            # Standard errors: most follow from the samples, and some are found by resampling.
            bootstrap_iters=_RESAMPLED,
            log_samples=False,
        )
        return scores_of(found, task)


def scores_of(found: Mapping[str, Any], task: str) -> tuple[Scores, int]:
    """Return the finite numbers of a result, and the samples that they are of.

    Where the result has no numbers of the task itself, as of a tag's tasks, the numbers of each
    have its name before them: `arc_easy/acc`.
    """
    results = found["results"]
    own = numbers(results[task]) if task in results else {}
    if not own and len(results) == 1:
        own = numbers(next(iter(results.values())))
    scores = own or {
        f"{name}/{metric}": value
        for name, result in results.items()
        for metric, value in numbers(result).items()
    }
    samples = sum(int(each.get("effective", 0)) for each in found.get("n-samples", {}).values())
    return scores, samples


def numbers(result: Mapping[str, Any]) -> Scores:
    """Return a task's finite numbers; `acc,none` is the metric and the filter of the answers."""
    return {
        name.removesuffix(",none").replace(",", "_"): float(value)
        for name, value in result.items()
        if "," in name
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def _task_file(folder: Path) -> Path:
    found = sorted(each for each in folder.iterdir() if is_task_file(each.name))
    if len(found) != 1:
        raise ValueError(f"the task's folder has {len(found) or 'no'} files *.yaml; it needs one")
    return found[0]


def _check_name(task: str, known: list[str]) -> None:
    if task in known:
        return
    close = difflib.get_close_matches(task, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{task!r} is not a task of the installed lm-evaluation-harness{hint}")


@contextlib.contextmanager
def _inside(folder: Path | None) -> Iterator[None]:
    """Work in a folder, so that its files are found by their names, if there is one."""
    if folder is None:
        yield
        return
    with contextlib.chdir(folder):
        yield
