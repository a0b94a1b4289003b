"""What the wizard says to a source that cannot be used: what, why and how to mend it; nothing is lost, nothing starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from finetui.core import paths
from finetui.core.draft import Draft
from finetui.core.recipe import DatasetSection, ModelSection, Recipe
from finetui.core.runs import events, store
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.screens.step import StepScreen
from tests.hub_server import Hub, running
from tests.tui import recorded
from tests.tui.driving import SIZES, at_step, press, seen, type_over, until, wizard
from tests.worker import tiny

TOKEN = "hf_canaryInTheWizard"
MARKUP = "[@click=app.quit]x[$primary] [bold]y"
"""Obeyed where text is taken for Textual's markup. A file name cannot hold a slash."""
NASTY = f"[/ {MARKUP}[/] [link=http://e.vil]z[/link] \x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202egnp \\["
both_sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("HF_HUB_CACHE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield server


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and datasets, one of each kind of trouble, beside a good one of each."""
    folder = tmp_path_factory.mktemp("sources")
    tiny.make(folder / "good")
    tiny.write_rows(folder / "good.jsonl", 20)
    tiny.make(folder / "base", chat_template=None)
    (folder / "nothing").mkdir()
    (folder / "packed.gguf").write_bytes(b"GGUF" + bytes(60))
    (folder / "lora").mkdir()
    (folder / "lora" / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/their-base"}')
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"):
        cut = shutil.copytree(folder / "good", folder / f"cut-{name}")
        content = (cut / name).read_bytes()
        (cut / name).write_bytes(content[: len(content) // 2])
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "list.json").write_text("[]")
    (folder / "colours.jsonl").write_text('{"colour": "red"}\n{"colour": "blue"}\n')
    (folder / "prose.jsonl").write_text("once upon a time\n")
    days = [json.dumps({"text": f"Day {n}. The rain fell on the grey roofs of the town."}) for n in range(30)]
    (folder / "days.jsonl").write_text("\n".join(days))
    return folder


MODELS = {
    "missing": ("There is no folder", "Check the spelling"),
    "nothing": ("is not a model", "no config.json", "tokenizer"),
    "packed.gguf": ("is a GGUF", "packed for llama.cpp", "Choose the original model"),
    "lora": ("is an adapter", "somebody/their-base"),
    "base": ("has no chat template", "goes on with a text", "instruct version"),
    "good.jsonl": ("is a file, not a folder",),
    "cut-model.safetensors": ("is broken", "is cut off", "Download that file again"),
    "cut-tokenizer.json": ("is broken", "tokenizer.json is empty or cut off", "Download that file again"),
    "cut-tokenizer_config.json": ("is broken", "tokenizer_config.json cannot be read"),
    "cut-config.json": ("is broken", "config.json cannot be read"),
}
DATASETS = {
    "missing.jsonl": ("There is no file", "Check the spelling"),
    "empty.jsonl": ("is empty", "holds no rows", "Choose a file of examples"),
    "list.json": ("has no rows", "not a single example"),
    "colours.jsonl": ("format of this dataset is not known", "colour", "Say which column is what"),
    "prose.jsonl": ("cannot be read as a dataset", "Line 1", "one JSON object"),
    "good": ("is a folder with a model",),
}


def flat(text: str) -> str:
    """The words on the screen, without the frame's bars and the breaks."""
    return " ".join(text.replace("│", " ").split())


def some(cases: dict[str, tuple[str, ...]], size: tuple[int, int]) -> list[tuple[str, tuple[str, ...]]]:
    """All cases on the small screen, where they hardly fit; every third on the large one."""
    return list(cases.items())[:: 1 if size == SIZES[0] else 3]


async def begun(app: FinetuiApp, pilot: Pilot[int], recipe: Recipe, step: str) -> None:
    app.go_home()
    await pilot.pause()
    app.begin(recipe, step=step)
    await at_step(app, pilot, step)


async def refused(app: FinetuiApp, pilot: Pilot[int], step: str) -> str:
    """Waits for the trouble of `step`, tries to go on, and returns what the card says; the step is shown again."""
    await until(pilot, lambda: app.wizard.trouble(step) is not None, f"for what is wrong with {step}")
    trouble = app.wizard.trouble(step)
    assert trouble is not None and trouble.what and trouble.why and trouble.fix, trouble
    await until(pilot, lambda: flat(trouble.what)[:30] in flat(seen(app)), "for it on the step itself")
    screen = app.screen
    assert isinstance(screen, StepScreen)
    screen.action_next()
    await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
    await until(pilot, lambda: flat(trouble.what)[:20] in flat(seen(app)), "for its words")
    assert isinstance(app.screen, ErrorCard) and app.screen.error == trouble
    text = seen(app)
    assert "Traceback" not in text and "\x1b" not in text and TOKEN not in text
    await press(pilot, "escape")
    assert app.screen is screen
    return f"{trouble.what} {trouble.why} {trouble.fix}"


def nothing_started() -> bool:
    return store.all_runs() == []


@both_sizes
async def test_a_model_that_cannot_be_tuned(sources: Path, size: tuple[int, int]) -> None:
    recipe = Recipe()
    async with wizard(size) as (app, pilot):
        for name, hints in some(MODELS, size):
            rows = DatasetSection(source=str(sources / "good.jsonl"))
            recipe = Recipe(name="mine", model=ModelSection(source=str(sources / name)), dataset=rows)
            await begun(app, pilot, recipe, "model")
            said = await refused(app, pilot, "model")
            for hint in hints:
                assert hint in said, (name, said)
            assert app.wizard.draft.recipe() == recipe
        await until(pilot, lambda: Draft.load() is not None, "for the saved draft")
    assert nothing_started()
    kept = Draft.load()
    assert kept is not None and kept.recipe() == recipe


@both_sizes
async def test_a_dataset_that_cannot_be_used(sources: Path, size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        for name, hints in some(DATASETS, size):
            recipe = Recipe(name="mine", dataset=DatasetSection(source=str(sources / name)))
            await begun(app, pilot, recipe, "dataset")
            said = await refused(app, pilot, "dataset")
            for hint in hints:
                assert hint in said, (name, said)
            assert app.wizard.draft.recipe() == recipe
    assert nothing_started()


async def test_a_typed_mistake_is_told_and_mended_in_place(sources: Path) -> None:
    async with wizard() as (app, pilot):
        await begun(app, pilot, Recipe(model=ModelSection(source=str(sources / "lora"))), "model")
        await until(pilot, lambda: "is an adapter" in flat(seen(app)), "for the adapter's card")
        app.screen.query_one("#model-filter").focus()
        await pilot.pause()
        await type_over(pilot, str(sources / "good") + "\u202e")
        await press(pilot, "enter")
        await until(pilot, lambda: app.wizard.problem("model.source") is not None)
        await until(pilot, lambda: "holds a control character" in flat(seen(app)), "for the sentence")
        await type_over(pilot, str(sources / "good"))
        await press(pilot, "enter")
        await at_step(app, pilot, "dataset")
        assert app.wizard.trouble("model") is None and app.wizard.draft["model.source"] == str(
            sources / "good"
        )


async def test_a_base_model_is_for_plain_writing(sources: Path) -> None:
    """Without a chat template it may be chosen first: the demo's rows are what does not fit, and a text file does."""
    async with wizard((120, 36)) as (app, pilot):
        model = ModelSection(source=str(sources / "base"))
        await begun(app, pilot, Recipe(name="writer", model=model), "model")
        await until(
            pilot, lambda: app.wizard.trouble("dataset") is not None, "for the demo's rows to be refused"
        )
        assert app.wizard.trouble("model") is None
        await until(pilot, lambda: "none: it learns" in flat(seen(app)))
        screen = app.screen
        assert isinstance(screen, StepScreen)
        screen.action_next()
        await at_step(app, pilot, "dataset")
        assert "has no chat template" in await refused(app, pilot, "dataset")
        screen = app.screen
        assert isinstance(screen, StepScreen)
        screen.set_value("dataset.source", str(sources / "days.jsonl"))
        await until(pilot, lambda: app.wizard.inspection.complete is not None, "for every text")
        assert app.wizard.format == "text" and app.wizard.draft["dataset.format"] == "auto"
        assert app.wizard.trouble("model") is None and app.wizard.trouble("dataset") is None
        screen.set_value("dataset.source", str(sources / "good.jsonl"))
        await until(pilot, lambda: app.wizard.trouble("model") is not None, "for conversations of one's own")
        app.go("model")
        await at_step(app, pilot, "model")
        assert "choose a dataset of plain writing" in await refused(app, pilot, "model")


async def test_start_waits_for_no_look_and_still_refuses(sources: Path) -> None:
    """Whoever is faster than the look gets the same card, before a run is made."""
    async with wizard() as (app, pilot):
        model = ModelSection(source=str(sources / "base"))
        recipe = Recipe(name="hasty", model=model, dataset=DatasetSection(source=str(sources / "good.jsonl")))
        await begun(app, pilot, recipe, "training")
        app.looking.inspect("model")  # a look that has not begun
        app.start_run()
        await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
        assert isinstance(app.screen, ErrorCard) and app.screen.error.code == "model-no-chat-template"
        assert app.wizard.draft.recipe() == recipe
    assert nothing_started() and paths.draft().exists()


@both_sizes
async def test_4bit_without_a_gpu_is_refused_before_the_start(sources: Path, size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        model = ModelSection(source=str(sources / "good"), precision="4bit")
        await begun(app, pilot, Recipe(model=model), "model")
        await until(pilot, lambda: app.wizard.machine is not None and app.wizard.model_facts is not None)
        assert app.wizard.machine is not None
        if app.wizard.machine.has_gpu:  # here it can be done
            await pilot.pause()
            assert "4-bit needs" not in flat(seen(app))
            return
        await until(pilot, lambda: "4-bit needs an NVIDIA GPU" in flat(seen(app)), "for the warning")
        app.go("training")
        await at_step(app, pilot, "training")
        await until(pilot, lambda: app.wizard.dataset_facts is not None)
        app.screen.action_next()  # type: ignore[attr-defined]
        await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
        assert isinstance(app.screen, ErrorCard) and app.screen.error.code == "precision-4bit"
        await until(pilot, lambda: "Set Precision to 16bit" in flat(seen(app)), "for what to do")
    assert nothing_started()


async def test_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for offline, why in (("1", "HF_HUB_OFFLINE is set"), ("0", "No answer from http://127.0.0.1:9")):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        async with wizard() as (app, pilot):
            recipe = Recipe(model=ModelSection(source="a/b"), dataset=DatasetSection(source="c/d"))
            await begun(app, pilot, recipe, "model")
            for step, source in (("model", "a/b"), ("dataset", "c/d")):
                app.go(step)
                await at_step(app, pilot, step)
                said = await refused(app, pilot, step)
                assert said.startswith(f"{source} is not on this machine") and why in said and "demo" in said
            assert app.wizard.draft.recipe() == recipe


async def test_the_hub_refuses_a_dataset_or_asks_to_choose(hub: Hub, sources: Path) -> None:
    rows = (sources / "good.jsonl").read_bytes()
    configs = (
        "configs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: de\n  data_files: de.jsonl\n"
    )
    several = {"README.md": f"---\n{configs}---\n".encode(), "en.jsonl": rows, "de.jsonl": rows}
    hub.add("datasets", "me/gated", {"train.jsonl": rows}, gated=True)
    hub.add("datasets", "me/several", several)
    cases = {
        "me/gated": ("is gated", "Accept the terms"),
        "me/several": ("has several configurations", "en, de"),
    }
    async with wizard((120, 36)) as (app, pilot):
        for source, hints in cases.items():
            await begun(app, pilot, Recipe(dataset=DatasetSection(source=source)), "dataset")
            said = await refused(app, pilot, "dataset")
            for hint in hints:
                assert hint in said, (source, said)
    for file in (path for path in paths.data().rglob("*") if path.is_file()):
        assert TOKEN.encode() not in file.read_bytes(), file


async def test_a_home_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "file"))
    app = FinetuiApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: app.screen.query("#menu"), "for Home")
        await begun(app, pilot, Recipe(name="kept"), "training")
        await until(pilot, lambda: "The draft cannot be saved" in flat(seen(app)), "for the warning")
        await until(
            pilot, lambda: app.wizard.model_facts is not None and app.wizard.dataset_facts is not None
        )
        app.start_run()
        await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
        assert isinstance(app.screen, ErrorCard) and app.screen.error.code == "run-folder"
        assert "FINETUI_HOME" in app.screen.error.fix
        await press(pilot, "escape")
        assert app.screen.step == "training"  # type: ignore[attr-defined]
        assert app.wizard.draft.recipe().name == "kept"


@both_sizes
async def test_hostile_names_and_rows_are_shown_and_not_obeyed(
    tmp_path: Path, sources: Path, size: tuple[int, int]
) -> None:
    model = shutil.copytree(sources / "good", tmp_path / f"m {MARKUP}")
    rows = [
        {"messages": [{"role": "user", "content": NASTY + str(n)}, {"role": "assistant", "content": NASTY}]}
        for n in range(20)
    ]
    file = tmp_path / f"d {MARKUP}.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    wrong = tmp_path / f"w {MARKUP}.jsonl"
    wrong.write_text(json.dumps({NASTY: 1, MARKUP: 2}) + "\n")
    async with wizard(size) as (app, pilot):

        async def click_all(hint: str) -> None:
            await until(pilot, lambda: hint in flat(seen(app)).replace(" ", ""), f"for {hint}")
            lines = seen(app).splitlines()
            assert not any(bad in "".join(lines) for bad in "\x1b\x07\x9b\u202e")
            spots = [(line.find("x[$"), y) for y, line in enumerate(lines) if "x[$" in line]
            for x, y in spots[:4]:
                await pilot.click(offset=(x, y))
                await pilot.pause()
            assert app.is_running and app.return_value is None

        recipe = Recipe(model=ModelSection(source=str(model)), dataset=DatasetSection(source=str(file)))
        await begun(app, pilot, recipe, "model")
        await until(
            pilot, lambda: app.wizard.model_facts is not None and app.wizard.dataset_facts is not None
        )
        await click_all("[@click=app.quit]")
        app.go("dataset")
        await at_step(app, pilot, "dataset")
        await click_all("[/[@click=app.quit]")
        app.go("export")
        await at_step(app, pilot, "export")
        await press(pilot, "question_mark")
        await press(pilot, "escape")
        await begun(app, pilot, Recipe(dataset=DatasetSection(source=str(wrong))), "dataset")
        said = await refused(app, pilot, "dataset")
        assert "[@click=app.quit]x[$primary]" in said
        await begun(app, pilot, Recipe(model=ModelSection(source=str(tmp_path / f"no {MARKUP}"))), "model")
        assert f"no {MARKUP}" in await refused(app, pilot, "model")


@both_sizes
async def test_a_hostile_run_is_shown_and_not_obeyed(size: tuple[int, int]) -> None:
    """Its name, its log, its samples and the card of its end, on Home, on the dashboard and on the error's card."""
    recording = recorded.new().started().ready().train(1, 3, every=0)
    recording.add(
        events.Started("train", 1, 0.0, NASTY, NASTY),
        events.Progress("load", 1, 2, "rows", NASTY),
        events.Sample(0, 0, NASTY, NASTY, NASTY),
        events.Warned("odd", NASTY, NASTY, NASTY),
        events.Ended(
            "train", "failed", 60.0, f"The end: {NASTY}", f"why {NASTY}", f"fix {NASTY}", "run-failed"
        ),
    )
    recording.run.log.write_bytes(f"{NASTY}\n{NASTY}\n".encode())
    literal = "[/ [@click=app.quit]x[$primary]"
    async with wizard(size) as (app, pilot):

        async def click_all(where: str) -> None:
            text = seen(app)
            assert not any(bad in text for bad in "\x1b\x07\x9b\u202e"), where
            lines = text.splitlines()
            for y, line in enumerate(lines):
                if "x[$" in line:
                    await pilot.click(offset=(line.find("x[$"), y))
                    await pilot.pause()
                    assert app.is_running and app.return_value is None, where

        await until(pilot, lambda: "failed" in seen(app), "for the run on Home")
        await until(pilot, lambda: "[@click" in seen(app), "for its name")
        assert not any(bad in seen(app) for bad in "\x1b\x07\x9b\u202e")
        app.open_run(recording.run.path)
        await until(pilot, lambda: literal in flat(seen(app)), "for the card of its end")
        for key in ("1", "2", "3", "4", "5", "6"):
            await press(pilot, key)
            await click_all(f"pane {key}")
        await press(pilot, "2")
        await until(pilot, lambda: literal in flat(seen(app)), "for the log")
        await press(pilot, "question_mark")
        await press(pilot, "escape")
        assert app.is_running
