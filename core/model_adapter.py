"""An adapter on disk: what it was trained on, and with which shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import get_args

from .errors import FinetuiError
from .model_files import read_json
from .model_weights import safetensors_header
from .recipe import DEMO, Recipe, TargetModule
from .text import one_line

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter_config.json says."""

    folder: Path
    base: str
    """The model that it belongs on: a hub id, or a path."""
    rank: int
    alpha: int
    target_modules: tuple[TargetModule, ...]
    rslora: bool = False
    parameters: int | None = None
    bytes: int = 0


def read_adapter(folder: Path) -> AdapterFacts:
    """The facts of the adapter in `folder`. Raises FinetuiError (adapter-missing, adapter-broken)."""
    folder = folder.expanduser()
    shown = one_line(str(folder), 160)
    try:
        size = (folder / WEIGHTS).stat().st_size
        there = (folder / SETTINGS).is_file()
    except (OSError, ValueError):
        size, there = 0, False
    if not there or not size:
        raise FinetuiError(
            f"There is no adapter in {shown}.",
            f"An adapter is a folder with {SETTINGS} and {WEIGHTS}.",
            "Name the folder `adapter` of a finished run, or leave the adapter empty to start a new one.",
            code="adapter-missing",
        )
    told = read_json(folder / SETTINGS, "The adapter")
    kind = told.get("peft_type")
    rank, alpha, targets = told.get("r"), told.get("lora_alpha"), told.get("target_modules")
    if kind != "LORA" or not isinstance(rank, int) or not isinstance(alpha, (int, float)):
        raise _broken(shown, f"Its {SETTINGS} describes no LoRA (peft_type {one_line(str(kind), 40)}).")
    modules = _modules(targets)
    if modules is None:
        raise _broken(
            shown,
            f"It adapts {one_line(str(targets), 120)}; finetui adapts {', '.join(get_args(TargetModule))}.",
        )
    for name in ("modules_to_save", "rank_pattern", "alpha_pattern", "use_dora", "layers_to_transform"):
        if told.get(name):
            raise _broken(shown, f"It uses {name}, with which training cannot be gone on from a folder.")
    base = told.get("base_model_name_or_path")
    header, _size = safetensors_header(folder / WEIGHTS, "The adapter")
    shapes = [t.get("shape") for t in header.values() if isinstance(t, dict) and "data_offsets" in t]
    return AdapterFacts(
        folder=folder.absolute(),
        base=_base_of_run(folder) or (one_line(base, 300) if isinstance(base, str) else ""),
        rank=rank,
        alpha=int(alpha),
        target_modules=modules,
        rslora=bool(told.get("use_rslora")),
        parameters=sum(prod(shape) for shape in shapes if isinstance(shape, list)),
        bytes=size,
    )


def fetch_adapter(repository: str) -> AdapterFacts:
    """The facts of the hub's adapter `repository`, fetched into the hub's cache where it is not there. Blocking.

    Raises FinetuiError: hub-…, adapter-missing (no safetensors), adapter-broken.
    """
    from . import hub

    place = hub.cached_snapshot(repository, "model") if hub.is_offline() else _fetched(repository)
    if place is None:
        raise hub.offline_card(repository, "model", "The environment forbids the hub (HF_HUB_OFFLINE).")
    return read_adapter(place)


def _fetched(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    from . import hub
    from .secrets import hub_token

    hub.quiet()
    try:
        return Path(
            snapshot_download(
                repository,
                allow_patterns=[SETTINGS, WEIGHTS],
                token=hub_token() or False,
                endpoint=hub.endpoint(),
                cache_dir=hub.cache_folder(),
                etag_timeout=hub.TIMEOUT_SECONDS,
            )
        )
    except Exception as error:  # the edge of huggingface_hub
        raise hub.card(error, repository, "model") from error


def _broken(shown: str, why: str) -> FinetuiError:
    return FinetuiError(
        f"The adapter in {shown} cannot be gone on from.",
        why,
        "Name the adapter of a finetui run, or of another LoRA over these layers.",
        code="adapter-broken",
    )


def _modules(targets: object) -> tuple[TargetModule, ...] | None:
    """The layers in the recipe's order. A pattern, as Unsloth writes it, names them too."""
    if isinstance(targets, str):
        found = set(re.findall(r"\b([a-z_]+_proj)\b", targets))
    elif isinstance(targets, list):
        found = {str(one) for one in targets}
    else:
        return None
    known = get_args(TargetModule)
    return tuple(m for m in known if m in found) if found and found <= set(known) else None


def _base_of_run(folder: Path) -> str:
    """The model of the run that the adapter lies in, as its recipe names it; empty where it lies in none."""
    from . import recipe_file

    for place in (folder.parent, folder.parent.parent):
        file = place / "recipe.yaml"
        if file.is_file():
            try:
                return recipe_file.load(file).model.source
            except FinetuiError:
                return ""
    return ""


def with_adapter(recipe: Recipe, facts: AdapterFacts, source: str | None = None) -> Recipe:
    """`recipe` going on from the adapter: its folder, its base (or `source`) as the model, and its shape as the LoRA's."""
    model = recipe.model.model_copy(
        update={"source": source or facts.base or recipe.model.source, "adapter": str(facts.folder)}
    )
    lora = recipe.lora.model_copy(
        update={
            "rank": facts.rank,
            "alpha": facts.alpha,
            "target_modules": facts.target_modules,
            "rslora": facts.rslora,
            "initialization": "default",
        }
    )
    return recipe.model_copy(update={"model": model, "lora": lora})


def check_adapter(recipe: Recipe) -> AdapterFacts | None:
    """The adapter that `recipe` goes on from, if any. Raises FinetuiError: adapter-missing, adapter-broken, adapter-base
    (it belongs on another model), adapter-shape (another rank, alpha or layers)."""
    if not recipe.model.adapter:
        return None
    facts = read_adapter(Path(recipe.model.adapter))
    if facts.base and not same_model(facts.base, recipe.model.source):
        raise FinetuiError(
            "The adapter belongs on another model.",
            f"It was trained on {facts.base}, and the recipe's model is {one_line(recipe.model.source, 160)}.",
            f"Set the model to {facts.base}, or leave the adapter empty to start a new one.",
            code="adapter-base",
        )
    lora = recipe.lora
    wanted = (lora.rank, lora.alpha, set(lora.target_modules), lora.rslora)
    if wanted != (facts.rank, facts.alpha, set(facts.target_modules), facts.rslora):
        raise FinetuiError(
            "The adapter has another shape than the recipe asks for.",
            f"Going on keeps what it has: rank {facts.rank}, alpha {facts.alpha}, rank-stabilised scaling "
            f"{'on' if facts.rslora else 'off'}, on {', '.join(facts.target_modules)}. The recipe says rank {lora.rank}, "
            f"alpha {lora.alpha}, {'on' if lora.rslora else 'off'}, on {', '.join(lora.target_modules)}.",
            "Set the LoRA step to the adapter's values, or leave the adapter empty to start a new one.",
            code="adapter-shape",
        )
    return facts


def same_model(one: str, other: str) -> bool:
    """Whether two names are of the same weights: equal, the same path, a mirror or a 4-bit version of the same name."""
    if one == other:
        return True
    try:
        if Path(one).expanduser().resolve() == Path(other).expanduser().resolve():
            return True
    except (OSError, RuntimeError, ValueError):
        pass
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    if name == DEMO:
        name = "SmolLM2-135M-Instruct"
    last = name.rstrip("/").rpartition("/")[2].lower()
    last = re.sub(
        r"^smollm2-135m-instruct-[\d.]+$", "smollm2-135m-instruct", last
    )  # the prepared demo's folder
    for ending in ("-unsloth-bnb-4bit", "-bnb-4bit"):
        last = last.removesuffix(ending)
    return last.removeprefix("meta-")
