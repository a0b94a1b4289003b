"""Plain writing on a base model without a chat template: detected, trained, sampled, exported, proved and asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core import model, proof_file, recipe_file
from finetui.core.conversation import Turn
from finetui.core.dataset import format_of
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection, ExportSection
from finetui.core.runs import store
from finetui.core.runs.events import DatasetReady, Exported, ModelReady, Proved, Sample, Warned
from finetui.core.runs.store import RunFolder
from finetui.core.worker import samples

from . import harness

FORMATS = ("adapter", "merged", "gguf_f16")


def texts(path: Path) -> Path:
    lines = [
        f"Day {n}. The rain fell on the grey roofs, and nobody in the town looked up." for n in range(40)
    ]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Trained by `finetui train`, with a format that is left to be detected."""
    folder = tmp_path_factory.mktemp("plain-writing")
    recipe = harness.recipe(
        tiny_base_model,
        texts(folder / "days.jsonl"),
        max_steps=40,
        learning_rate=2e-2,
        sample_count=2,
        evaluation_share=0.2,
    )
    assert recipe.dataset.format == "auto"
    recipe = recipe.model_copy(update={"name": "days", "export": ExportSection(formats=FORMATS)})
    recipe_file.save(recipe, folder / "days.yaml")
    ran = subprocess.run(
        [sys.executable, "-m", "finetui.tui", "train", str(folder / "days.yaml"), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * harness.PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout[-2000:], ran.stderr[-2000:])
    [found] = [run for run in store.all_runs() if "days" in run.path.name]
    return found


def test_it_trains_to_the_end(run: RunFolder) -> None:
    assert harness.ended(run).reason == "completed"
    assert harness.events(run, ModelReady)[-1].chat_template == ""
    assert harness.events(run, DatasetReady)[-1].format == "text"
    assert not harness.events(run, Warned), harness.codes(run)
    losses = harness.losses(run)
    assert losses[max(losses)] < losses[min(losses)] - 1


def test_samples_go_on_with_held_out_texts(run: RunFolder) -> None:
    told = harness.events(run, Sample)
    assert len({(s.step, s.index) for s in told}) == len(told) >= 4
    for sample in told:
        assert sample.prompt.startswith("Day ") and sample.reference.startswith(" ")
        assert (sample.prompt + sample.reference).endswith("looked up.")
    assert any("the" in s.answer for s in told if s.step == max(t.step for t in told))


def test_each_export_is_proved_by_going_on(run: RunFolder) -> None:
    assert [e.format for e in harness.events(run, Exported)] == list(FORMATS)
    assert {p.format: p.verdict for p in harness.events(run, Proved)} == dict.fromkeys(FORMATS, "same")
    reference = proof_file.load_reference(run)
    assert reference is not None and not reference.template
    assert all(not asked.messages and asked.text.startswith("Day ") for asked in reference.prompts)
    assert all((asked.text + asked.expected).endswith("looked up.") for asked in reference.prompts)
    for format in FORMATS:
        kept = proof_file.load(run.exports / format)
        assert kept is not None and kept.agreement is not None
        assert not {"chat template", "template text"} & {check.name for check in kept.checks}
        assert all(question.startswith("Day ") for question, _, _ in kept.prompts)


def test_a_swapped_model_is_still_caught(run: RunFolder, tiny_base_model: Path, tmp_path: Path) -> None:
    from finetui.core.worker import proof as prover

    reference = proof_file.load_reference(run)
    assert reference is not None
    found = prover.prove("merged", tiny_base_model, tiny_base_model, run.adapter, reference)
    assert found.verdict == "broken"


@pytest.mark.parametrize("format", ["adapter", "merged"])
def test_the_command_goes_on_with_a_text(run: RunFolder, format: str) -> None:
    command = next(e.command for e in harness.events(run, Exported) if e.format == format)
    ran = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=harness.PATIENCE, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_ollama_is_given_no_template(run: RunFolder) -> None:
    modelfile = (run.exports / "gguf_f16" / "Modelfile").read_text()
    assert modelfile.startswith("FROM ./days-F16.gguf") and "TEMPLATE" not in modelfile


def test_conversations_on_a_base_model_are_refused_before_and_by_the_worker(
    unsloth: None, tiny_base_model: Path, tiny_rows: Path
) -> None:
    from .in_process import Trainer

    recipe = harness.recipe(tiny_base_model, tiny_rows)
    with pytest.raises(FinetuiError) as caught:
        model.check_template(model.inspect(str(tiny_base_model)), format_of(recipe.dataset))
    assert caught.value.code == "model-no-chat-template"
    with pytest.raises(FinetuiError) as caught:
        Trainer(recipe)
    assert caught.value.code == "model-no-chat-template"


def test_the_format_is_the_stated_or_the_detected_one(tiny_rows: Path, tmp_path: Path) -> None:
    days = str(texts(tmp_path / "days.jsonl"))
    assert format_of(DatasetSection(source=days)) == "text"
    assert format_of(DatasetSection(source=str(tiny_rows))) == "messages"
    assert format_of(DatasetSection(source=str(tmp_path / "none.jsonl"), format="text")) == "text"
    with pytest.raises(FinetuiError):
        format_of(DatasetSection(source=str(tmp_path / "none.jsonl")))


@pytest.mark.parametrize(
    "text", ["one two three four five six", "x" * 16, "\n" * 40, "你好，世界，" * 9, "a " * 5000, "é" * 17]
)
def test_a_text_is_cut_in_two(text: str) -> None:
    parts = samples.beginning([Turn("text", text, learned=True)])
    assert parts is not None
    begun, rest = parts
    assert begun and rest and begun + rest == text
    assert len(begun) <= min(samples.BEGINNING_CHARACTERS, len(text) // 2)
    assert samples.beginning([Turn("text", text[:8])]) is None
