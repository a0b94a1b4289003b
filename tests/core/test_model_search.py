"""The search on the hub, with answers that are good, strange, hostile, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core.errors import FinetuiError
from finetui.core.model_search import Hit, _hit, search
from finetui.core.text import clean

from ..hub_server import Hub, running


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield found


def refused(query: str = "qwen") -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        search(query)
    return caught.value


GOOD: dict[str, Any] = {
    "id": "Qwen/Qwen3-0.6B",
    "downloads": 1_000_000,
    "likes": 500,
    "gated": False,
    "lastModified": "2025-07-26T03:46:27.000Z",
    "pipeline_tag": "text-generation",
    "library_name": "transformers",
    "tags": ["safetensors", "license:apache-2.0", "conversational"],
    "safetensors": {"parameters": {"BF16": 596_049_920}, "total": 596_049_920},
}


def test_what_the_hub_tells(server: Hub) -> None:
    server.found = [GOOD, {"id": "me/Thing-Base", "gated": "manual", "cardData": {"license": "mit"}}]
    first, second = search("  qwen\x1b[31m \n 0.6 ", 5)
    assert first == Hit(
        "Qwen/Qwen3-0.6B",
        1_000_000,
        500,
        596_049_920,
        "apache-2.0",
        False,
        date(2025, 7, 26),
        "text-generation",
        "transformers",
        False,
    )
    assert second == Hit("me/Thing-Base", license="mit", gated=True, base=True)
    (asked,) = server.queries
    assert asked["search"] == ["qwen 0.6"] and asked["limit"] == ["5"] and asked["filter"] == ["safetensors"]
    assert asked["pipeline_tag"] == ["text-generation"] and "safetensors" in asked["expand[]"]


def test_hostile_answers_are_cleaned_or_left_out(server: Hub) -> None:
    names = [
        "../../etc/passwd",
        "a/b/c",
        "x" * 500 + "/y",
        "me/[@click=app.quit]",
        "me/\x1b]52;c;x\x07",
        "",
        None,
        7,
    ]
    server.found = [{**GOOD, "id": name} for name in names]
    server.found += [
        {**GOOD, "tags": ["license:\x1b[31mmit"], "downloads": "many", "likes": -1, "safetensors": []}
    ]
    (hit,) = search("x")
    assert (hit.license, hit.downloads, hit.likes, hit.parameters) == ("mit", None, None, None)


def test_a_hub_in_trouble(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status, server.retry_after = 429, "42"
    card = refused()
    assert card.code == "hub-busy" and "42 s" in card.fix
    server.retry_after = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert "a minute" in refused().fix
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCanary")
    for status in (403, 500, 503, 404):
        server.status = status
        card = refused()
        assert card.code == "hub-failed" and str(status) in card.why and "canary" not in str(card)
    server.status = None
    server.found = {"error": "no"}  # type: ignore[assignment]
    assert refused().code == "hub-failed"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused().code == "hub-offline"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refused().why


def test_an_answer_without_end_is_cut(server: Hub) -> None:
    server.found = [{**GOOD, "padding": "x" * 17 * 1024 * 1024}]
    assert refused().code in ("hub-failed", "hub-offline")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries(dict.fromkeys(GOOD, VALUES)))
def test_no_answer_breaks_it(told: dict[str, Any]) -> None:
    hit = _hit(json.loads(json.dumps(told)) | {"id": "me/x"})
    words = hit.license + hit.pipeline + hit.library if hit else ""
    assert clean(words) == words and "\n" not in words
