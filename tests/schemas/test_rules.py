"""The rules that the contract's types do not tell: what is required, defaults, fields together."""

from datetime import UTC, datetime
from typing import Any

import pytest
from marshmallow import Schema
from multidict import MultiDict

from app.errors import VALIDATION_ERROR, ApiError, FieldProblem
from app.schemas.cluster import DRAIN_NODE_BODY
from app.schemas.data import VALIDATE_DATA_BODY
from app.schemas.evaluations import SUBMIT_EVALUATION_BODY
from app.schemas.jobs import (
    CANCEL_JOB_BODY,
    PAGE_QUERY,
    PAUSE_JOB_BODY,
    RESUME_JOB_BODY,
    RETRY_JOB_BODY,
    SUBMIT_JOB_BODY,
)
from app.schemas.loading import NO_BODY, load_body, load_query
from tests.schemas.bodies import BY_NAME, RESOURCES

CUSTOM = {"type": "CUSTOM", "custom_script_path": "scaidrive://acme/train.py"}


def least() -> dict[str, Any]:
    """The shortest submission that is valid."""
    return {
        "name": "n",
        "training_config": {
            "training_type": "SFT",
            "base_model": {"model_id": "m"},
            "framework": {"type": "FSDP"},
        },
        "data_config": {"sources": [{"path": "p"}]},
        "resource_config": {},
    }


def problems(schema: Schema, body: object) -> dict[str, str]:
    with pytest.raises(ApiError) as refused:
        load_body(schema, body)
    assert refused.value.kind is VALIDATION_ERROR
    return {problem.field: problem.message for problem in refused.value.details}


class TestDefaults:
    def test_of_a_submission(self) -> None:
        body = least()
        body["training_config"]["framework"]["distributed"] = {}
        expected = least()
        expected["training_config"]["priority"] = 5
        expected["training_config"]["framework"]["distributed"] = {"backend": "nccl"}
        expected["data_config"]["gradient_accumulation_steps"] = 1
        expected["resource_config"] = {"gpu_count": 0, "node_count": 1}

        assert load_body(SUBMIT_JOB_BODY, body) == expected

    @pytest.mark.parametrize(
        ("schema", "loaded"),
        [
            (CANCEL_JOB_BODY, {"reason": ""}),
            (PAUSE_JOB_BODY, {"save_checkpoint": True}),
            (RESUME_JOB_BODY, {"checkpoint_id": ""}),
            (
                RETRY_JOB_BODY,
                {"checkpoint_id": "", "modify_resources": False, "new_resource_config": None},
            ),
            (DRAIN_NODE_BODY, {"force": False, "reason": ""}),
            (NO_BODY, {}),
        ],
    )
    def test_of_bodies_that_may_be_left_out(self, schema: Schema, loaded: dict[str, Any]) -> None:
        assert load_body(schema, {}) == loaded

    def test_a_time_is_aware(self) -> None:
        body = {**least(), "scheduling_config": {"not_before": "2031-01-31t18:00:00.5z"}}

        moment = load_body(SUBMIT_JOB_BODY, body)["scheduling_config"]["not_before"]

        assert moment == datetime(2031, 1, 31, 18, 0, 0, 500_000, tzinfo=UTC)
        assert moment.tzinfo is not None


class TestRequired:
    @pytest.mark.parametrize(
        ("case", "path"),
        [
            ("submit_job", "name"),
            ("submit_job", "training_config"),
            ("submit_job", "training_config.training_type"),
            ("submit_job", "training_config.base_model"),
            ("submit_job", "training_config.base_model.model_id"),
            ("submit_job", "training_config.framework"),
            ("submit_job", "training_config.framework.type"),
            ("submit_job", "data_config"),
            ("submit_job", "data_config.sources"),
            ("submit_job", "data_config.sources.1.path"),
            ("submit_job", "resource_config"),
            ("submit_evaluation", "benchmarks"),
            ("submit_evaluation", "benchmarks.0.name"),
            ("validate_data", "data_sources"),
            ("validate_data", "data_sources.0.path"),
        ],
    )
    def test_it_is_named(self, case: str, path: str) -> None:
        body = BY_NAME[case].body()
        *parents, name = path.split(".")
        node: Any = body
        for step in parents:
            node = node[int(step)] if step.isdigit() else node[step]
        if path == "data_config.sources.1.path":
            node = body["data_config"]["sources"][1] = dict(node)
        del node[name]

        assert list(problems(BY_NAME[case].schema, body)) == [path]

    @pytest.mark.parametrize("body", [None, [], "x", 3, True])
    def test_a_body_is_an_object(self, body: object) -> None:
        assert list(problems(CANCEL_JOB_BODY, body)) == ["body"]

    def test_where_nothing_is_taken_nothing_is(self) -> None:
        assert list(problems(NO_BODY, {"a": 1})) == ["a"]


class TestTogether:
    @pytest.mark.parametrize("script", [None, "", "  "])
    def test_custom_needs_its_script(self, script: str | None) -> None:
        body = least()
        body["training_config"]["framework"] = {"type": "CUSTOM"}
        if script is not None:
            body["training_config"]["framework"]["custom_script_path"] = script

        assert list(problems(SUBMIT_JOB_BODY, body)) == [
            "training_config.framework.custom_script_path"
        ]

    def test_others_do_not(self) -> None:
        load_body(SUBMIT_JOB_BODY, least())

    def test_a_quote_of_its_arguments_that_is_not_closed_has_its_place(self) -> None:
        body = least()
        body["training_config"]["framework"] = {**CUSTOM, "config": {"arguments": "--name 'x"}}

        assert problems(SUBMIT_JOB_BODY, body) == {
            "training_config.framework.config.arguments": (
                "The quote ' at character 8 is never closed; a JSON list of strings needs no"
                " quoting."
            )
        }

    def test_arguments_are_a_list_and_a_flag_is_a_boolean_if_one_likes(self) -> None:
        body = least()
        config = {"arguments": ["--name", "two words"], "allow_source_builds": True, "a": "b"}
        body["training_config"]["framework"] = {**CUSTOM, "config": config}

        loaded = load_body(SUBMIT_JOB_BODY, body)

        assert loaded["training_config"]["framework"]["config"] == {
            "arguments": '["--name","two words"]',
            "allow_source_builds": "true",
            "a": "b",
        }
        config["arguments"] = ["--n", 3]
        assert problems(SUBMIT_JOB_BODY, body) == {
            "training_config.framework.config.arguments": (
                "Argument 2 of the JSON list must be a string, in quotes."
            )
        }
        config["arguments"] = ["x" * 9000]
        assert list(problems(SUBMIT_JOB_BODY, body)) == [
            "training_config.framework.config.arguments"
        ]

    def test_arguments_of_another_framework_are_its_own(self) -> None:
        body = least()
        body["training_config"]["framework"]["config"] = {"arguments": "'"}
        load_body(SUBMIT_JOB_BODY, body)

    def test_only_a_custom_script_may_do_without_data(self) -> None:
        body = least()
        body["data_config"]["sources"] = []
        assert list(problems(SUBMIT_JOB_BODY, body)) == ["data_config.sources"]

        body["training_config"]["framework"] = CUSTOM
        load_body(SUBMIT_JOB_BODY, body)

    @pytest.mark.parametrize("name", [None, "", " "])
    def test_a_registration_needs_a_name(self, name: str | None) -> None:
        body = {**least(), "output_config": {"register_model": True}}
        if name is not None:
            body["output_config"]["model_name"] = name

        assert list(problems(SUBMIT_JOB_BODY, body)) == ["output_config.model_name"]

    @pytest.mark.parametrize("resources", [{}, {"new_resource_config": None}])
    def test_other_resources_must_be_given(self, resources: dict[str, Any]) -> None:
        found = problems(RETRY_JOB_BODY, {"modify_resources": True, **resources})

        assert list(found) == ["new_resource_config"]

    @pytest.mark.parametrize("modify", [{}, {"modify_resources": False}])
    def test_and_not_for_nothing(self, modify: dict[str, Any]) -> None:
        found = problems(RETRY_JOB_BODY, {"new_resource_config": RESOURCES, **modify})

        assert list(found) == ["new_resource_config"]

    def test_the_new_resources_are_a_resource_config(self) -> None:
        found = problems(
            RETRY_JOB_BODY, {"modify_resources": True, "new_resource_config": {"gpu_count": -1}}
        )

        assert list(found) == ["new_resource_config.gpu_count"]

    BENCHMARKS = ({"name": "b"},)

    @pytest.mark.parametrize("model", [{"job_id": "j"}, {"model_uri": "m"}])
    def test_an_evaluation_of_a_job_or_a_model(self, model: dict[str, Any]) -> None:
        load_body(SUBMIT_EVALUATION_BODY, {**model, "benchmarks": list(self.BENCHMARKS)})

    @pytest.mark.parametrize(
        "model",
        [{}, {"job_id": "", "model_uri": ""}, {"model_uri": "m", "checkpoint_id": "c"}],
    )
    def test_an_evaluation_of_nothing(self, model: dict[str, Any]) -> None:
        body = {**model, "benchmarks": list(self.BENCHMARKS)}

        assert list(problems(SUBMIT_EVALUATION_BODY, body)) == ["job_id"]

    def test_lists_that_must_have_an_entry(self) -> None:
        assert list(problems(SUBMIT_EVALUATION_BODY, {"job_id": "j", "benchmarks": []})) == [
            "benchmarks"
        ]
        assert list(problems(VALIDATE_DATA_BODY, {"data_sources": []})) == ["data_sources"]

    def test_a_variable_has_the_name_of_one(self) -> None:
        for name in ("1A", "A-B", "A B", "A=B", "Ä", "A\n"):
            body = least()
            body["training_config"]["environment"] = {name: "v"}
            assert list(problems(SUBMIT_JOB_BODY, body)) == [f"training_config.environment.{name}"]

    def test_what_only_stands_for_a_credential_is_told_by_its_name(self) -> None:
        body = least()
        body["training_config"]["environment"] = {"HF_TOKEN": "***", "EPOCHS": "3"}
        assert list(problems(SUBMIT_JOB_BODY, body)) == ["training_config.environment.HF_TOKEN"]


class TestSize:
    @pytest.mark.parametrize(
        ("path", "most"),
        [("labels", 64), ("training_config.hyperparameters", 256)],
    )
    def test_maps_are_bounded(self, path: str, most: int) -> None:
        for size, refused in ((most, False), (most + 1, True)):
            body = BY_NAME["submit_job"].body()
            node: Any = body
            *parents, name = path.split(".")
            for step in parents:
                node = node[step]
            node[name] = {f"k{n}": "v" for n in range(size)}
            if refused:
                assert list(problems(SUBMIT_JOB_BODY, body)) == [path]
            else:
                load_body(SUBMIT_JOB_BODY, body)

    def test_lists_are_bounded(self) -> None:
        assert list(problems(VALIDATE_DATA_BODY, {"data_sources": [{"path": "p"}] * 101})) == [
            "data_sources"
        ]

    def test_so_is_the_number_of_problems_that_are_told(self) -> None:
        body = {**least(), "data_config": {"sources": [{"path": ""}] * 1000}}

        with pytest.raises(ApiError) as refused:
            load_body(SUBMIT_JOB_BODY, body)

        assert len(refused.value.details) == 100
        assert refused.value.details[-1] == FieldProblem("body", "… and more problems.")


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = problems(
        SUBMIT_JOB_BODY,
        {
            "name": "",
            "extra": 1,
            "training_config": {
                "training_type": "sft",
                "framework": {"type": "CUSTOM", "distributed": {"world_size": "8"}},
                "hyperparameters": {"lr": 0.1},
                "priority": 11,
            },
            "data_config": {
                "sources": [{"path": "p"}, {"path": "", "sampling": 2, "x": 1}, 7],
                "validation_split": "0.1",
            },
            "resource_config": {"gpu_count": True, "node_count": 0, "cpu_count": 1.5},
            "output_config": {"register_model": True},
            "scheduling_config": {"not_before": "tomorrow", "node_ids": [1]},
            "labels": {"a": "\0"},
        },
    )

    assert set(found) == {
        "name",
        "extra",
        "training_config.training_type",
        "training_config.base_model",
        "training_config.framework.custom_script_path",
        "training_config.framework.distributed.world_size",
        "training_config.hyperparameters.lr",
        "training_config.priority",
        "data_config.sources.1.path",
        "data_config.sources.1.sampling",
        "data_config.sources.1.x",
        "data_config.sources.2",
        "data_config.validation_split",
        "resource_config.gpu_count",
        "resource_config.node_count",
        "resource_config.cpu_count",
        "output_config.model_name",
        "scheduling_config.not_before",
        "scheduling_config.node_ids.0",
        "labels.a",
    }


def test_messages_say_what_to_do() -> None:
    with pytest.raises(ApiError) as refused:
        load_body(RETRY_JOB_BODY, {"modify_resources": "yes", "checkpoint": ""})

    assert refused.value.details == (
        FieldProblem("modify_resources", "Must be true or false, without quotes."),
        FieldProblem("checkpoint", "Unknown field. Did you mean 'checkpoint_id'?"),
    )


def test_a_name_that_does_not_exist_may_have_been_meant_as_another() -> None:
    body = least()
    body["resource_config"] = {"gpu_cnt": 1, "quite_another": 1}
    body["data_config"] = {"sources": [{"path": "a", "pth": "a"}]}
    with pytest.raises(ApiError) as refused:
        load_body(SUBMIT_JOB_BODY, {**body, "lables": {}})
    with pytest.raises(ApiError) as asked:
        load_query(PAGE_QUERY, MultiDict({"page": "1", "pagesize": "1"}))

    assert {each.field: each.message for each in refused.value.details} == {
        "data_config.sources.0.pth": "Unknown field. Did you mean 'path'?",
        "resource_config.gpu_cnt": "Unknown field. Did you mean 'gpu_count'?",
        "resource_config.quite_another": "Unknown field.",
        "lables": "Unknown field. Did you mean 'labels'?",
    }
    assert {each.field: each.message for each in asked.value.details}["pagesize"] == (
        "Unknown query argument. Did you mean 'page_size'?"
    )
