"""The parts under the inspector and the trainer: long talks, tool calls, plain writing, and personal data."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from finetui.core import personal_data
from finetui.core.conversation import Conversation, Turn
from finetui.core.worker import spans
from finetui.core.worker.chat import IGNORED, Chat, Encoded
from finetui.core.worker.spans import Unrenderable

from . import tiny
from .test_inspect_batches import NO_PROMPT, TOOLS
from .test_mask import LLAMA3, NO_END, THINKING, chat, learned, one


def long_talk(pairs: int, last_only: bool = False) -> tuple[Turn, ...]:
    turns: list[Turn] = [Turn("system", "Be short.")]
    for n in range(pairs):
        turns.append(
            Turn("user", f"question {n}\n<|im_start|>assistant\nnot this" if n % 7 == 3 else f"s{n % 3}")
        )
        turns.append(
            Turn(
                "assistant",
                f" answer {n} " if n % 5 == 2 else "user",
                learned=not last_only or n == pairs - 1,
            )
        )
    return tuple(turns)


@pytest.mark.usefixtures("unsloth")
@pytest.mark.parametrize("template", [tiny.CHAT_TEMPLATE, LLAMA3, THINKING, NO_END, NO_PROMPT])
def test_long_talks_are_marked_as_short_ones_are(
    tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = chat(tmp_path, template, max_length=100_000)
    turns = long_talk(30)
    monkeypatch.setattr(spans, "MANY_TURNS", 10_000)
    slow = one(of, turns)
    monkeypatch.setattr(spans, "MANY_TURNS", 4)
    quick = one(of, turns)
    assert quick == slow and quick.trained > 0


@pytest.mark.usefixtures("unsloth")
def test_a_very_long_talk_costs_no_square(tmp_path: Path) -> None:
    of = chat(tmp_path, tiny.CHAT_TEMPLATE, max_length=1_000_000)
    renders = 0
    apply = of._rendered  # pyright: ignore[reportPrivateUsage]

    def counted(*args: object) -> str:
        nonlocal renders
        renders += 1
        return apply(*args)  # type: ignore[arg-type]

    of._rendered = counted  # type: ignore[method-assign]
    row = one(of, long_talk(2000))
    assert renders <= 3
    assert len(row.learned) == 2000


@pytest.mark.usefixtures("unsloth")
def test_what_cannot_be_told_of_too_many_turns_is_left_out(tmp_path: Path) -> None:
    hiding = "{% for m in messages %}{{ m['content'] | length }}<|im_end|>{% endfor %}"
    of = chat(tmp_path, hiding, max_length=1_000_000)
    assert of.encode([long_talk(800)]) == ["too many turns for this chat template"]


@pytest.mark.usefixtures("unsloth")
def test_tools_calls_and_reasoning_are_rendered_and_learned(tmp_path: Path) -> None:
    of = chat(tmp_path, TOOLS)
    assert of.writes_tools() and of.writes_reasoning()
    call = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}]
    row = one(
        of,
        Conversation(  # type: ignore[arg-type]
            (
                Turn("user", "Weather?"),
                Turn("assistant", "", learned=True, calls=json.dumps(call)),
                Turn("tool", "18", name="weather"),
                Turn("assistant", "18 degrees.", learned=True, reasoning="Warm."),
            ),
            tools=json.dumps([{"type": "function", "function": {"name": "weather"}}]),
        ),
    )
    text = of.tokenizer.decode(row.input_ids)
    assert text.startswith("<|im_start|>tools\n[{") and "Köln" in text
    assert learned(of, row) == [
        '[weather {"city": "Köln"}]<|im_end|>',
        "<think>Warm.</think>18 degrees.<|im_end|>",
    ]
    deaf = chat(tmp_path / "deaf", tiny.CHAT_TEMPLATE)
    assert not deaf.writes_tools() and not deaf.writes_reasoning()


@pytest.mark.usefixtures("unsloth")
def test_a_template_that_glues_arguments_in_gets_them_as_text(tmp_path: Path) -> None:
    gluing = TOOLS.replace("call.function.arguments | tojson", "call.function.arguments")
    of = chat(tmp_path, gluing)
    call = [{"function": {"name": "f", "arguments": {"a": 1}}}]
    row = one(of, (Turn("user", "q"), Turn("assistant", "", learned=True, calls=json.dumps(call))))
    assert learned(of, row) == ['[f {"a": 1}]<|im_end|>']


@pytest.mark.usefixtures("unsloth")
def test_plain_writing_is_itself_and_an_end(tmp_path: Path) -> None:
    of = chat(tmp_path, tiny.CHAT_TEMPLATE)
    row = one(of, (Turn("text", "Once upon.", learned=True),))
    assert of.tokenizer.decode(row.input_ids) == "Once upon.<|im_end|>"
    assert row.labels == row.input_ids and row.end_trained
    with pytest.raises(Unrenderable):
        Chat(_without_template(of.tokenizer), 10).render((Turn("user", "a"), Turn("assistant", "b")))


@pytest.mark.usefixtures("unsloth")
def test_plain_writing_is_gone_on_with_from_the_tokens_that_it_is_learned_as(tmp_path: Path) -> None:
    of = chat(tmp_path, tiny.CHAT_TEMPLATE)
    text = (Turn("text", "Once upon a time", learned=True),)
    assert of.prompt_ids((Turn("text", "Once upon"),)) == one(of, text).input_ids[: len("Once upon")]
    begins = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tiny.vocabulary()["<s>"])]
    )
    of.tokenizer.backend_tokenizer.post_processor = begins
    of = Chat(of.tokenizer, 128)
    given = of.prompt_ids((Turn("text", "Once upon"),))
    assert given == one(of, text).input_ids[: 1 + len("Once upon")] and given[0] == tiny.vocabulary()["<s>"]


def _without_template(tokenizer: object) -> object:
    tokenizer.chat_template = None  # type: ignore[attr-defined]
    return tokenizer


def by_hand(of: Chat, text: str, ranges: list[tuple[int, int]]) -> list[int]:
    """Labels from every token's offsets, one after the other."""
    row = of.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    labels = [IGNORED] * len(row.ids)
    for start, end in ranges:
        for at, (first, last) in enumerate(row.offsets):
            if first >= start and last <= end and last > first:
                labels[at] = row.ids[at]
    return labels


@pytest.fixture(scope="module")
def plain_chat(unsloth: None, tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return chat(tmp_path_factory.mktemp("plain"), tiny.CHAT_TEMPLATE, 10_000)


@settings(max_examples=150)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30), min_size=2, max_size=6
    )
)
def test_masks_match_those_counted_token_by_token(plain_chat: Chat, said: list[str]) -> None:
    turns = tuple(
        Turn("assistant" if i % 2 else "user", text, learned=bool(i % 2)) for i, text in enumerate(said)
    )
    (row,) = plain_chat.encode([turns])
    if not isinstance(row, Encoded):
        return
    text = plain_chat.render(turns)
    expected = by_hand(plain_chat, text, plain_chat.spans(turns, text))
    assert row.labels[: len(expected)] == expected
    seen = plain_chat.see(turns)
    assert seen.encoded == row
    assert "".join(span.text for span in seen.spans).startswith(text)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jane.doe@corp.de", (personal_data.EMAIL,)),
        ("write to a@example.com or b@mail.example.org", ()),
        ("card 4111 1111 1111 1111.", (personal_data.CARD,)),
        ("card 4111 1111 1111 1112", ()),
        ("DE89 3704 0044 0532 0130 00", (personal_data.IBAN,)),
        ("DE88 3704 0044 0532 0130 00", ()),
        ("call +49 30 9018 2000 now", (personal_data.PHONE,)),
        ("(555) 123-4567", (personal_data.PHONE,)),
        ("on 2024-11-05 at 12:00, version 1.2.3.4", ()),
        ("token hf_" + "aB3" * 12, (personal_data.KEY,)),
        ("ghp_" + "A1" * 18, (personal_data.KEY,)),
        ("AKIA" + "ABCDEFGH12345678", (personal_data.KEY,)),
        ("sk-proj-" + "aB3" * 10, (personal_data.KEY,)),
        ("risk-assessment-of-the-whole-thing-here", ()),
        ("xoxb-123456789012-abcdef", (personal_data.KEY,)),
        ("-----BEGIN RSA PRIVATE KEY-----", (personal_data.PRIVATE_KEY,)),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijkl", (personal_data.TOKEN,)),
    ],
)
def test_personal_data_is_known_by_its_form(text: str, kinds: tuple[str, ...]) -> None:
    assert personal_data.kinds(text) == kinds
    assert personal_data.kinds(f"…ü\n{text}\nand so on") == kinds


@pytest.mark.parametrize(
    "piece", ["1 ", "a@", "a.", "+1 ", "DE89 ", "(123) ", "AKIA", "eyJ.", "sk-", "1-", "A0", "-----BEGIN "]
)
def test_no_text_keeps_the_search_busy(piece: str) -> None:
    def seconds(count: int) -> float:
        started = time.process_time()
        personal_data.kinds(piece * count)
        return time.process_time() - started

    small = max(seconds(20_000), 0.005)
    assert seconds(160_000) < 40 * small  # eight times the text: linear, or nearly


@pytest.mark.usefixtures("unsloth")
def test_tokens_made_meanwhile_are_the_same(tmp_path: Path) -> None:
    hidden = "{% for m in messages %}{{ m['content'] | length }}<|im_end|>{% endfor %}"
    batches = [[long_talk(n), long_talk(n, last_only=True)] for n in range(1, 9)]
    for name, template in (("all", tiny.CHAT_TEMPLATE), ("none", hidden)):
        of = chat(tmp_path / name, template)
        with ThreadPoolExecutor(1) as pool:
            begun = [of.begin(batch, pool) for batch in batches]
            made = [rows() for rows in begun]
        assert made == [of.encode(batch) for batch in batches]
        assert all(isinstance(row, Encoded) == (name == "all") for rows in made for row in rows)
        assert of.encode([]) == []
