"""`finetui fit` on real rows and a tiny model's tokenizer: what it chooses, says and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetui.core import recipe_file
from finetui.core.errors import FinetuiError
from finetui.tui.__main__ import main
from finetui.tui.commands import exits
from finetui.tui.commands.fit import pinned
from tests.bench.gpu import shapes, speed
from tests.worker import harness, tiny


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recipe for a model of the shape of Llama 3.1 8B, of which there is no more than config.json and tokenizer."""
    model = tiny.make(tmp_path / "model")
    shapes.config_only("Llama-3.1-8B", model)
    (model / "model.safetensors").unlink()
    rows = speed.write_rows(tmp_path / "rows.jsonl", 200)
    recipe = harness.recipe(
        model, rows, batch_size=2, gradient_accumulation_steps=16, max_length=512, gradient_checkpointing=True
    )
    path = tmp_path / "recipe.yaml"
    recipe_file.save(recipe, path)
    return path


def test_fit_counts_the_rows_chooses_and_writes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(file), "--gpu-memory", "24GiB", "--json"]) == exits.OK
    said = json.loads(capsys.readouterr().out)
    assert said["counted"]
    assert said["rows"] == 180
    assert 120 < said["mean_tokens"] < 200 < said["longest_tokens"] <= 512
    assert said["predicted_bytes"] + said["headroom_bytes"] <= said["free_bytes"] == 24 << 30
    assert {choice["field"] for choice in said["choices"]} >= set(said["changes"])
    assert said["changes"]["training.packing"] is True
    before = file.read_bytes()
    assert main(["fit", str(file), "--gpu-memory", "24GiB", "--pin", "packing"]) == exits.OK
    words = capsys.readouterr().out
    assert "180 rows of" in words
    assert "you pinned it" in words
    assert words.count("chosen because") == 4
    assert "× as fast" in words
    assert file.read_bytes() == before
    file.write_text("# as my colleague had it\n" + before.decode())
    file.chmod(0o664)
    link = file.with_name("link.yaml")
    link.symlink_to(file.name)
    assert main(["fit", str(link), "--gpu-memory", "24GiB", "--write"]) == exits.OK
    assert f"Wrote {link}.\n" in capsys.readouterr().out
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o664
    assert file.read_text().startswith("# as my colleague had it\n")
    after = recipe_file.load(file)
    assert after.training.packing
    assert after.model.source == str(file.parent / "model")
    assert main(["fit", str(file), "--gpu-memory", "24GiB", "--json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)["changes"] == {}


def test_what_does_not_fit_names_a_way(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(file), "--gpu-memory", "5GiB", "--json"]) == exits.REFUSED
    card = json.loads(capsys.readouterr().out)["error"]
    assert card["code"] == "fit-none"
    assert "5.0 GiB" in card["what"]
    assert "weights fits" in card["fix"]


def test_rows_that_cannot_be_counted_are_taken_as_full(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "model" / "tokenizer.json").unlink()
    assert main(["fit", str(file), "--gpu-memory", "24GiB", "--json"]) == exits.OK
    said = json.loads(capsys.readouterr().out)
    assert not said["counted"]
    assert said["uncounted_because"]
    assert said["mean_tokens"] == 512


def test_pins_by_name() -> None:
    assert pinned(["batch_size", "model.precision"]) == ("training.batch_size", "model.precision")
    with pytest.raises(FinetuiError, match="no field that is chosen"):
        pinned(["rank"])
