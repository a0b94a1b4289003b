"""Formats by content: how sure, why, and what is kept of tools, reasoning and rejected answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetui.core import dataset
from finetui.core.conversation import Conversation, Turn
from finetui.core.dataset import Detection, UnknownFormat
from finetui.core.dataset_marks import marked
from finetui.core.dataset_rows import RowReader
from finetui.core.recipe import DatasetSection


def read(row: dict[str, Any], **section: Any) -> Conversation:
    options = DatasetSection(**section)
    return marked(RowReader(dataset.detect([row], options), options).read(row), options)


def found(*rows: dict[str, Any], **section: Any) -> Detection:
    return dataset.detect(rows, DatasetSection(**section))


def said(talk: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in talk]


HI = [("user", "Hi"), ("assistant", "Hello")]


@pytest.mark.parametrize(
    ("row", "format", "least", "most"),
    [
        ({"question": "Hi", "answer": "Hello"}, "prompt_completion", 1.0, 1.0),
        ({"Frage": "Hi", "Antwort": "Hello"}, "prompt_completion", 0.8, 0.8),
        ({"pregunta": "Hi", "respuesta": "Hello", "id": "7"}, "prompt_completion", 0.8, 0.8),
        ({"问题": "Hi", "回答": "Hello"}, "prompt_completion", 0.8, 0.8),
        ({"customer_question": "Hi", "agent_reply": "Hello"}, "prompt_completion", 0.6, 0.6),
        ({"userPrompt": "Hi", "botResponse": "Hello"}, "prompt_completion", 0.6, 0.6),
        (
            {
                "messages": json.dumps(
                    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
                )
            },
            "messages",
            1,
            1,
        ),
        ({"conversation": [{"human": "Hi", "assistant": "Hello"}]}, "messages", 0.9, 0.9),
        ({"dialog": ["Hi", "Hello"]}, "messages", 0.6, 0.6),
        (
            {
                "messages": [
                    {"role": "user", "parts": [{"text": "Hi"}]},
                    {"role": "model", "parts": [{"text": "Hello"}]},
                ]
            },
            "messages",
            1,
            1,
        ),
        ({"instruction": "Hi", "input": "", "output": "Hello", "history": []}, "alpaca", 1.0, 1.0),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}, "preference", 1.0, 1.0),
        (
            {
                "prompt": "Hi",
                "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
                "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go"}],
            },
            "preference",
            1.0,
            1.0,
        ),
        (
            {
                "prompt": [{"role": "user", "content": "Hi"}],
                "chosen": [{"role": "assistant", "content": "Hello"}],
                "rejected": [{"role": "assistant", "content": "Go"}],
            },
            "preference",
            1.0,
            1.0,
        ),
        (
            {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: Go"},
            "preference",
            1.0,
            1.0,
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Hello"},
                "rejected": {"from": "gpt", "value": "Go"},
            },
            "preference",
            1.0,
            1.0,
        ),
    ],
)
def test_names_and_layouts(row: dict[str, Any], format: str, least: float, most: float) -> None:
    detection = found(row)
    assert detection.format == format and least <= detection.confidence <= most, detection
    assert detection.reason and detection.mapping
    talk = read(row)
    assert said(talk) == HI and [turn.learned for turn in talk] == [False, True]
    if format == "preference":
        assert talk.rejected == (Turn("assistant", "Go"),)


def test_rows_in_disagreement_lower_the_confidence() -> None:
    detection = found(*[{"prompt": "a", "completion": "b"}] * 6, *[{"text": "plain"}] * 4)
    assert detection.format == "prompt_completion" and detection.confidence == 0.6
    assert "6 of the first 10" in detection.reason


def test_plain_writing() -> None:
    detection = found({"text": "Once upon a time", "id": 4})
    assert (detection.format, detection.mapping) == ("text", {"text": "text"})
    assert detection.confidence >= dataset.SURE
    assert read({"text": "Once\0"}).turns == (Turn("text", "Once", True),)
    assert found({"title": "A", "text": "Once"}).confidence < dataset.SURE


def test_an_unknown_format_brings_what_a_mapping_form_needs() -> None:
    rows = [{"when": None, "who\x1b[31m": "x"}, {"when": 5, "who\x1b[31m": "[@click=app.quit]"}]
    with pytest.raises(UnknownFormat) as caught:
        found(*rows)
    assert caught.value.columns == ("when", "who") and caught.value.examples == ("5", "x")


def test_columns_are_mapped() -> None:
    row = {"Ticket": "Hi", "Reply": "Hello", "Notes": "Be kind", "Extra": "more"}
    columns = {"user": "ticket", "assistant": "Reply", "system": "Notes", "context": "Extra"}
    assert said(read(row, columns=columns)) == [("system", "Be kind"), ("user", "Hi\n\nmore"), HI[1]]
    assert found(row, columns=columns).reason.startswith("as the recipe maps")
    assert read(row, columns={"text": "Notes"}).turns == (Turn("text", "Be kind", True),)
    nested = {"translation": {"de": "Hi", "en": "Hello"}}
    assert said(read(nested, columns={"user": "translation.de", "assistant": "translation.en"})) == HI
    pair = {"p": "Hi", "good": "Hello", "bad": "Go"}
    talk = read(pair, columns={"user": "p", "chosen": "good", "rejected": "bad"})
    assert said(talk) == HI and talk.rejected[0].text == "Go"
    listed = {"log": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    assert said(read(listed, columns={"messages": "log"})) == HI
    with pytest.raises(UnknownFormat) as caught:
        found(row, columns={"user": "ticket", "assistant": "answer"})
    assert "answer" in caught.value.what
    with pytest.raises(ValueError, match="no column answer"):
        RowReader(
            Detection("prompt_completion", ""),
            DatasetSection(columns={"user": "ticket", "assistant": "answer"}),
        ).read(row)


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


def test_tools_and_calls_are_kept() -> None:
    row = {
        "tools": [TOOL],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "blue"},
            {"role": "assistant", "content": "It is blue.", "reasoning_content": "The tool says blue."},
        ],
    }
    talk = read(row)
    assert "tools kept" in found(row).reason
    assert json.loads(talk.tools) == [TOOL]
    assert json.loads(talk[1].calls) == [
        {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}, "id": "c1"}
    ]
    assert (talk[1].text, talk[1].learned) == ("", True)
    assert (talk[2].role, talk[2].name, talk[2].call_id, talk[2].learned) == ("tool", "look", "c1", False)
    assert talk[3].reasoning == "The tool says blue."


def test_older_ways_to_call_tools() -> None:
    old = {
        "functions": json.dumps([{"name": "look", "parameters": {}}]),
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "", "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "blue"},
            {"role": "assistant", "content": "Blue."},
        ],
    }
    talk = read(old)
    assert json.loads(talk.tools) == [TOOL] and json.loads(talk[1].calls)[0]["function"]["name"] == "look"
    shared = {
        "conversations": [
            {"from": "human", "value": "Hi"},
            {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "sky"}}'},
            {"from": "observation", "value": "blue"},
            {"from": "gpt", "value": "Blue."},
        ]
    }
    talk = read(shared)
    assert json.loads(talk[1].calls)[0]["function"]["arguments"] == {"at": "sky"}
    assert [turn.role for turn in talk] == ["user", "assistant", "tool", "assistant"]


def test_reasoning_beside_the_answer() -> None:
    row = {"Question": "Hi", "Complex_CoT": "Think.", "Response": "Hello"}
    assert "reasoning kept" in found(row).reason
    assert read(row)[1] == Turn("assistant", "Hello", True, "Think.")
    parts = [{"type": "thinking", "thinking": "Think."}, {"type": "text", "text": "Hello"}]
    talk = read({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": parts}]})
    assert talk[1] == Turn("assistant", "Hello", True, "Think.")


def test_an_answer_of_weight_0_is_not_learned() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "weight": 1},
    ]
    assert [turn.learned for turn in read({"messages": messages})] == [False, False, False, True]
    with pytest.raises(ValueError, match="weight 0"):
        read({"messages": messages[:2]})
