"""Models on this machine and finished runs, and whether a model fits."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from finetui.core import model, model_fit, model_local, recipe_file, system
from finetui.core.errors import FinetuiError
from finetui.core.model_adapter import read_adapter, same_model, with_adapter
from finetui.core.model_facts import ModelFacts
from finetui.core.model_runs import run_models
from finetui.core.recipe import Recipe
from finetui.core.runs import launch, store
from finetui.core.runs.event_log import Record, encode
from finetui.core.runs.events import Ended, Event, Started, Step

from ..hub_server import COMMIT
from .model_files import PARAMETERS, folder, safetensors, snapshot

LORA = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "v_proj"],
    "base_model_name_or_path": "Qwen/Qwen3-0.6B",
}


def adapter(path: Path, **changes: object) -> Path:
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps(LORA | changes))
    (path / "adapter_model.safetensors").write_bytes(safetensors({"x.lora_A.weight": [16, 64]}))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_what_stands_on_this_machine(home: Path) -> None:
    snapshot(home / "hf", "me/whole")
    snapshot(home / "hf", "me/half", model__safetensors=None)
    (home / "hf" / "hub" / "datasets--me--rows").mkdir()
    folder(home / "work" / "here")
    folder(home / "home" / "models" / "mine")
    folder(home / "elsewhere" / "named")
    adapter(home / "work" / "lora")
    (home / "work" / "x.gguf").write_bytes(b"GGUF")
    folder(home / "work" / "pickled", model__safetensors=None, pytorch_model__bin=b"x")
    folder(home / "work" / "broken", model__safetensors=b"")
    (home / "work" / "notes").mkdir()
    (home / "work" / "notes" / "config.json").write_text("{}")
    (home / "work" / "loop").symlink_to(home / "work")

    found = {m.title: m for m in model_local.local_models([home / "elsewhere", home / "nothing-here"])}
    good = {title for title, m in found.items() if not m.problem}
    assert good == {"me/whole", "here", "mine", "named"}
    whole = found["me/whole"]
    assert (whole.source, whole.kind, whole.revision) == ("me/whole", "cache", COMMIT)
    assert whole.parameters == PARAMETERS and whole.bytes > 2 * PARAMETERS and whole.whole
    assert not found["me/half"].whole and "not whole" in found["me/half"].problem
    assert "adapter" in found["lora"].problem and "GGUF" in found["x.gguf"].problem
    assert "pickle" in found["pickled"].problem and "empty" in found["broken"].problem
    assert set(found) == good | {"me/half", "lora", "x.gguf", "pickled", "broken"}
    for one in found.values():
        if not one.problem:
            assert model.inspect(one.source).parameters == PARAMETERS, "what is listed can be chosen"


def test_hostile_names_and_links_do_no_harm(home: Path) -> None:
    place = snapshot(home / "hf", "me/evil")
    (place / "config.json").unlink()
    (place / "config.json").symlink_to("/etc/passwd")
    folder(home / "work" / "a\x1b[31mb\n[@click=app.quit]")
    (home / "hf" / "hub" / "models--..--..--etc").mkdir()
    found = model_local.local_models()
    evil = next(m for m in found if m.source == "me/evil")
    assert "out of the hub's cache" in evil.problem
    assert all("\x1b" not in m.title + m.problem and "\n" not in m.title for m in found)
    assert len(found) == 2


def test_an_empty_machine_has_nothing(home: Path) -> None:
    assert model_local.local_models() == ()
    assert run_models() == ()


def run(name: str, *events: Event, **parts: bool) -> store.RunFolder:
    made = store.create(name)
    recipe_file.save(Recipe(name=name), made.recipe)
    lines = [encode(Record(seq, time.time() - 100 + seq, event)) for seq, event in enumerate(events, 1)]
    made.events.write_bytes(b"".join(lines))
    if parts.get("adapter"):
        adapter(made.adapter)
    if parts.get("merged"):
        folder(made.exports / "merged")
    return made


def test_finished_runs_are_listed_newest_first(home: Path) -> None:
    started = Started("train", 1, 0.0, "somewhere-else", "x")
    step = Step(4, 4, 1.0, 0.5, 1e-4)
    first = run("first", started, step, Ended("train", "completed", 3.0), adapter=True, merged=True)
    run("nothing", started, step, Ended("train", "completed", 3.0))
    stopped = run("stopped", started, step, Ended("train", "stopped", 3.0), adapter=True)
    damaged = run("damaged", started, adapter=True)
    damaged.recipe.write_text("version: 99")
    found = run_models()
    assert {m.run_id for m in found} == {first.id, stopped.id}
    assert [m.run_id for m in found] == sorted((m.run_id for m in found), reverse=True)
    one = next(m for m in found if m.run_id == first.id)
    assert (one.base, one.state, one.best_loss) == ("demo", "completed", 0.5)
    assert one.adapter == first.adapter and one.merged == first.exports / "merged"
    assert one.ended is not None and one.ended.tzinfo is not None
    assert next(m for m in found if m.run_id == stopped.id).merged is None
    facts = read_adapter(first.adapter)
    assert facts.base == "demo", "the run's own recipe names its base"
    recipe = with_adapter(Recipe(), facts)
    assert (recipe.model.source, recipe.model.adapter) == ("demo", str(first.adapter))
    assert (recipe.lora.rank, recipe.lora.alpha) == (16, 32)
    assert recipe.lora.target_modules == ("q_proj", "v_proj")


def test_the_same_weights_under_two_names(home: Path) -> None:
    assert same_model("unsloth/llama-3.2-1b-instruct-unsloth-bnb-4bit", "unsloth/Llama-3.2-1B-Instruct")
    assert same_model("meta-llama/Llama-3.1-8B-Instruct", "unsloth/Llama-3.1-8B-Instruct")
    assert same_model("/x/cache/models/SmolLM2-135M-Instruct-0.1.2", "demo")
    assert same_model("./here", str(home / "work" / "here"))
    assert not same_model("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B")
    assert not same_model("demo", "HuggingFaceTB/SmolLM2-360M-Instruct")


GIB = 1024**3


def machine(gib: float, gpu: bool) -> system.Machine:
    cards = (system.Gpu(0, "card", int(80 * GIB), int((80 - gib) * GIB)),) if gpu else ()
    return system.Machine(4, None, 512 * GIB, int(gib * GIB), None, cards)


def test_fit_is_against_what_is_free_now() -> None:
    eight = 8_030_261_248
    roomy = model_fit.fit(eight, "16bit", machine(78, True))
    assert roomy is not None and roomy.level == "fits" and "78.0 GiB free" in roomy.words
    assert roomy.bytes is not None and eight * 2 < roomy.bytes < eight * 3
    tight = model_fit.fit(eight, "16bit", machine(roomy.bytes / GIB * 1.05, True))
    assert tight is not None and tight.level == "tight" and tight.words.startswith("tight")
    none = model_fit.fit(eight, "16bit", machine(8, True))
    assert none is not None and none.level == "no" and "needs" in none.words
    four = model_fit.fit(eight, "4bit", machine(12, True))
    assert four is not None and four.level in ("fits", "tight")
    on_cpu = model_fit.fit(eight, "4bit", machine(500, False))
    assert on_cpu is not None and (on_cpu.level, on_cpu.words) == ("no", "needs a GPU")
    assert model_fit.fit(None, "16bit", machine(500, False)) is None
    assert model_fit.fit(ModelFacts("x/y", "hub", "y"), "16bit", machine(500, False)) is None
    known = model_fit.fit(model.DEMO_FACTS, "16bit", machine(500, False))
    assert known is not None and known.level == "fits"


@pytest.mark.parametrize("parameters", [0, 1, 135_000_000, 10**9, 7 * 10**10, 10**13])
def test_a_larger_model_never_takes_less(parameters: int) -> None:
    small, large = (
        model_fit.fit(count, "16bit", machine(80, True)) for count in (parameters, parameters * 2 + 10**9)
    )
    if small is not None and small.bytes and large is not None and large.bytes:
        assert small.bytes < large.bytes


def test_an_adapter_as_a_base_offers_its_base(home: Path) -> None:
    place = adapter(home / "work" / "lora")
    with pytest.raises(model.AdapterFound) as caught:
        model.inspect(str(place))
    assert (caught.value.base, caught.value.adapter) == ("Qwen/Qwen3-0.6B", str(place))
    shutil.rmtree(place)
    with pytest.raises(Exception) as gone:
        read_adapter(place)
    assert getattr(gone.value, "code", "") == "adapter-missing"


def test_no_run_is_made_for_an_adapter_that_does_not_belong(home: Path) -> None:
    place = adapter(home / "work" / "lora")
    asked = Recipe()
    recipe = asked.model_copy(update={"model": asked.model.model_copy(update={"adapter": "lora"})})
    assert launch.resolved(recipe).model.adapter == str(place)
    with pytest.raises(FinetuiError) as caught:
        launch.new(recipe)
    assert caught.value.code == "adapter-base" and "Qwen/Qwen3-0.6B" in caught.value.fix
    assert store.all_runs() == []
