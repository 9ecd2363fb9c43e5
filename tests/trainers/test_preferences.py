"""What preference data, reward models and groups of answers have to be."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from app.trainers.data.forms import recognise
from app.trainers.errors import TrainingRefused
from app.trainers.job import Job, read_job
from app.trainers.run import Run
from app.trainers.types import training_type
from app.trainers.types.adapters import adapter_asked, chosen_adapter
from app.trainers.types.preferences import check_preprocess
from app.trainers.types.reward import copy_reward_model, find_reward_model, is_reward_stage
from app.trainers.types.rlhf import check_groups
from tests.trainers.training import job_config


class RunOf:
    """As much of a run as finding a reward model needs."""

    def __init__(self, folder: Path, **training: Any) -> None:
        config = folder / "config.json"
        model = folder / "model"
        config.write_text(
            json.dumps(
                job_config("RLHF", model=model, data=folder / "a.jsonl", training_config=training)
            )
        )
        self.job = read_job(
            {
                "SCAIMIND_JOB_CONFIG": str(config),
                "SCAIMIND_OUTPUT_DIR": str(folder / "output"),
                "SCAIMIND_CHECKPOINT_DIR": str(folder / "checkpoints"),
                "SCAIMIND_RESUME_FROM": str(folder / "checkpoints" / "step-2"),
            }
        )


def find(folder: Path, named: str, **training: Any) -> str:
    return find_reward_model(cast(Run, RunOf(folder, **training)), named, None)


def model(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", ["DPO", "RLHF"])
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["messages"], "Records of the form messages are not for"),
        (["question", "good", "bad"], "needs prompt \\+ chosen \\+ rejected"),
        (["promt", "choosen", "rejeced"], "did you mean"),
    ],
)
def test_wrong_columns_are_refused(kind: str, columns: list[str], said: str) -> None:
    with pytest.raises(TrainingRefused, match=said):
        recognise(columns, training_type(kind).forms, where="data source 'a'", wanted=kind)


def test_a_reward_model_is_a_classifier_with_one_label(tmp_path: Path) -> None:
    language = model(tmp_path / "language", architectures=["LlamaForCausalLM"])
    with pytest.raises(TrainingRefused, match="is no classifier but LlamaForCausalLM"):
        find(tmp_path, str(language))
    architecture = ["LlamaForSequenceClassification"]
    three = model(tmp_path / "three", architectures=architecture, id2label=dict.fromkeys("012", ""))
    with pytest.raises(TrainingRefused, match="has 3 labels"):
        find(tmp_path, str(three))
    with pytest.raises(TrainingRefused, match="has 2 labels"):
        find(tmp_path, str(model(tmp_path / "two", architectures=architecture)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingRefused, match=r"has no config\.json"):
        find(tmp_path, str(tmp_path / "empty"))
    with pytest.raises(TrainingRefused, match="was not fetched"):
        find(tmp_path, "scaiatlas://t/reward")
    good = model(tmp_path / "good", architectures=architecture, id2label={"0": "reward"})
    assert find(tmp_path, str(good)) == str(good)
    fetched = find(
        tmp_path, "scaiatlas://t/reward", hyperparameter_local_paths={"reward_model": str(good)}
    )
    assert fetched == str(good)
    assert find(tmp_path, "someone/reward") == "someone/reward"


def test_a_run_goes_on_with_the_reward_model_of_its_checkpoint(tmp_path: Path) -> None:
    source = model(tmp_path / "trained", architectures=["LlamaForSequenceClassification"])
    step = tmp_path / "checkpoints" / "step-2"
    copy_reward_model(source, step / "reward_model")
    assert find(tmp_path, "") == str(step / "reward_model")
    assert not is_reward_stage(step)
    assert not is_reward_stage(None)


@pytest.mark.parametrize(
    ("values", "ranks", "said"),
    [
        ({"num_generations": 1}, 1, "must be 2 or more"),
        ({"num_generations": 3}, 2, "no whole groups of num_generations=3"),
        ({"num_generations": 8, "per_device_train_batch_size": 2}, 2, "choose numbers that divide"),
        (
            {"num_generations": 4, "per_device_eval_batch_size": 3},
            1,
            "per_device_eval_batch_size: 3 answers",
        ),
    ],
)
def test_answers_have_to_make_whole_groups(values: dict[str, int], ranks: int, said: str) -> None:
    with pytest.raises(TrainingRefused, match=said):
        check_groups(values, ranks)
    check_groups({"num_generations": 8, "per_device_train_batch_size": 4}, 2)


@pytest.mark.parametrize("kind", ["DPO", "RLHF"])
@pytest.mark.parametrize(
    ("preprocess", "said"),
    [
        ({"add_bos": True, "add_eos": True}, "preprocess: add_bos and add_eos cannot be set for"),
        ({"padding": "max_length"}, "preprocess: padding cannot be set for"),
        ({"padding": "none"}, "padded to the longest of a batch"),
    ],
)
def test_what_is_done_to_tokens_of_supervised_types_alone_is_refused(
    tmp_path: Path, kind: str, preprocess: dict[str, Any], said: str
) -> None:
    def job(preprocess: dict[str, Any]) -> Job:
        config = tmp_path / "config.json"
        asked = job_config(kind, model="m", data=tmp_path, data_config={"preprocess": preprocess})
        config.write_text(json.dumps(asked))
        return read_job(
            {
                "SCAIMIND_JOB_CONFIG": str(config),
                "SCAIMIND_OUTPUT_DIR": str(tmp_path),
                "SCAIMIND_CHECKPOINT_DIR": str(tmp_path),
            }
        )

    with pytest.raises(TrainingRefused, match=said):
        check_preprocess(job(preprocess))
    check_preprocess(job({"padding": "longest", "truncation": True, "chat_template": "chatml"}))


def test_an_adapter_is_trained_where_one_is_asked_for() -> None:
    assert not adapter_asked({"adapter": {}, "lora": {}})
    assert adapter_asked({"lora": {"r": 8}})
    assert adapter_asked({"adapter": {"use_peft": True}, "lora": {}})
    assert chosen_adapter({"adapter": {"use_peft": False}, "lora": {}}) is None
    with pytest.raises(TrainingRefused, match="use_peft is false, and r, lora_alpha"):
        chosen_adapter({"adapter": {"use_peft": False}, "lora": {"r": 8, "lora_alpha": 8}})
