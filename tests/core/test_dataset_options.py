"""Every option of the dataset step, tested to its effect on what is trained and what is held out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetui.core import dataset
from finetui.core.conversation import Conversation
from finetui.core.dataset import DroppedRow, LoadedDataset, Walk
from finetui.core.dataset_split import held_out_keys, held_out_rows, question_key
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection

PAIR = {"prompt": "Hi", "completion": "Hello"}
SYSTEM = {"role": "system", "content": "Mine"}


def pair(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"q{number}", "completion": f"a{number}", **more}


def talk(*texts: str, system: str = "") -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": [{"role": "system", "content": system}, *messages] if system else messages}


def source(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def loaded(rows: list[Any], seed: int = 1, **section: Any) -> LoadedDataset:
    return dataset.from_rows(rows, DatasetSection(**{"evaluation_share": 0.0, **section}), seed)


def texts(conversations: tuple[Conversation, ...]) -> list[list[str]]:
    return [[turn.text for turn in talk] for talk in conversations]


def asked(conversations: tuple[Conversation, ...]) -> list[str]:
    return [next(turn.text for turn in c if turn.role == "user") for c in conversations]


@pytest.mark.parametrize(
    ("mode", "prompt", "with_own", "without"),
    [
        ("keep", "Ours", ["Mine"], ["Ours"]),
        ("keep", None, ["Mine"], []),
        ("add", "Ours", ["Ours\n\nMine"], ["Ours"]),
        ("add", None, ["Mine"], []),
        ("replace", "Ours", ["Ours"], ["Ours"]),
        ("replace", None, [], []),
        ("none", "Ours", [], []),
    ],
)
def test_system_mode(mode: Any, prompt: str | None, with_own: list[str], without: list[str]) -> None:
    rows = [talk("a", "b", system="Mine"), talk("c", "d"), {"system": "Mine", **PAIR}]
    result = loaded(rows[:2], system_mode=mode, system_prompt=prompt).train
    assert texts(result) == [[*with_own, "a", "b"], [*without, "c", "d"]]
    assert texts(loaded(rows[2:], system_mode=mode, system_prompt=prompt).train) == [
        [*with_own, "Hi", "Hello"]
    ]


@pytest.mark.parametrize(
    ("train_on", "marks"),
    [
        ("answers", [False, False, True, False, True]),
        ("last_answer", [False, False, False, False, True]),
        ("everything", [True] * 5),
    ],
)
def test_train_on(train_on: Any, marks: list[bool]) -> None:
    (result,) = loaded([talk("a", "b", "c", "d", system="S")], train_on=train_on).train
    assert [turn.learned for turn in result] == marks


def test_last_answer_with_a_question_after_it() -> None:
    (result,) = loaded([talk("a", "b", "c", "d", "e")], train_on="last_answer").train
    assert [turn.text for turn in result if turn.learned] == ["d"]


def test_long_talks_are_split_into_one_row_an_answer() -> None:
    result = loaded([talk("a", "b", "c", "d", system="S"), talk("e", "f")], multi_turn="split").train
    assert texts(result) == [["S", "a", "b"], ["S", "a", "b", "c", "d"], ["e", "f"]]
    assert [[t.text for t in c if t.learned] for c in result] == [["b"], ["d"], ["f"]]
    assert [c.number for c in result] == [1, 1, 2]


def test_rows_are_joined_within_their_side() -> None:
    rows = [pair(i) for i in range(100)]
    result = loaded(rows, join_rows=3, evaluation_share=0.1)
    assert [len(c) for c in result.train] == [6] * 30 and [len(c) for c in result.evaluation] == [6, 6, 6, 2]
    said = [turn.text for c in (*result.train, *result.evaluation) for turn in c if turn.role == "user"]
    assert sorted(said) == sorted(f"q{i}" for i in range(100))
    assert [t.learned for t in result.train[0]] == [False, True] * 3
    train = {t.text for c in result.train for t in c}
    assert not train & {t.text for c in result.evaluation for t in c}
    last = loaded(rows, join_rows=3, train_on="last_answer").train[0]
    assert [t.learned for t in last] == [False] * 5 + [True]


def test_only_single_questions_of_one_system_prompt_are_joined() -> None:
    rows = [talk("a", "b", system="S"), talk("c", "d", "e", "f"), talk("g", "h", system="S"), talk("i", "j")]
    result = loaded(rows, join_rows=2).train
    assert texts(result) == [["c", "d", "e", "f"], ["S", "a", "b", "g", "h"], ["i", "j"]]


def test_joined_rows_show_all_their_raw_rows(tmp_path: Path) -> None:
    path = source(tmp_path, [pair(i) for i in range(4)])
    walk = Walk(DatasetSection(source=path, join_rows=2, evaluation_share=0.0), 1)
    raws = [walk.raw for item in walk if not isinstance(item, DroppedRow)]
    assert raws == [{"joined rows": [pair(0), pair(1)]}, {"joined rows": [pair(2), pair(3)]}]


def test_a_row_limit_takes_the_first_rows_or_a_fair_sample() -> None:
    rows = [pair(i) for i in range(1000)]
    first = loaded(rows, row_limit=50, shuffle=False)
    assert asked(first.train) == [f"q{i}" for i in range(50)] and first.rows_read == 50
    counts: Counter[str] = Counter()
    for seed in range(40):
        sample = loaded(rows, seed, row_limit=100)
        assert len(sample.train) == 100 and sample.left_out[0].count == 900 and not sample.dropped
        assert [int(q[1:]) for q in asked(sample.train)] == sorted(int(q[1:]) for q in asked(sample.train))
        counts.update(asked(sample.train))
    tenths = Counter(int(question[1:]) // 100 for question in counts.elements())
    assert all(300 < count < 500 for count in tenths.values()), tenths  # 400 each, 5 standard deviations
    assert len(loaded(rows, row_limit=5000).train) == 1000


def test_a_row_limit_counts_usable_rows() -> None:
    rows = [pair(i) if i % 3 else {"prompt": "q", "completion": ""} for i in range(90)]
    for shuffle in (True, False):
        result = loaded(rows, row_limit=40, shuffle=shuffle)
        assert len(result.train) == 40
        assert result.dropped[0].reason == "empty answer"


def test_copies_are_dropped_and_counted() -> None:
    rows = [pair(1), pair(2), pair(1), {"question": "q1", "answer": "a1"}, {**pair(1), "completion": "other"}]
    result = loaded(rows[:3] + rows[4:], deduplicate=True)
    assert asked(result.train) == ["q1", "q2", "q1"]
    assert [(d.reason, d.count, d.first) for d in result.dropped] == [("a copy of an earlier row", 1, (3,))]
    assert len(loaded(rows[:3], deduplicate=False).train) == 3
    sampled = loaded(rows[:3] * 50, deduplicate=True, row_limit=2)
    assert asked(sampled.train) == ["q1", "q2"] and sampled.dropped[0].count == 148


def test_mixes_weigh_their_sources(tmp_path: Path) -> None:
    own = source(tmp_path, [pair(i) for i in range(1000)])
    half = source(tmp_path, [{"question": f"h{i}", "answer": "a"} for i in range(1000)], "half.jsonl")
    twice = source(tmp_path, [talk(f"t{i}", "a") for i in range(10)], "twice.jsonl")
    section = DatasetSection(source=own, mix={half: 0.5, twice: 2.0}, evaluation_share=0.0)
    result = dataset.load(section, 1)
    kinds = Counter(
        (c.source, question[0]) for c, question in zip(result.train, asked(result.train), strict=True)
    )
    assert kinds[0, "q"] == 1000 and kinds[2, "t"] == 20 and 400 < kinds[1, "h"] < 600
    assert result.left_out[0].count == 1000 - kinds[1, "h"] and not result.dropped
    assert asked(dataset.load(section, 1).train) == asked(result.train)
    assert asked(dataset.load(section, 2).train) != asked(result.train)
    held = dataset.load(section.model_copy(update={"evaluation_share": 0.2}), 1)
    assert not set(asked(held.train)) & set(asked(held.evaluation)), "both times of a row stand on one side"
    limited = dataset.load(section.model_copy(update={"row_limit": 100}), 1)
    assert len(limited.train) == 100 and {c.source for c in limited.train} >= {0, 1}
    with pytest.raises(FinetuiError) as caught:
        dataset.load(section.model_copy(update={"mix": {str(tmp_path / "no.csv"): 1.0}}), 1)
    assert caught.value.code == "dataset-missing" and caught.value.what.startswith("Mixed with")


def test_rows_that_ask_the_same_stay_on_one_side() -> None:
    rows = [{"prompt": f"Question {i % 40}" + " " * (i % 3), "completion": str(i)} for i in range(400)]
    rows = [{**row, "prompt": str(row["prompt"]).upper()} if i % 2 else row for i, row in enumerate(rows)]
    result = loaded(rows, evaluation_share=0.1)
    assert len(result.evaluation) == 40 and len(result.train) == 360
    keys = {question_key(c) for c in result.train}
    assert not keys & {question_key(c) for c in result.evaluation}


@given(
    keys=st.lists(st.integers(0, 30), max_size=300),
    share=st.floats(0, 0.5, allow_nan=False),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_sides_never_split_a_group_and_something_is_left_to_train_on(
    keys: list[int], share: float, seed: int
) -> None:
    section = DatasetSection(evaluation_share=share)
    held = held_out_keys(keys, section, seed)
    assert held == held_out_keys(keys, section, seed)
    assert held <= set(keys)
    count = sum(key in held for key in keys)
    if keys:
        assert count < len(keys)
    if len(set(keys)) > 1 and share > 0:
        assert count, "a share that is asked for is held out"
    sizes = Counter(keys)
    if len(keys) == len(sizes):
        assert count == held_out_rows(len(keys), section)
    elif held:
        assert count <= max(held_out_rows(len(keys), section), min(sizes.values()))


def test_a_held_out_split_takes_nothing_from_the_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"train": [pair(i) for i in range(20)], "test": [pair(100), pair(101)]}))
    section = DatasetSection(source=str(file), evaluation_split="test")
    result = dataset.load(section, 1)
    assert (len(result.train), asked(result.evaluation)) == (20, ["q100", "q101"])
    facts = dataset.inspect(section)
    assert (facts.train_rows, facts.evaluation_rows) == (20, 2)
    for wrong, word in (("train", "trained on"), ("nope", "no split named nope")):
        with pytest.raises(FinetuiError) as caught:
            dataset.load(DatasetSection(source=str(file), evaluation_split=wrong), 1)
        assert caught.value.code == "dataset-split" and word in str(caught.value)
    plain = source(tmp_path, [PAIR])
    with pytest.raises(FinetuiError) as caught:
        dataset.load(DatasetSection(source=plain, evaluation_split="test"), 1)
    assert caught.value.code == "dataset-split"
    with pytest.raises(FinetuiError) as caught:
        dataset.load(DatasetSection(source=str(file), evaluation_split="test", evaluation_source=plain), 1)
    assert "Both" in caught.value.what


def test_the_same_rows_and_sides_in_every_process(tmp_path: Path) -> None:
    """Hashes of texts differ from process to process; what is trained on must not."""
    path = source(tmp_path, [pair(i % 150) for i in range(300)])
    options = {"row_limit": 100, "join_rows": 2, "deduplicate": True, "evaluation_share": 0.2}
    code = (
        "import json, sys; from finetui.core import dataset; from finetui.core.recipe import DatasetSection;"
        "d = dataset.load(DatasetSection(**json.loads(sys.argv[1])), 7);"
        "print(json.dumps([[t.text for c in side for t in c] for side in (d.train, d.evaluation)]))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps({"source": path, **options})],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    train, held = json.loads(answers.pop())
    assert len(train) == 160 and len(held) == 40


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_limit": 40},
        {"row_limit": 40, "shuffle": False},
        {"join_rows": 4},
        {"multi_turn": "split"},
        {"deduplicate": True},
        {"multi_turn": "split", "join_rows": 3, "deduplicate": True, "row_limit": 30},
        {"row_limit": 40, "mix_more": 0.5},
    ],
    ids=str,
)
def test_the_wizard_counts_what_the_worker_loads(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = [pair(i % 70) if i % 7 else {"prompt": "x", "completion": ""} for i in range(120)]
    rows += [talk("a", "b", "c", f"d{i}") for i in range(5)]
    options = dict(options)
    if (weight := options.pop("mix_more", None)) is not None:
        options["mix"] = {source(tmp_path, [pair(1000 + i) for i in range(50)], "more.jsonl"): weight}
    section = DatasetSection(source=source(tmp_path, rows), **options)
    facts = dataset.inspect(section)
    result = dataset.load(section, 0)
    assert (facts.train_rows, facts.evaluation_rows) == (len(result.train), len(result.evaluation))
    walk = Walk(section, 0)
    items = list(walk)
    assert walk.rows_read == walk.rows_kept + walk.rows_dropped
    assert walk.rows_dropped == sum(isinstance(item, DroppedRow) for item in items)
    assert len(walk.sides()) == len(walk.keys()) == len(items) - walk.rows_dropped


def test_a_walk_can_be_cancelled(tmp_path: Path) -> None:
    walk = Walk(DatasetSection(source=source(tmp_path, [PAIR] * 1000)), 1, cancelled=lambda: True)
    with pytest.raises(FinetuiError) as caught:
        list(walk)
    assert caught.value.code == "cancelled" and walk.rows_read < 300


def test_the_first_of_two_passes_can_be_ended() -> None:
    class Ended(Exception):
        pass

    def progress(rows: int) -> None:
        assert rows == 0
        raise Ended

    with pytest.raises(Ended):
        dataset.from_rows([pair(i) for i in range(600)], DatasetSection(row_limit=5), 1, progress=progress)


def test_progress_never_goes_back(tmp_path: Path) -> None:
    path = source(tmp_path, [pair(i) for i in range(5000)])
    held = source(tmp_path, [pair(i) for i in range(500)], "held.jsonl")
    section = DatasetSection(source=path, mix={held: 1.0}, evaluation_source=held, row_limit=4000)
    walk = Walk(section, 1)
    shares = [walk.share for _ in walk]
    assert shares == sorted(shares) and shares[0] >= 0.4 and walk.share == 1.0
