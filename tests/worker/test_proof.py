"""Proofs of real exports by real consumers, and the test of the test: exports broken on purpose, each of which is caught."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import struct
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from finetui.core import asking, export_budget, export_record, proof_file, recipe_file, talk
from finetui.core import proof as proof_step
from finetui.core.asking import Answer
from finetui.core.errors import FinetuiError
from finetui.core.proof import Heard, HeardPrompt, Proof, Weights
from finetui.core.recipe import ExportSection
from finetui.core.runs.chosen import Chosen
from finetui.core.runs.events import Exported, Proved, Sample, Warned
from finetui.core.runs.store import RunFolder
from finetui.core.worker import proof
from tests.tui.command_line import finetui

from . import broken, harness, proving
from .proving import Proven

FORMATS = ("adapter", "merged", "gguf_f16", "gguf_q8_0", "gguf_q4_k_m")


@pytest.fixture(scope="module")
def proven(tiny_model: Path, tiny_rows: Path) -> Proven:
    return proving.prove_run(tiny_model, tiny_rows, FORMATS, save_every_steps=30)


def exported(proven: Proven, format: str) -> Path:
    folder = proven.run.exports / format
    return next(folder.glob("*.gguf")) if format.startswith("gguf") else folder


def again(proven: Proven, format: str, path: Path) -> Proof:
    return proof.prove(format, path, proven.base, proven.run.adapter, proven.reference)


def test_the_trained_model_was_asked(proven: Proven) -> None:
    assert len(proven.reference.prompts) == proof_step.PROMPTS
    for asked in proven.reference.prompts:
        assert len(asked.logprobs) == len(asked.answer_ids) > 0
        assert all(logprob <= 0 for logprob in asked.logprobs)
        assert asked.messages[-1][0] == "user" and asked.messages[-1][1] in asked.text
    assert any(asked.ended for asked in proven.reference.prompts)


def test_a_talk_knows_the_datasets_answer_to_every_held_out_prompt(proven: Proven, tiny_rows: Path) -> None:
    rows = [json.loads(line)["messages"] for line in tiny_rows.read_text().splitlines()]
    answers = {row[-2]["content"]: row[-1]["content"] for row in rows}
    held = talk.held_out(talk.of_run(proven.run))
    assert len(held) == proof_step.PROMPTS > len({e.prompt for e in harness.events(proven.run, Sample)})
    assert all(one.expected and one.expected == answers[one.question] for one in held)


def test_each_sound_export_is_proved_once_after_it_was_made(proven: Proven) -> None:
    assert not harness.events(proven.run, Warned), harness.codes(proven.run)
    made = [e.format for e in harness.events(proven.run, Exported)]
    proofs = harness.events(proven.run, Proved)
    assert [p.format for p in proofs] == made == list(FORMATS)
    for found in proofs:
        assert found.verdict == "same", found
        kept = proof_file.load(proven.run.exports / found.format)
        assert kept is not None and kept.verdict == "same"
        assert len(kept.prompts) == proof_step.PROMPTS
    learned = {
        f: next(c.sentence for c in kept.checks if c.name == "adapter merged")
        for f in FORMATS[1:]
        if (kept := proof_file.load(proven.run.exports / f)) is not None
    }
    assert set(learned) == set(FORMATS[1:])


def test_the_command_proves_again_and_tells_by_its_exit_code(proven: Proven, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(proven.run.path, proven.run.path.with_name("copied"))))
    said = finetui("verify", run.id, "--format", "merged", "--format", "adapter")
    assert said.returncode == 0, said
    assert "merged · proved: It answers as the trained model did" in said.stdout
    broken.unmerged(run.exports / "merged", proven.base)
    said = finetui("verify", run.id, "--json")
    assert said.returncode == 1, said
    proofs = {e["format"]: e for e in map(json.loads, said.stdout.splitlines()) if e["kind"] == "proof"}
    assert set(proofs) == set(FORMATS)
    assert proofs["merged"]["verdict"] == "broken" and proofs["gguf_f16"]["verdict"] == "same"
    kept = proof_file.load(run.exports / "merged")
    assert kept is not None and kept.verdict == "broken"


def test_later_exports_of_the_command_are_proved_too(proven: Proven) -> None:
    """An adapter in llama.cpp over its base, and a quantization with an importance matrix of the run's own rows."""
    run = RunFolder(Path(shutil.copytree(proven.run.path, proven.run.path.with_name("later"))))
    said = finetui("export", run.id, "--format", "adapter_gguf,iq2_xs,q4_k_m", "--importance", "--replace")
    assert said.returncode == 0, said
    proofs = {p.format: p for p in harness.events(run, Proved)}
    assert proofs["adapter_gguf"].verdict == "same", proofs["adapter_gguf"]
    assert proofs["adapter_gguf"].consumer == "llama.cpp"
    for format in ("gguf_iq2_xs", "gguf_q4_k_m"):
        record = export_record.read(run.exports / format)
        assert record is not None and record.weighed
        assert proofs[format].verdict == "same", proofs[format]
    assert not list(run.exports.glob(".base-*"))
    [lora] = (run.exports / "adapter_gguf").glob("*.gguf")
    content = bytearray(lora.read_bytes())
    at = content.index(b"adapter.lora.alpha") + len("adapter.lora.alpha") + 4
    content[at : at + 4] = struct.pack("<f", 1e-9)
    lora.write_bytes(content)
    said = finetui("verify", run.id, "--format", "adapter_gguf")
    assert said.returncode == 1 and "adapter_gguf" in said.stdout, said
    kept = proof_file.load(run.exports / "adapter_gguf")
    assert kept is not None and kept.verdict != "same"


def test_a_proof_that_would_fill_the_disk_is_not_begun(
    proven: Proven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter for llama.cpp is proved over a GGUF of the base, 16 bits for each weight, made for the purpose."""
    folder = tmp_path / "adapter_gguf"
    folder.mkdir()
    count = sum(weight.numel() for weight in load_file(proven.base / "model.safetensors").values())
    total, used, free = shutil.disk_usage(tmp_path)
    usage = type(shutil.disk_usage(tmp_path))
    room = 2 * count + export_budget.SPARE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(total, used, room - 1))
    with pytest.raises(FinetuiError) as caught:
        again(proven, "adapter_gguf", folder)
    assert caught.value.code == "proof-untried" and "GGUF of the base model" in caught.value.why
    assert "Free some space" in caught.value.fix and not list(tmp_path.glob(".base-*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(total, used, room))
    with pytest.raises(ValueError):  # there is room; and no adapter
        again(proven, "adapter_gguf", folder)


def test_a_run_that_asks_for_no_proof_gets_none(tiny_model: Path, tiny_rows: Path) -> None:
    recipe = harness.recipe(tiny_model, tiny_rows, max_steps=2)
    run = harness.trained(
        recipe.model_copy(update={"export": ExportSection(formats=("adapter",), prove=False)})
    )
    assert harness.events(run, Exported) and not harness.events(run, Proved)
    assert proof_file.load_reference(run) is None


def test_answers_that_cannot_be_kept_do_not_fail_the_run(tiny_model: Path, tiny_rows: Path) -> None:
    run = harness.make_run(harness.recipe(tiny_model, tiny_rows, max_steps=2))
    (proof_file.reference_file(run) / "in the way").mkdir(parents=True)
    assert harness.finish(harness.start("train", run), run) == 0
    assert harness.events(run, Exported) and not harness.events(run, Proved)
    assert "proof-unwritten" in harness.codes(run)


def test_a_proof_that_cannot_be_kept_is_no_verdict(proven: Proven) -> None:
    run = RunFolder(Path(shutil.copytree(proven.run.path, proven.run.path.with_name("full"))))
    kept = run.exports / "adapter" / proof_file.FILE
    kept.unlink()
    (kept / "in the way").mkdir(parents=True)
    said = finetui("verify", run.id, "--format", "adapter")
    assert said.returncode == 1 and "Traceback" not in said.stdout + said.stderr, said


def test_whoever_tries_an_export_ends_with_the_worker(proven: Proven) -> None:
    run = RunFolder(Path(shutil.copytree(proven.run.path, proven.run.path.with_name("killed"))))

    def consumers() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if "finetui.core.worker.consumer" in words and any(run.id in word for word in words):
                    found.append(process)
        return found

    worker = harness.start("verify", run)
    harness.until(consumers, worker)
    worker.kill()
    worker.wait()
    harness.until(lambda: not consumers())
    said = finetui("verify", run.id, "--format", "merged")
    assert said.returncode == 0, said


def test_a_consumer_that_the_system_killed_gives_no_verdict(proven: Proven) -> None:
    with pytest.raises(FinetuiError) as caught:
        argv = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
        proof.heard_or_untried("merged", asking.ask(argv, b"", dict(os.environ), lambda: None, 60.0))
    assert caught.value.code == "proof-untried"


def test_an_export_of_a_checkpoint_is_proved_by_that_checkpoints_answers(proven: Proven) -> None:
    run = RunFolder(Path(shutil.copytree(proven.run.path, proven.run.path.with_name("halfway"))))
    recipe = recipe_file.load(run.recipe)
    halfway = recipe.export.model_copy(update={"checkpoint": "30"})
    recipe_file.save(recipe.model_copy(update={"export": halfway}), run.recipe)
    assert harness.finish(harness.start("export", run, "--replace", "merged"), run) == 0
    made, found = harness.events(run, Exported)[-1], harness.events(run, Proved)[-1]
    assert (made.step, made.kept, found.verdict) == (30, False, "same"), found
    record = export_record.read(run.exports / "merged")
    assert record is not None and (record.step, record.result) == (30, False)
    kept = proof_file.load_reference(run, Chosen(run.checkpoints / "checkpoint-30", 30, False))
    assert kept is not None and kept.learned == record.learned
    assert kept.prompts[0].ids == proven.reference.prompts[0].ids
    assert kept.prompts[0].expected == proven.reference.prompts[0].expected != ""
    assert kept.prompts[0].logprobs != proven.reference.prompts[0].logprobs
    assert finetui("verify", run.id, "--format", "merged").returncode == 0
    shutil.rmtree(run.checkpoints / "checkpoint-30")
    said = finetui("verify", run.id, "--format", "merged")
    assert said.returncode != 0 and "made from are gone" in said.stderr + said.stdout, said


def test_a_run_that_learned_more_says_that_its_old_exports_cannot_be_compared(proven: Proven) -> None:
    run = RunFolder(Path(shutil.copytree(proven.run.path, proven.run.path.with_name("longer"))))
    changed = dataclasses.replace(proven.reference, learned="of other weights")
    proof_file.save_reference(run, changed)
    said = finetui("verify", run.id, "--format", "merged")
    assert said.returncode != 0 and "cannot be compared any more" in said.stderr + said.stdout, said


def test_a_run_with_nothing_to_compare_with_says_so(proven: Proven) -> None:
    run = RunFolder(Path(shutil.copytree(proven.run.path, proven.run.path.with_name("unasked"))))
    proof_file.reference_file(run).unlink()
    said = finetui("verify", run.id)
    assert said.returncode != 0
    assert "nothing to compare" in said.stderr and "Traceback" not in said.stderr


# ---- broken on purpose -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["adapter", "merged"])
@pytest.mark.parametrize("fault", broken.FOLDERS)
def test_a_folder_with_another_tokenizer_is_caught(
    proven: Proven, tmp_path: Path, format: str, fault: str
) -> None:
    folder = shutil.copytree(exported(proven, format), tmp_path / format)
    broken.FOLDERS[fault](folder)
    found = again(proven, format, folder)
    assert found.verdict == "broken", (fault, found)


@pytest.mark.parametrize("fault", ["truncated", "one tensor zeroed", "unmerged"])
def test_a_merged_model_with_other_weights_is_caught(proven: Proven, tmp_path: Path, fault: str) -> None:
    folder = shutil.copytree(exported(proven, "merged"), tmp_path / "merged")
    file = folder / "model.safetensors"
    if fault == "truncated":
        broken.cut(file)
    elif fault == "one tensor zeroed":
        broken.zero(file, "layers.1.self_attn.v_proj")
    else:
        broken.unmerged(folder, proven.base)
    found = again(proven, "merged", folder)
    assert found.verdict == "broken", found
    if fault == "unmerged":
        assert any(c.name == "adapter merged" and not c.passed for c in found.checks)


@pytest.mark.parametrize("fault", ["truncated", "one tensor zeroed"])
def test_an_adapter_with_other_weights_is_caught(proven: Proven, tmp_path: Path, fault: str) -> None:
    folder = shutil.copytree(exported(proven, "adapter"), tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    broken.cut(file) if fault == "truncated" else broken.zero(file, "layers.1.mlp.up_proj.lora_B")
    assert again(proven, "adapter", folder).verdict == "broken"


@pytest.mark.parametrize(
    ("format", "fault"),
    [
        ("gguf_f16", "wrong template"),
        ("gguf_f16", "swapped tokenizer"),
        ("gguf_f16", "missing end token"),
        ("gguf_f16", "beginning token"),
        ("gguf_f16", "truncated"),
        ("gguf_f16", "one tensor zeroed"),
        ("gguf_f16", "unmerged"),
        ("gguf_q4_k_m", "truncated"),
        ("gguf_q4_k_m", "one tensor zeroed"),
    ],
)
def test_a_broken_gguf_is_caught(proven: Proven, tmp_path: Path, format: str, fault: str) -> None:
    file = Path(shutil.copyfile(exported(proven, format), tmp_path / f"{format}.gguf"))
    broken.break_gguf(file, fault, proven.base)
    found = again(proven, format, file)
    assert found.verdict == "broken", (fault, found)


def test_another_runs_adapter_in_the_merged_weights_is_caught(proven: Proven, tmp_path: Path) -> None:
    """Half of the change merged twice would answer plausibly; the weights tell."""
    folder = shutil.copytree(exported(proven, "merged"), tmp_path / "merged")
    base = load_file(proven.base / "model.safetensors")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            kept = base[name].float()
            tensors[name] = (kept + 2 * (tensor.float() - kept)).to(tensor.dtype)

    broken.rewrite(folder / "model.safetensors", change)
    found = again(proven, "merged", folder)
    assert any(c.name == "adapter merged" and not c.passed for c in found.checks), found


# ---- judging, without a model ------------------------------------------------------------------------------------


def test_a_consumer_that_died_is_an_answer_too(proven: Proven) -> None:
    heard = proof_step.heard_from(Answer(b"", "Traceback\nsome.Error: no such tensor\n", 1), "llama.cpp")
    found = proof_step.judge("gguf_f16", proven.reference, heard, None)
    assert found.verdict == "broken" and "no such tensor" in found.sentence


def test_two_tokens_as_likely_as_each_other_are_no_difference(proven: Proven) -> None:
    """One token of a short answer is more than the twentieth that may differ."""
    asked = dataclasses.replace(
        proven.reference.prompts[0], answer_ids=tuple(range(14)), logprobs=(-0.7,) * 14
    )
    reference = dataclasses.replace(proven.reference, prompts=(asked,))

    def verdict(behind: float) -> str:
        logprobs, each = (-0.7, None, *asked.logprobs[2:]), (0.0, behind, *(0.0,) * 12)
        said = HeardPrompt(asked.text, asked.ids, logprobs, each, asked.answer, asked.ended)
        heard = Heard((said,), reference.template, reference.special_tokens, "llama.cpp")
        return proof_step.judge("gguf_f16", reference, heard, None).verdict

    assert [verdict(behind) for behind in (0.0, 0.05, 0.2)] == ["same", "same", "differs"]


def test_only_an_answer_that_comes_to_the_same_end_tells_whether_it_stops(proven: Proven) -> None:
    def verdict(end: str, ended: bool) -> str:
        heard = Heard(
            tuple(
                HeardPrompt(
                    one.text,
                    one.ids,
                    one.logprobs,
                    (0.0,) * len(one.answer_ids),
                    one.answer[:-1] + end,
                    ended,
                )
                for one in asked
            ),
            proven.reference.template,
            proven.reference.special_tokens,
        )
        reference = dataclasses.replace(proven.reference, prompts=asked)
        return proof_step.judge("gguf_f16", reference, heard, None).verdict

    asked = tuple(dataclasses.replace(one, answer="red 1", ended=True) for one in proven.reference.prompts)
    assert verdict("1", True) == verdict("2 and on", False) == "same"
    assert verdict("1 and on", False) == "broken"


def test_where_no_probability_is_told_the_choices_are_judged(proven: Proven) -> None:
    heard = Heard(
        tuple(
            HeardPrompt(
                one.text,
                one.ids,
                (None,) * len(one.ids),
                (0.0,) * len(one.answer_ids),
                one.answer,
                one.ended,
            )
            for one in proven.reference.prompts
        ),
        proven.reference.template,
        proven.reference.special_tokens,
        "llama.cpp",
    )
    found = proof_step.judge("gguf_f16", proven.reference, heard, None)
    assert (found.verdict, found.agreement, found.gap) == ("same", 1.0, None)
    assert any("llama.cpp tells no log-probability" in check.sentence for check in found.checks)


def test_a_four_bit_base_may_differ_more(proven: Proven) -> None:
    assert proof_step.limit("merged", "4bit").gap > proof_step.limit("merged", "16bit").gap
    assert proof_step.limit("merged", "4bit").agreement < proof_step.limit("merged", "16bit").agreement


def test_a_proof_file_that_was_tampered_with_reads_as_none(proven: Proven, tmp_path: Path) -> None:
    (tmp_path / proof_file.FILE).write_text('{"format": 3}', encoding="utf-8")
    assert proof_file.load(tmp_path) is None
    proof_file.save(tmp_path, proof_step.judge("merged", proven.reference, Heard(error="x"), Weights()))
    assert proof_file.load(tmp_path) is not None
