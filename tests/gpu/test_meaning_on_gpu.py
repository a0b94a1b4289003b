"""What the faster paths of a GPU must not change: packed rows stay apart, and a 4-bit run's merge is base + adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetui.core.recipe import ExportSection
from finetui.core.runs.events import Exported, ModelReady
from tests.worker import harness


def stirred(trainer: Any) -> None:
    """Gives the adapter weights under which what a token attends to matters a great deal."""
    import torch

    generator = torch.Generator(device="cuda").manual_seed(1)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator, device="cuda")
                    * (0.3 if "lora_A" in name else 0.6)
                )


def loss_of(trainer: Any, batch: dict[str, Any]) -> tuple[float, Any]:
    """The loss of `batch` through the trainer's own path, and the adapter's gradient as one vector."""
    import torch

    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch)))
    loss.backward()
    gradients = [p.grad.float().flatten() for p in trainer.model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients)


def alone(row: dict[str, Any]) -> dict[str, Any]:
    import torch

    ids = torch.tensor([row["input_ids"]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([row["labels"]]),
    }


def test_packed_rows_do_not_see_each_other(tiny_model: Path, tiny_rows: Path) -> None:
    from finetui.core.worker import environment

    environment.import_unsloth()
    import torch

    from tests.worker.in_process import Trainer

    built = Trainer(harness.recipe(tiny_model, tiny_rows, packing=True, max_length=512, batch_size=2))
    trainer = built.trainer
    assert built.loaded.ready.dtype == ("bfloat16" if torch.cuda.is_bf16_supported() else "float16")
    assert trainer.args.bf16 == torch.cuda.is_bf16_supported()
    stirred(trainer)
    trainer.model.train()

    batch = dict(next(iter(trainer.get_train_dataloader())))
    ids = batch["input_ids"].flatten().tolist()
    starts = [*(batch["position_ids"].flatten() == 0).nonzero().flatten().tolist(), len(ids)]
    known = {tuple(row["input_ids"]): row for row in built.prepared.train.rows}
    rows = [known[tuple(ids[a:b])] for a, b in zip(starts, starts[1:], strict=False)]
    assert len(rows) > 4  # several whole rows, each numbered from 0

    packed, packed_gradient = loss_of(trainer, batch)
    counts = [sum(label != -100 for label in row["labels"][1:]) for row in rows]
    each = [loss_of(trainer, alone(row)) for row in rows]
    share = [count / sum(counts) for count in counts]
    expected = sum(part * loss for part, (loss, _) in zip(share, each, strict=True))
    gradient = sum(part * vector for part, (_, vector) in zip(share, each, strict=True))
    # The same tokens as one long row: what the loss would be if rows saw each other.
    run_on = {name: [value for row in rows for value in row[name]] for name in ("input_ids", "labels")}
    mixed, mixed_gradient = loss_of(trainer, alone(run_on))

    def angle(one: Any, other: Any) -> float:
        return float(torch.nn.functional.cosine_similarity(one, other, dim=0))

    print(
        f"{len(rows)} rows: packed {packed:.5f}, alone {expected:.5f}, run together {mixed:.5f}; gradients: "
        f"packed against alone {angle(packed_gradient, gradient):.5f}, "
        f"run together against alone {angle(mixed_gradient, gradient):.5f}"
    )
    # First that this test can tell at all, then that packing keeps the rows apart.
    assert abs(mixed - expected) > 0.01 and angle(mixed_gradient, gradient) < 0.5
    assert packed == pytest.approx(expected, abs=0.002)
    assert angle(packed_gradient, gradient) > 0.999


def test_a_4_bit_run_merges_into_its_base_and_adapter(tiny_model: Path, tiny_rows: Path) -> None:
    run = harness.trained(
        harness.recipe(tiny_model, tiny_rows, precision="4bit").model_copy(
            update={"export": ExportSection(formats=("merged",))}
        )
    )
    (ready,), (exported,) = harness.events(run, ModelReady), harness.events(run, Exported)
    assert ready.dtype.startswith("4-bit")

    from finetui.core.worker import environment

    environment.import_unsloth()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def plain(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    merged, base = plain(run.path / exported.path), plain(tiny_model)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    tuned: Any = PeftModel.from_pretrained(base, str(run.adapter)).merge_and_unload()  # pyright: ignore[reportCallIssue]
    changed = 0
    for name, weight in merged.state_dict().items():
        expected = tuned.state_dict()[name]
        torch.testing.assert_close(weight, expected, rtol=2**-7, atol=0)  # either neighbour in 16 bit
        changed += not torch.equal(expected, before[name])
    assert changed == 7 * merged.config.num_hidden_layers


def test_a_base_stored_in_4_bit_trains_and_merges(tiny_model: Path, tiny_rows: Path, tmp_path: Path) -> None:
    """Both forms that bitsandbytes writes are unpacked on the way; the first, which is Unsloth's, is trained too."""
    from finetui.core.worker import environment

    environment.import_unsloth()
    from transformers import AutoModelForCausalLM

    from tests.gpu import four_bit

    before = four_bit.store(tiny_model, tmp_path / "tiny-bnb-4bit", nested=True)
    run = harness.trained(
        harness.recipe(tmp_path / "tiny-bnb-4bit", tiny_rows, precision="4bit").model_copy(
            update={"export": ExportSection(formats=("merged",))}
        )
    )
    assert "merge-failed" not in harness.codes(run)
    four_bit.check_merged(run.exports / "merged", run.adapter, before, scale=8 / 4)
    AutoModelForCausalLM.from_pretrained(run.exports / "merged")


def test_a_base_whose_4_bit_scales_are_not_packed_again_merges(tiny_model: Path, tmp_path: Path) -> None:
    from finetui.core.worker import environment

    environment.import_unsloth()
    from finetui.core.worker import base_weights, merge
    from tests.gpu import four_bit
    from tests.worker import exporting

    before = four_bit.store(tiny_model, tmp_path / "stored", nested=False)
    tuned = exporting.make_run(tmp_path / "run", tiny_model)
    merge.merge(tmp_path / "stored", tuned.run.adapter, tmp_path / "merged")
    four_bit.check_merged(tmp_path / "merged", tuned.run.adapter, before, scale=8 / 4)
    assert base_weights.count(tmp_path / "stored") == sum(weight.numel() for weight in before.values())
