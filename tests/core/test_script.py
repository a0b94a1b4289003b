"""Scripts and notebooks of recipes: whole, compilable, and with nothing in them that a name could run."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetui.core import script, script_look
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import DatasetSection, ExportSection, LoraSection, ModelSection, Recipe

HOSTILE = st.text(st.sampled_from(list("'\"\\\n{}#%();abü")), min_size=1, max_size=120).filter(
    lambda t: t.isprintable() and not t.isspace()
)


@settings(max_examples=60)
@given(
    prompt=HOSTILE,
    column=HOSTILE,
    source=HOSTILE,
    format=st.sampled_from(["auto", "alpaca", "text", "sharegpt"]),
)
def test_hostile_texts_are_quoted(prompt: str, column: str, source: str, format: str) -> None:
    section = DatasetSection.model_validate(
        {
            "source": source,
            "format": format,
            "system_prompt": prompt,
            "columns": {"user": column, "assistant": "b"},
        }
    )
    recipe = Recipe(model=ModelSection(source=source), dataset=section)
    for notebook in (False, True):
        made = script.make(recipe, script_look.unseen(section), notebook)
        tree = ast.parse(made.text)
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        if format != "text":
            assert prompt in texts
        json.loads(made.notebook())


@pytest.mark.parametrize("train_on", ["answers", "last_answer", "everything"])
@pytest.mark.parametrize("mode", ["keep", "add", "replace", "none"])
def test_every_choice_compiles(
    train_on: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecrettoken1234")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "a", "answer": "b", "system": "s"}\n{"question": "c"}\nno\n' * 3)
    for more in (
        {},
        {"multi_turn": "split"},
        {"join_rows": 3, "mix": {str(rows): 1.5}, "row_limit": 4, "deduplicate": True},
    ):
        section = DatasetSection.model_validate(
            {"source": str(rows), "train_on": train_on, "system_mode": mode, "system_prompt": "p", **more}
        )
        recipe = Recipe(
            dataset=section, export=ExportSection(formats=("merged", "merged_4bit", "gguf_q4_k_m"))
        )
        made = script.make(recipe, script_look.look(section))
        compile(made.text, "script", "exec")
        assert "finetui" not in made.text and "hf_verysecret" not in made.text
        assert "number not in {2, 3, 5, 6, 8, 9}" in made.text


def test_the_demos_notebook_holds_its_rows() -> None:
    recipe = demo_recipe()
    made = script.make(recipe, script_look.look(recipe.dataset), notebook=True)
    book = json.loads(made.notebook())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    sources = ["".join(cell["source"]) for cell in book["cells"]]
    assert any(s.startswith("%%writefile messages.jsonl\n") and s.count("\n") == 333 for s in sources)
    for cell, source in zip(book["cells"], sources, strict=True):
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code" and not source.startswith("%"):
            compile(source, "cell", "exec")


def test_an_importance_matrix_is_left_to_llama_cpp() -> None:
    recipe = Recipe(export=ExportSection(formats=("gguf_iq2_xs", "gguf_q4_k_m")))
    text = script.make(recipe, script_look.unseen(recipe.dataset)).text
    assert "#   llama-quantize --imatrix imatrix.gguf F16.gguf IQ2_XS.gguf IQ2_XS" in text
    assert "quantization_method=['q4_k_m', 'f16']" in text
    recipe = Recipe(export=ExportSection(formats=("gguf_q4_k_m",), importance=True))
    text = script.make(recipe, script_look.unseen(recipe.dataset)).text
    assert text.index("#   llama-imatrix -m F16.gguf") < text.index("#   llama-quantize --imatrix")
    assert "quantization_method=['f16']" in text


def test_quantizations_that_unsloth_refuses_are_left_to_llama_cpp() -> None:
    recipe = Recipe(export=ExportSection(formats=("gguf_iq4_xs", "gguf_q4_k_m")))
    text = script.make(recipe, script_look.unseen(recipe.dataset)).text
    assert "quantization_method=['q4_k_m', 'f16']" in text
    assert "#   llama-quantize F16.gguf IQ4_XS.gguf IQ4_XS" in text


def test_a_hub_model_is_taken_by_its_exact_name_and_revision(tmp_path: Path) -> None:
    """On a GPU Unsloth would take its own copy of this one, of which the revision is none."""
    recipe = Recipe(
        model=ModelSection(source="Qwen/Qwen3-0.6B", revision="abc123", precision="4bit"),
        lora=LoraSection(initialization="loftq"),
    )
    text = script.make(recipe, script_look.unseen(recipe.dataset)).text
    assert "    use_exact_model_name=True,\n    revision='abc123',\n)" in text
    assert "AutoModelForCausalLM.from_pretrained('Qwen/Qwen3-0.6B', revision='abc123', dtype=" in text
    recipe = Recipe(model=ModelSection(source=str(tmp_path)))
    assert "use_exact" not in script.make(recipe, script_look.unseen(recipe.dataset)).text
