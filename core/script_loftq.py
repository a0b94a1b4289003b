"""A script's LoftQ: the start of the adapter, and what is saved of it in the end. The worker's is `worker/loftq.py`."""

from __future__ import annotations

import textwrap


def begin(source: str, rank: int) -> str:
    """Code that gives the adapter its start. `source` is what `from_pretrained` needs to find the model, as Python."""
    return textwrap.dedent(
        f"""
        from peft import get_peft_model_state_dict
        from peft.utils.integrations import dequantize_module_weight
        from transformers import AutoModelForCausalLM

        whole = AutoModelForCausalLM.from_pretrained(SOURCE, dtype="auto").state_dict()
        with torch.no_grad():
            for name, module in model.named_modules():
                if not hasattr(module, "lora_A") or not hasattr(module.get_base_layer().weight, "quant_state"):
                    continue
                held = dequantize_module_weight(module.get_base_layer()).float()
                weight = whole[name.removeprefix("base_model.model.") + ".weight"]
                torch.manual_seed(SEED)
                lost = weight.to(held.device).float() - held
                left, sizes, right = torch.svd_lowrank(lost, q=min({rank} + 16, *lost.shape), niter=4)
                roots = (sizes[:{rank}] / module.scaling["default"]).sqrt()
                module.lora_A["default"].weight[: len(roots)] = roots[:, None] * right[:, :{rank}].T
                module.lora_B["default"].weight[:, : len(roots)] = left[:, :{rank}] * roots
        del whole
        start = {{name: part.detach().cpu().clone() for name, part in get_peft_model_state_dict(model).items()}}
        """
    ).strip().replace("SOURCE", source, 1)  # fmt: skip


def leave(folder: str) -> str:
    """Code that turns the adapter in `folder`, a Python expression, into what it learned since its start."""
    return textwrap.dedent(
        """
        # B·A − B₀·A₀ as one adapter of twice the rank.
        import json
        from pathlib import Path

        from safetensors.torch import load_file, save_file

        folder = Path(FOLDER)
        learned = load_file(folder / "adapter_model.safetensors")
        settings = json.loads((folder / "adapter_config.json").read_text())
        factor = 0.5**0.5 if settings["use_rslora"] else 1.0
        for name, part in learned.items():
            if ".lora_A." in name:
                learned[name] = torch.cat([part, start[name]], dim=0).contiguous()
            elif ".lora_B." in name:
                learned[name] = (factor * torch.cat([part, -start[name]], dim=1)).contiguous()
        save_file(learned, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        settings |= {"r": 2 * settings["r"], "lora_alpha": 2 * settings["lora_alpha"]}
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2))
        """
    ).strip().replace("FOLDER", folder, 1)  # fmt: skip
