"""Each field of the contract is honoured, or refused by its name, before the model is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.trainers import sums
from tests.trainers.many import Answer, run_many
from tests.trainers.training import Runner, job_config

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


TURN = [{"role": "user", "content": "a"}]


#: A model's own code, which says that it runs and what of this project it could import.
CODE = """\
from importlib.util import find_spec
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

print("own code sees", [name for name in ("app", "generated", "tests") if find_spec(name)])
"""


def make_models(folder: Path, model: Path) -> None:
    """A model with code of its own, and models with which something is wrong."""
    own = shutil.copytree(model, folder / "own_code")
    (own / "modeling_own.py").write_text(CODE)
    classes = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnForCausalLM"}
    named = {auto: f"modeling_own.{name}" for auto, name in classes.items()}
    described = json.loads((model / "config.json").read_text()) | {"model_type": "own"}
    (own / "config.json").write_text(json.dumps({**described, "auto_map": named}))
    other = shutil.copytree(model, folder / "other_config")
    config = json.loads((model / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    pickled = shutil.copytree(model, folder / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare = shutil.copytree(model, folder / "no_tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    cut = shutil.copytree(model, folder / "cut")
    (cut / "model.safetensors").write_bytes(b"")


def write_data(folder: Path) -> None:
    """100 sums in every form and format, and records that are wrong."""
    sums.write(folder / "messages.jsonl", sums.messages())
    sums.write(folder / "texts.jsonl", sums.texts())
    prompts = [
        {**record, "lang": "de" if at % 4 else "en", "score": at / 100, "n": at}
        for at, record in enumerate(sums.prompts())
    ]
    sums.write(folder / "prompts.jsonl", prompts)
    # With a list that has nothing in it, on a line of its own.
    (folder / "prompts.json").write_text(
        json.dumps([{**each, "notes": [None]} for each in prompts], indent=1)
    )
    parquet.write_table(pyarrow.Table.from_pylist(prompts), folder / "prompts.parquet")
    lines = ["question,answer", *(f'"{q}",{a}' for q, a in sums.pairs())]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    splits = folder / "splits"
    splits.mkdir()
    sums.write(splits / "train.jsonl", sums.messages()[:80])
    sums.write(splits / "test-00000.jsonl", sums.messages()[80:])
    (folder / "empty.jsonl").write_text("")
    sums.write(folder / "holes.jsonl", [*sums.texts()[:3], {"text": None}])
    sums.write(folder / "nobody.jsonl", [{"messages": [{"role": "user", "content": "Who?"}]}])
    sums.write(
        folder / "roles.jsonl",
        [*sums.messages()[:2], {"messages": [{"role": "robot", "content": "?"}]}],
    )
    sums.write(folder / "long.jsonl", [*sums.texts()[:2], {"text": "word " * 300}])
    (folder / "null.jsonl").write_text('{"text": "a"}\nnull\n')
    (folder / "shifted.csv").write_text("prompt,completion\nWhat?, It is.,more\n")
    sums.write(
        folder / "kinds.jsonl",
        [{"prompt": "a", "completion": "b"}, {"prompt": TURN, "completion": TURN}],
    )
    sums.write(folder / "one.jsonl", sums.texts()[:1])
    (folder / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')


def configs(data: Path, model: Path, runs: Path) -> dict[str, dict[str, Any]]:
    """By name, and in the order of the runs: each has a folder of its name in `runs`."""

    def one(
        *sources: dict[str, Any] | str,
        kind: str = "SFT",
        steps: int = 1,
        hyperparameters: dict[str, Any] | None = None,
        base: dict[str, Any] | None = None,
        framework: dict[str, Any] | None = None,
        output: dict[str, Any] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        named = [{"path": each} if isinstance(each, str) else each for each in sources]
        return job_config(
            kind,
            model=model,
            data=[{**each, "path": str(data / each["path"])} for each in named],
            hyperparameters={"max_steps": steps, **(hyperparameters or {})},
            data_config={"max_seq_length": 64, "batch_size": 4, "seed": 5, **fields},
            training_config={"base_model": base or {}, "framework": framework or {}},
            output_config=output or {},
        )

    mapping = {"field_mapping": {"question": "prompt", "answer": "completion"}}
    split = {"path": "splits", "split": "train"}
    # The tiny model says words by the weight that it reads them by.
    ends = {"target_modules": "embed_tokens,q_proj", "lr": "2e-2"}
    return {
        # What is honoured.
        "sampling": one({"path": "prompts.jsonl", "sampling": 0.25}),
        "filters": one({"path": "prompts.json", "filters": {"lang": "en", "score": ">=0.5"}}),
        "columns": one({"path": "prompts.parquet", "columns": ["prompt", "completion"]}),
        "csv": one("pairs.csv", preprocess=mapping),
        "shifted": one("shifted.csv"),
        "sources": one("messages.jsonl", split),
        "splits": one(split, {"path": "splits", "split": "test"}),
        "part": one({"path": "messages.jsonl", "split": "train[:30]"}),
        "validation_split": one("messages.jsonl", validation_split=0.2),
        "truncation": one("long.jsonl", preprocess={"truncation": True}),
        "padding_max_length": one("messages.jsonl", preprocess={"padding": "max_length"}),
        "padding_none": one("messages.jsonl", preprocess={"padding": "none"}, batch_size=1),
        "packing": one("messages.jsonl", hyperparameters={"packing": True}),
        "bos": one(
            "texts.jsonl",
            preprocess={"add_bos": True, "tokenizer_kwargs": {"bos_token": "<|im_start|>"}},
        ),
        "eos": one("messages.jsonl", preprocess={"add_eos": True}),
        "chat_template": one("messages.jsonl", preprocess={"chat_template": TEMPLATE}),
        "chatml": one("messages.jsonl", preprocess={"chat_template": "chatml"}),
        "whole": one("messages.jsonl", hyperparameters={"assistant_only_loss": False}),
        "accumulation": one("messages.jsonl", gradient_accumulation_steps=3),
        "workers": one("messages.jsonl", num_workers=1, pin_memory=True),
        "model": one(
            "messages.jsonl",
            base={"dtype": "bf16", "model_kwargs": {"attn_implementation": "eager"}},
        ),
        "trusted": one(
            "messages.jsonl",
            base={"local_path": str(data / "own_code"), "trust_remote_code": True},
        ),
        "checkpoints": one(
            "messages.jsonl",
            steps=5,
            output={"checkpoint_interval_steps": 1, "max_checkpoints": 2},
        ),
        "adapter": one("messages.jsonl", kind="LORA", output={"export_format": "adapter"}),
        "ends": one(
            "messages.jsonl", kind="LORA", steps=4, hyperparameters=ends, validation_split=0.2
        ),
        "ends_again": one(
            "messages.jsonl", base={"local_path": str(runs / "ends/output")}, validation_split=0.2
        ),
        "seed_again": one({"path": "prompts.jsonl", "sampling": 0.25}),
        # What is refused.
        "no_columns": one("pairs.csv"),
        "no_such_column": one({"path": "prompts.jsonl", "columns": ["promt"]}),
        "no_such_filter": one({"path": "prompts.jsonl", "filters": {"language": "en"}}),
        "nothing_passes": one({"path": "prompts.jsonl", "filters": {"lang": "fr"}}),
        "empty": one("empty.jsonl"),
        "hole": one("holes.jsonl"),
        "nobody": one("nobody.jsonl"),
        "role": one("roles.jsonl"),
        "broken": one("broken.jsonl"),
        "forms": one("messages.jsonl", "texts.jsonl"),
        "wrong_form": one("messages.jsonl", kind="CONTINUED_PRETRAIN"),
        "too_long": one("long.jsonl"),
        "too_long_packed": one("long.jsonl", hyperparameters={"packing": True}),
        "positions": one("messages.jsonl", max_seq_length=4096),
        "padding_batch": one("messages.jsonl", preprocess={"padding": "none"}),
        "no_split": one({"path": "splits", "split": "validation"}),
        "no_bos": one("texts.jsonl", preprocess={"add_bos": True}),
        "template_name": one("messages.jsonl", preprocess={"chat_template": "llama"}),
        "null": one("null.jsonl"),
        "kinds": one("kinds.jsonl"),
        "mapping_typo": one("messages.jsonl", preprocess={"field_mapping": {"mesages": "text"}}),
        "no_column_name": one("texts.jsonl", preprocess={"field_mapping": {"text": ""}}),
        "cutoff": one("messages.jsonl", max_seq_length=0, hyperparameters={"cutoff_len": 4096}),
        "other_config": one("messages.jsonl", base={"local_path": str(data / "other_config")}),
        "pickled": one("messages.jsonl", base={"local_path": str(data / "pickled")}),
        "own_code": one("messages.jsonl", base={"local_path": str(data / "own_code")}),
        "no_tokenizer": one("messages.jsonl", base={"local_path": str(data / "no_tokenizer")}),
        "cut": one("messages.jsonl", base={"local_path": str(data / "cut")}),
        "kernel": one("messages.jsonl", base={"model_kwargs": {"attn_implementation": "a/b"}}),
        "typo": one("messages.jsonl", hyperparameters={"learning_rat": 1}),
        "twice": one("messages.jsonl", hyperparameters={"batch_size": 8}),
        "no_validation": one("messages.jsonl", hyperparameters={"eval_strategy": "steps"}),
        "all_held_back": one({"path": "splits", "split": "test"}),
        "no_adapter": one("messages.jsonl", output={"export_format": "adapter"}),
        "model_kwargs": one("messages.jsonl", base={"model_kwargs": {"attn_implementatio": "x"}}),
        "tokenizer_kwargs": one(
            "messages.jsonl", preprocess={"tokenizer_kwargs": {"vocab_file": "/etc/passwd"}}
        ),
        "dtype": one("messages.jsonl", base={"dtype": "float7"}),
        "hub": one("messages.jsonl", base={"model_id": "nobody/nothing", "local_path": ""}),
        "backend": one("messages.jsonl", framework={"distributed": {"backend": "smoke"}}),
        "strategy": one("messages.jsonl", framework={"distributed": {"strategy": "zero3"}}),
        # What fails when it runs.
        "library": one("messages.jsonl", hyperparameters={"lr_scheduler_kwargs": '{"no_such": 1}'}),
        "no_step": one("one.jsonl", hyperparameters={"dataloader_drop_last": True}),
        "nan": one("messages.jsonl", steps=6, hyperparameters={"lr": "1e30"}),
        "memory": one(
            "texts.jsonl", preprocess={"padding": "max_length"}, max_seq_length=512, batch_size=100
        ),
    }


@pytest.fixture(scope="module")
def answers(
    run_trainer: Runner, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Answer]:
    data = tmp_path_factory.mktemp("data")
    write_data(data)
    make_models(data, tiny_model)
    folder = tmp_path_factory.mktemp("runs")
    asked = configs(data, tiny_model, folder)
    return run_many(run_trainer, folder, asked, memory={"memory": 100 * 1024**2})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sampling", "25 of 100 records for training"),
        ("filters", "12 of 100 records for training"),
        ("columns", "100 of 100 records"),
        ("csv", "What is zero plus zero?⟧It is zero.<|im_end|>"),
        ("shifted", "'⟦What?⟧ It is.<|im_end|>'"),
        ("sources", "Records: 180 to train on."),
        ("splits", "Records: 80 to train on, 20 held back."),
        ("part", "30 of 30 records"),
        ("validation_split", "Records: 80 to train on, 20 held back."),
        ("truncation", "Records: 3 to train on."),
        ("packing", "Records: "),
        ("bos", "'<|im_start|>What is"),
        ("eos", "⟦\\n⟧<|im_end|>'"),
        ("chat_template", "⟧ It is zero.\\n'"),
        ("chatml", "⟧It is zero.<|im_end|>⟦"),
        ("whole", "'<|im_start|>user\\nWhat is"),
        ("accumulation", "Effective batch: 12 records a step (4 a device, 3 accumulated"),
        ("workers", "Effective batch: 4"),
        ("padding_max_length", "at most 256 tokens a step (64 a record)"),
        ("padding_none", "Effective batch: 1"),
        ("adapter", "Trainable parameters: "),
        ("trusted", "own code sees []"),
    ],
)
def test_what_is_asked_for_is_done(answers: dict[str, Answer], name: str, said: str) -> None:
    answer = answers[name]
    assert answer.status == 0, answer.log
    assert said in answer.log


def test_the_checkpoints_that_are_kept_are_the_newest(answers: dict[str, Answer]) -> None:
    assert answers["checkpoints"].checkpoints == ["step-4", "step-5"]


def test_the_model_has_the_type_that_is_asked_for(answers: dict[str, Answer]) -> None:
    assert answers["model"].status == 0, answers["model"].log
    config = json.loads((answers["model"].output / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_an_adapter_names_its_base_as_the_job_does(
    answers: dict[str, Answer], tiny_model: Path
) -> None:
    output = answers["adapter"].output
    config = json.loads((output / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert (output / "adapter_model.safetensors").is_file()
    assert not (output / "model.safetensors").exists()


def test_what_is_exported_is_what_was_trained(answers: dict[str, Answer]) -> None:
    assert answers["ends"].status == answers["ends_again"].status == 0, answers["ends_again"].log
    trained, again = (
        [each["eval_loss"] for each in answers[name].metrics if "eval_loss" in each]
        for name in ("ends", "ends_again")
    )
    assert trained[0] - trained[-1] > 0.2
    assert again[0] == pytest.approx(trained[-1], rel=1e-3)


def test_a_seed_draws_the_same_records(answers: dict[str, Answer]) -> None:
    losses = [answers[name].metrics[0]["loss"] for name in ("sampling", "seed_again")]
    assert losses[0] == losses[1]


def test_a_batch_is_padded_as_asked(answers: dict[str, Answer]) -> None:
    """The trainer counts tokens without padding; packed rows have none."""
    packed = answers["packing"].metrics[0]["num_tokens"]
    assert packed > 4 * 50
    assert answers["padding_max_length"].status == answers["padding_none"].status == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_columns", 'Set preprocess.field_mapping to {"question": "prompt", "answer"'),
        ("no_such_column", "no column 'promt'; did you mean 'prompt'?"),
        ("no_such_filter", "no column 'language'; did you mean 'lang'?"),
        ("nothing_passes", "no record passes its filters"),
        ("empty", "empty.jsonl': "),
        ("hole", "record 4 of those chosen: text is missing"),
        ("nobody", "record 1: no message of it is the assistant's"),
        ("role", "record 3 of those chosen: messages[0].role is 'robot'"),
        ("broken", "cannot be read as jsonl"),
        ("forms", "several forms"),
        ("wrong_form", "Records of the form messages are not for CONTINUED_PRETRAIN"),
        ("too_long", "record 3 has 602 tokens; max_seq_length is 64"),
        ("too_long_packed", "record 3 has 602 tokens; max_seq_length is 64"),
        ("positions", "4096 is more than the model's 512 positions"),
        ("padding_batch", "none needs data_config.batch_size 1"),
        ("no_split", "no file belongs to the split 'validation'; its files name test, train"),
        ("no_bos", "set bos_token in preprocess.tokenizer_kwargs"),
        ("template_name", "'llama' is neither a Jinja template nor a name"),
        ("null", "line 2 of 'null.jsonl' is null"),
        ("kinds", "record 2 of those chosen: it has messages, and the first record has texts"),
        ("mapping_typo", "no data source has the column 'mesages'; did you mean 'messages'?"),
        ("no_column_name", "field_mapping: a column needs a name"),
        ("cutoff", "4096 is more than the model's 512 positions"),
        ("other_config", "the model's weights do not fit its config.json"),
        ("pickled", "pickled weights alone ('pytorch_model.bin')"),
        ("own_code", "has code of its own, without which it cannot be loaded; set training_config"),
        ("no_tokenizer", "has no tokenizer: none of tokenizer.json"),
        ("cut", "the model cannot be loaded (Error while deserializing header"),
        ("kernel", "attn_implementation: fetches code from a hub"),
        ("typo", "'learning_rat' is not known; did you mean 'learning_rate'?"),
        ("twice", "per_device_train_batch_size is 8, and the job's configuration says 4"),
        ("no_validation", "set data_config.validation_split"),
        ("all_held_back", "name one to train on"),
        ("no_adapter", "SFT trains no adapter"),
        ("model_kwargs", "did you mean 'attn_implementation'"),
        ("tokenizer_kwargs", "vocab_file cannot be set"),
        ("dtype", "'float7' is not known"),
        ("hub", "'nobody/nothing' cannot be loaded"),
        ("backend", "'smoke' is not known"),
        ("strategy", "use ddp, or the framework DEEPSPEED or FSDP"),
    ],
)
def test_what_is_wrong_is_refused_by_name(answers: dict[str, Answer], name: str, said: str) -> None:
    answer = answers[name]
    assert answer.status == 2, answer.log
    [error] = [line for line in answer.log.splitlines() if line.startswith("ERROR: ")]
    assert said in error
    # Nothing was trained, and nothing would be exported.
    assert not [*answer.output.iterdir()]
    assert not answer.checkpoints


def test_a_loss_that_is_no_number_ends_the_run(answers: dict[str, Answer]) -> None:
    answer = answers["nan"]
    assert answer.status == 1, answer.log
    assert "ERROR: the loss is nan at step " in answer.log
    assert "lower the learning_rate" in answer.log


def test_a_run_that_takes_no_step_has_not_trained(answers: dict[str, Answer]) -> None:
    answer = answers["no_step"]
    assert answer.status == 1, answer.log
    assert "ERROR: no step was taken: the records do not fill a batch of 4" in answer.log
    assert not [*answer.output.iterdir()]


def test_what_a_library_raises_is_said_in_one_line(answers: dict[str, Answer]) -> None:
    answer = answers["library"]
    assert answer.status == 1, answer.log
    assert "ERROR: the training failed with TypeError: " in answer.log


def test_a_lack_of_memory_says_what_to_lower(answers: dict[str, Answer]) -> None:
    answer = answers["memory"]
    assert answer.status == 1, answer.log
    assert "ERROR: out of memory at step 0 with 100 records a device" in answer.log
