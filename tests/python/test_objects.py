"""What web frameworks make of Ardiq's named tuples: objects with fields, as FastAPI makes them by Pydantic."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

import ardiq
from ardiq import DeadLetter, DeadRecord, TaskResult

RESULT = {"success": True, "value": {"euros": 7}, "tries": 1, "enqueue_time": 2, "start": 3, "finish": 4}


@dataclass
class Price:
    euros: int


class Answer(BaseModel):
    result: TaskResult[Price] | None
    letters: list[DeadLetter] = []


def test_a_result_is_an_object_and_comes_back() -> None:
    result = TaskResult(True, Price(7), 1, 2, 3, 4)
    for kind in (TaskResult[Price], TaskResult, TaskResult[Any]):
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        assert json.loads(adapter.dump_json(result)) == RESULT
        assert adapter.dump_python(result, mode="json") == RESULT
        assert adapter.validate_python(result) == result
    typed = TypeAdapter(TaskResult[Price])
    assert typed.validate_json(typed.dump_json(result)) == result
    assert typed.validate_python((True, {"euros": 7}, 1, 2, 3, 4)) == result  # as it was before


def test_a_failure_is_told_by_its_text() -> None:
    failed = TaskResult(False, "ValueError('no')", 1)
    adapter: TypeAdapter[Any] = TypeAdapter(TaskResult[Price])
    assert json.loads(adapter.dump_json(failed))["value"] == "ValueError('no')"
    assert adapter.validate_python(failed) == failed


def test_in_a_model_and_in_its_schema() -> None:
    letter = DeadLetter("id", "send", (1,), {"b": 2}, "default", "ValueError()", 3, 4, 5)
    answer = Answer(result=TaskResult(True, Price(7), 1), letters=[letter])
    told = json.loads(answer.model_dump_json())
    assert told["result"]["value"] == {"euros": 7}
    assert (told["letters"][0]["task_id"], told["letters"][0]["args"]) == ("id", [1])
    assert Answer.model_validate_json(answer.model_dump_json()) == answer
    assert json.loads(Answer(result=None).model_dump_json())["result"] is None
    schema = TypeAdapter(TaskResult[Price]).json_schema(mode="serialization")
    assert (schema["type"], schema["title"]) == ("object", "TaskResult")
    assert set(schema["properties"]) == set(TaskResult._fields)


@pytest.mark.parametrize(
    "name",
    [
        *("Attempt", "DeadLetter", "Pause", "Progress", "Schedule", "ScheduleOutcome", "TaskInfo", "TaskUpdate"),
        *("QueueCounts", "LaneInfo", "WorkerInfo", "RunningTask", "UnknownTask", "MinuteCounts", "TaskTotals"),
        "TaskPosition",
    ],
)
def test_all_that_views_hand_out_are_objects(name: str) -> None:
    kind = getattr(ardiq, name)
    assert TypeAdapter(kind).json_schema()["type"] == "object"
    assert TypeAdapter(list[kind]).json_schema()["items"]["type"] == "object"
    assert TypeAdapter(DeadRecord).json_schema()["properties"]["letter"]["type"] == "object"


def test_it_is_the_tuple_that_it_was() -> None:
    result = TaskResult[int](True, 7, 1)
    assert type(result) is TaskResult
    assert tuple(result) == (True, 7, 1, 0, 0, 0)
    assert result == TaskResult(True, 7, 1)
