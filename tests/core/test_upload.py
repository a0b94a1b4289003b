"""What is said and refused before anything is uploaded, and the card that goes along."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from finetui.core import leaving, model_card, recipe_file, upload
from finetui.core.errors import FinetuiError
from finetui.core.model_card import License
from finetui.core.recipe import DatasetSection, ModelSection, Recipe
from finetui.core.runs import events
from finetui.core.runs.store import RunFolder

from ..hub_server import Hub, reach, running
from ..outgoing import SECRET_ROW, finished_run
from ..tui import recorded


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        more = {"HF_TOKEN": "hf_canaryCanaryCanary", "FINETUI_HOME": str(tmp_path / "home")}
        reach(monkeypatch, found, tmp_path / "hf", **more)
        yield found


def refused(
    run: RunFolder, code: str, to: str = "", *, public: bool = False, replace: bool = False
) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        upload.plan(run, (), to, public=public, replace=replace)
    assert caught.value.code == code, str(caught.value)
    return caught.value


def test_the_plan_says_all_before_anything_goes(hub: Hub) -> None:
    run = finished_run()
    plan = upload.plan(run)
    assert (plan.repo, plan.private, plan.formats) == ("me/demo", True, ("adapter",)), (
        "the adapter, privately, to me"
    )
    text = "\n".join(plan.lines())
    for word in (plan.url, "private", "apache-2.0", "adapter_model.safetensors", "97.7 KiB", "README.md"):
        assert word in text, word
    assert plan.as_json()["bytes"] == sum(file["bytes"] for file in plan.as_json()["files"]) == plan.bytes
    assert "PUBLIC" in "\n".join(upload.plan(run, (), "ours/model", public=True).lines())
    assert upload.plan(run, ("gguf_q8_0",), "other").repo == "me/other"
    assert not [path for method, path, _ in hub.requests if method != "GET"], "asking changes nothing"


def test_tokens_that_cannot_write(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(("adapter",))
    assert hub.uploads.account is not None
    hub.uploads.account["auth"]["accessToken"]["role"] = "read"
    assert "settings/tokens" in refused(run, "hub-no-rights").fix
    hub.uploads.account = None
    refused(run, "hub-token")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(run, "hub-offline")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_TOKEN")
    before = len(hub.requests)
    refused(run, "hub-no-token")
    assert len(hub.requests) == before


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(finished_run(("adapter",)), "hub-offline")


def test_repositories_that_are_there(hub: Hub) -> None:
    run = finished_run(("adapter",))
    hub.add("models", "me/full", {"README.md": b"mine", "model.safetensors": b"x"}, private=True)
    assert "README.md" in refused(run, "upload-exists", "me/full").why
    plan = upload.plan(run, (), "me/full", replace=True)
    assert plan.exists and plan.others == ("README.md", "model.safetensors")
    assert "2 of them not from this run" in "\n".join(plan.lines())
    hub.add("models", "me/open", {".gitattributes": b""})
    refused(run, "upload-public", "me/open")
    assert not upload.plan(run, (), "me/open", public=True).private
    hub.add("models", "me/hidden", {}, private=True)
    assert upload.plan(run, (), "me/hidden", public=True).private, "an upload does not open what is closed"
    hub.add("models", "me/busy", {}, status=429, retry_after="90")
    assert "1 min 30 s" in refused(run, "hub-busy", "me/busy").fix


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "-x/y",
        "me/-x",
        "me/..",
        "a/b/c",
        "me/a--b",
        "me/x.git",
        "me/x\n",
        "me/",
        "/x",
        "me/" + "a" * 100,
    ],
)
def test_names_that_are_none(hub: Hub, name: str) -> None:
    refused(finished_run(("adapter",)), "hub-name", name)
    assert not hub.requests


def test_run_names_that_the_hub_would_refuse() -> None:
    assert upload.hub_name("a--b..c") == "a-b-c" and upload.hub_name("x.-") == "x"


def test_what_is_not_exported_is_said(hub: Hub) -> None:
    run = finished_run(("gguf_q8_0",))
    assert upload.plan(run).formats == ("gguf_q8_0",), "without an adapter, what there is"
    with pytest.raises(FinetuiError) as caught:
        upload.plan(run, ("merged",))
    assert caught.value.code == "export-missing" and "--format merged" in caught.value.fix


def test_the_card_tells_base_data_recipe_losses_and_proof(hub: Hub) -> None:
    run = finished_run()
    exports = leaving.finished(run)
    text = model_card.write(run, exports, License("apache-2.0"), "me/demo")
    head = yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["base_model"]) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")
    for words in (
        "333 trained on, 40 held out",
        "rank 16, alpha 32",
        "Best held-out loss",
        "37 (base: 0)",
        "**same**",
    ):
        assert words in text, words
    assert SECRET_ROW not in text and not [p for p in recorded.PROMPTS if p in text], "no row is quoted"
    assert "ollama run hf.co/me/demo:Q8_0" in text and "subfolder='adapter'" in text


@pytest.mark.parametrize("formats", [("merged_4bit",), ("merged", "merged_4bit")])
def test_a_four_bit_model_leaves_beside_the_others(hub: Hub, formats: tuple[str, ...]) -> None:
    run = finished_run()
    for format in formats:
        folder = run.exports / format
        folder.mkdir(exist_ok=True)
        for name in ("model.safetensors", "config.json", "ask.py"):
            (folder / name).write_text("{}")
    exports = tuple(done for done in leaving.finished(run) if done.format in (*formats, "adapter"))
    text = model_card.write(run, exports, License("apache-2.0"), "me/demo")
    names = {item.name for item in leaving.items(recipe_file.load(run.recipe), exports, text)}
    apart = "merged_4bit/" if "merged" in formats else ""
    assert {f"{apart}model.safetensors", "model.safetensors", "adapter/adapter_model.safetensors"} <= names
    serve = "vllm serve me/demo --served-model-name demo --quantization bitsandbytes"
    assert (serve in text) == (not apart), "vLLM takes a repository's root only"
    where = ", subfolder='merged_4bit'" if apart else ""
    assert f"AutoModelForCausalLM.from_pretrained('me/demo'{where})" in text and "bitsandbytes" in text
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "transformers"
    here = dict(model_card.usage(recipe_file.load(run.recipe), exports))
    assert here["Ask the 4-bit model"] == f'python {apart}ask.py "Hello!"'
    assert f"vllm serve {'./merged_4bit' if apart else '.'} " in here["Serve the 4-bit model with vLLM"]


@pytest.mark.parametrize("place", ["", "me/demo"])
def test_vllm_is_told_of_the_rank_and_given_no_dora(place: str) -> None:
    run = finished_run(("adapter",))
    recipe, exports = recipe_file.load(run.recipe), leaving.finished(run)
    for changed, words, told in (
        ({"rank": 64}, True, "--max-lora-rank 64"),
        ({"dora": True}, False, "vLLM takes no adapter with DoRA; it serves the merged model."),
    ):
        lora = recipe.lora.model_copy(update=changed)
        recipe_file.save(recipe.model_copy(update={"lora": lora}), run.recipe)
        text = model_card.write(run, exports, License(), place)
        assert ("vllm serve" in text) == words and told in text


def hostile(tmp_path: Path) -> RunFolder:
    """A run from a folder and a file of this machine, whose names try to be Markdown and YAML."""
    base = tmp_path / "models" / "base](javascript:x) | `y`\nlicense: mit"
    base.mkdir(parents=True)
    rows = tmp_path / "rows <script>.jsonl"
    rows.write_text("{}")
    recipe = Recipe(
        name="mine",
        model=ModelSection(source=str(base).replace("\n", " ")),
        dataset=DatasetSection(source=str(rows)),
    )
    base.rename(recipe.model.source)
    run = recorded.new(recipe).started().ready().train(1, 3).run
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(b"x")
    return run


def test_outside_names_are_text_and_paths_stay_here(tmp_path: Path, hub: Hub) -> None:
    run = hostile(tmp_path)
    plan = upload.plan(run, (), "me/x")
    text = next(item.content for item in plan.items if item.name == "README.md")
    assert text is not None
    words = text.decode()
    assert str(tmp_path) not in words
    shown = re.sub(r"^```.*?^```$", "", words, flags=re.M | re.S).replace("\\]", "").replace("\\<", "")
    assert "](javascript" not in shown and "<script>" not in shown
    assert "license" not in yaml.safe_load(words.split("---")[1]), "unknown is said as unknown"
    assert "is unknown" in words and "names none" in "\n".join(plan.lines())


def test_the_licence_of_a_folder_and_of_the_hub(tmp_path: Path, hub: Hub) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: odd-1\nlicense_link: https://odd.example/1\n---\n# Base\n"
    )
    found = model_card.base_license(Recipe(model=ModelSection(source=str(folder))))
    assert found == License("other", "odd-1", "https://odd.example/1") and found.words == "odd-1"
    hub.add("models", "them/base", {"config.json": b"{}"}, info={"cardData": {"license": "llama3.2"}})
    assert model_card.base_license(Recipe(model=ModelSection(source="them/base"))).license == "llama3.2"
    assert model_card.base_license(Recipe(model=ModelSection(source="them/none"))) == License()
    (folder / "README.md").write_bytes(b"---\nlicense: [\xff\n---")
    assert model_card.license_in(folder / "README.md") == License()


def test_a_broken_export_says_so_without_its_paths(hub: Hub) -> None:
    run = finished_run(("adapter",))
    file = run.exports / "adapter/proof.json"
    told = json.loads(file.read_text()) | {
        "verdict": "broken",
        "sentence": "PEFT cannot open it: /home/me/run/x",
    }
    file.write_text(json.dumps(told))
    plan = upload.plan(run)
    assert "The proof says of Adapter (LoRA): broken." in plan.lines()
    card = next(item.content for item in plan.items if item.name == "README.md")
    assert card is not None and b"**broken**" in card and b"/home/me" not in card


def test_without_a_chat_template_or_score_the_card_still_stands(hub: Hub) -> None:
    run = recorded.new().started().run
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(b"x")
    recorded.Recording(run).add(events.Ended("train", "stopped", 1.0))
    assert "Last training loss" not in model_card.write(run, leaving.finished(run), License())
    assert recipe_file.load(run.recipe).name in model_card.write(run, leaving.finished(run), License())
