"""The talk without a model: where it is loaded, what each side sees, how answers are marked and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetui.core import talk, talk_files, talk_score
from finetui.core.errors import FinetuiError
from finetui.core.system import Gpu, Machine
from finetui.core.talk import Exchange, Reply, Talk, Target


def test_a_gpu_that_trains_is_left_alone() -> None:
    target = Target("adapter", Path("x"), "x", base="demo")
    gib = 1024**3
    gpu = Machine(8, None, 64 * gib, 60 * gib, None, (Gpu(0, "card", 24 * gib, 4 * gib),))
    assert talk.plan(target, gpu, (), 2 * gib).device == "gpu"
    busy = talk.plan(target, gpu, ("kiosk",), 2 * gib)
    assert busy.device == "cpu" and busy.choices == ("cpu", "gpu") and "2.0 GiB of the 20.0 GiB" in busy.why
    assert talk.plan(target, gpu, (), 30 * gib).device == "cpu"
    none = Machine(8, None, 64 * gib, 60 * gib, None)
    assert talk.plan(target, none, ("kiosk",), gib) == talk.Plan("cpu", ("cpu",))


def test_each_side_sees_its_own_answers_since_the_last_beginning() -> None:
    made = Talk(
        [
            Exchange("a", "S", fresh=True),
            Exchange("b", "S"),
            Exchange("c", "T", fresh=True),
            Exchange("d", "T"),
        ]
    )
    made.exchanges[0].replies |= {"base": Reply("A0"), "tuned": Reply("A1")}
    made.exchanges[2].replies |= {"base": Reply("C0"), "tuned": Reply("")}
    assert made.messages("base", 1) == (("system", "S"), ("user", "a"), ("assistant", "A0"), ("user", "b"))
    assert made.messages("tuned") == (("system", "T"), ("user", "d"))
    assert made.messages("base")[2] == ("assistant", "C0")


def test_a_row_is_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"torn": 1}')
    assert talk_files.append(file, (("user", "q"), ("assistant", "a\nb"))) == 2
    assert [json.loads(line) for line in file.read_text().splitlines()][1]["messages"][1]["content"] == "a\nb"
    for wrong in (tmp_path / "rows.json", tmp_path, tmp_path / "no" / "rows.jsonl"):
        with pytest.raises(FinetuiError):
            talk_files.append(wrong, (("user", "q"),))


def test_marks() -> None:
    assert talk_score.mark(" a  b ", "a b").exact
    assert not talk_score.mark("a", "b").exact and talk_score.mark("It is A.", "a").contains
    structured = talk_score.mark('{"b": 2, "a": 1}', '{"a": 1, "b": 3}')
    assert structured.json_valid and structured.json_keys and not structured.exact
    assert talk_score.mark("{", '{"a": 1}').json_valid is False
    assert talk_score.mark("x", "y").json_valid is None
    assert talk_score.words("a b", "a  b") == "Exact, 3 characters (expected: 4)"
    assert (
        talk_score.words('{"a": 2}', '{"a": 1}')
        == "Not exact, valid JSON, same keys, 8 characters (expected: 8)"
    )
    assert talk_score.words("It is a.", "a") == "Not exact, but contained, 8 characters (expected: 1)"
