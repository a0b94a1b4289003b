"""GGUFs of models that speak in many bytes a character, or begin with a token of their own, proved in a real llama.cpp."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader

from finetui.core import leaving, model_card, ollama, proof_file, recipe_file
from finetui.core.runs.events import Event, Exported, Proved, Warned
from finetui.core.runs.store import RunFolder
from finetui.core.worker import export, llama_cpp, proof, tokenizer
from finetui.core.worker.chat import Chat

from . import broken, exporting, harness, proving, tiny

BEGINS = "{{ bos_token }}" + tiny.CHAT_TEMPLATE
EACH = tiny.CHAT_TEMPLATE.replace("<|im_start|>", "<s>")
"""The beginning-of-text token is what opens each message."""


def tokenizer_begins(model: Path) -> Path:
    """Lets the tokenizer of `model` put a beginning-of-text token before a text by itself."""
    file = model / "tokenizer.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    first, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    file.write_text(json.dumps(settings), encoding="utf-8")
    return model


def rows(path: Path, *answers: str) -> Path:
    told = [
        {
            "messages": [
                {"role": "user", "content": f"Item {n}?"},
                {"role": "assistant", "content": answers[n % len(answers)]},
            ]
        }
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    return path


def stated(run: RunFolder, format: str = "gguf_f16") -> dict[str, object]:
    """What the header of an export says."""
    [file] = (run.exports / format).glob("*.gguf")
    return {name: field.contents() for name, field in GGUFReader(str(file)).fields.items()}


@pytest.mark.parametrize("answer", ["Yes 👍 ok", "是的，你好"])
def test_characters_of_several_tokens_are_no_fault(tmp_path: Path, answer: str) -> None:
    """llama.cpp tells nothing of a token that ends within a character."""
    model = tokenizer_begins(tiny.make(tmp_path / "model", hidden=256, intermediate=512))
    run = proving.prove_run(model, rows(tmp_path / "rows.jsonl", answer), ("gguf_f16",)).run
    reference = proof_file.load_reference(run)
    assert reference is not None and reference.prompts[0].answer == answer
    [found] = harness.events(run, Proved)
    assert found.verdict == "same", found
    kept = proof_file.load(run.exports / "gguf_f16")
    assert kept is not None and kept.agreement == 1.0 and kept.gap is not None and kept.gap < 0.01
    assert all(ours == theirs for _, ours, theirs in kept.prompts)
    assert stated(run)["tokenizer.ggml.add_bos_token"] is False
    assert stated(run)["general.name"] == "model tiny"
    assert str(tmp_path) not in str(stated(run))


def test_a_beginning_token_of_the_template_is_there_once(tmp_path: Path) -> None:
    model = tokenizer_begins(tiny.make(tmp_path / "model", BEGINS))
    run = proving.prove_run(
        model, tiny.write_rows(tmp_path / "rows.jsonl", 40), ("gguf_f16", "adapter_gguf")
    ).run
    reference = proof_file.load_reference(run)
    assert reference is not None and all(asked.ids[:2] == (1, 3) for asked in reference.prompts)
    assert {p.format: p.verdict for p in harness.events(run, Proved)} == {
        "gguf_f16": "same",
        "adapter_gguf": "same",
    }, harness.events(run, Proved)
    assert stated(run)["tokenizer.ggml.add_bos_token"] is True
    assert stated(run, "adapter_gguf")["general.name"] == "model tiny"


def stated_by_others(model: Path, file: Path) -> object:
    """What llama.cpp's own converter says of the beginning of a text in a GGUF of `model`."""
    tool = llama_cpp.converter(lambda _said: None)
    argv = [sys.executable, str(tool.script), str(model), "--outfile", str(file), "--outtype", "f16"]
    subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(tool.imports)}, check=True, capture_output=True)
    field = GGUFReader(str(file)).fields.get("tokenizer.ggml.add_bos_token")
    return field.contents() if field is not None else False


@pytest.mark.parametrize(
    ("template", "by_itself", "begins"),
    [
        (tiny.CHAT_TEMPLATE, True, False),  # TinyLlama's
        (BEGINS, False, True),
        (BEGINS, True, None),
        (tiny.CHAT_TEMPLATE, False, None),
    ],
)
def test_an_adapter_says_where_the_bases_own_gguf_begins_otherwise(
    tmp_path: Path, template: str, by_itself: bool, begins: bool | None
) -> None:
    model = tiny.make(tmp_path / "model", template)
    if by_itself:
        tokenizer_begins(model)
    tuned = exporting.make_run(tmp_path / "run", model)
    events: list[Event] = []
    export.export(None, None, tuned.recipe, tuned.run, ["adapter_gguf", "gguf_f16"], events.append)
    done = next(e for e in events if isinstance(e, Exported) and e.format == "adapter_gguf")
    assert done.begins is begins
    assert [e.code for e in events if isinstance(e, Warned)] == ["adapter-beginning"] * (begins is not None)
    trained = bool(stated(tuned.run)["tokenizer.ggml.add_bos_token"])
    base = stated_by_others(model, tmp_path / "base.gguf")
    assert (base != trained) == (begins is not None) and begins in (None, trained)
    said = f" --override-kv tokenizer.ggml.add_bos_token=bool:{str(trained).lower()} "
    [whole] = leaving.chosen(tuned.run, ["adapter_gguf"])
    usage = model_card.usage(tuned.recipe, [whole])
    assert all((said in command) == (begins is not None) for command in (done.command, usage[0][1]))
    assert any("Ollama" in title for title, _ in usage) == (begins is None)
    recipe_file.save(tuned.recipe, tuned.run.recipe)
    told = "\n".join(ollama.plan(tuned.run, base=str(tmp_path / "base.gguf")).lines())
    told_modelfile = (whole.folder / "Modelfile").read_text()
    assert all(("whole GGUF" in words) == (begins is not None) for words in (told, told_modelfile))


@pytest.mark.parametrize(
    ("template", "by_itself", "expected"),
    [
        (tiny.CHAT_TEMPLATE, True, False),  # TinyLlama's
        (tiny.CHAT_TEMPLATE, False, False),
        (BEGINS, True, True),  # Llama 3's
        (BEGINS, False, True),
        (EACH, False, False),  # SmolLM2's
        (None, True, True),
        (None, False, False),
    ],
)
def test_a_beginning_token_leads_where_training_had_it(
    tmp_path: Path, template: str | None, by_itself: bool, expected: bool
) -> None:
    model = tiny.make(tmp_path / "model", template)
    if by_itself:
        tokenizer_begins(model)
    assert Chat(tokenizer.load(model), 128).begins is expected


def test_plain_writing_begins_as_the_tokenizer_begins_a_text(tmp_path: Path) -> None:
    model = tokenizer_begins(tiny.make(tmp_path / "model", None))
    file = tmp_path / "days.jsonl"
    lines = [f"Day {n}. The rain fell on the grey roofs, and nobody looked up." for n in range(40)]
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    proven = proving.prove_run(model, file, ("gguf_f16",))
    assert all(asked.ids[0] == 1 and not asked.messages for asked in proven.reference.prompts)
    [found] = harness.events(proven.run, Proved)
    assert found.verdict == "same", found
    [gguf] = (proven.run.exports / "gguf_f16").glob("*.gguf")
    broken.switch_beginning(gguf)
    found = proof.prove("gguf_f16", gguf, model, proven.run.adapter, proven.reference)
    assert found.verdict == "broken", found
