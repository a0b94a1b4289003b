"""Searching the hub for models that can be tuned here. Blocking: call it from a thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode

from . import hub, hub_http
from .errors import FinetuiError
from .model_facts import is_base
from .secrets import hub_token, redact
from .text import one_line

_FIELDS = (
    "cardData",
    "downloads",
    "gated",
    "lastModified",
    "library_name",
    "likes",
    "pipeline_tag",
    "safetensors",
    "tags",
)
"""What the hub is asked to tell of each model."""


@dataclass(frozen=True)
class Hit:
    """A model that the hub found. None is not told by the hub."""

    id: str
    downloads: int | None = None
    """In the last 30 days, as the hub counts."""
    likes: int | None = None
    parameters: int | None = None
    license: str = ""
    gated: bool = False
    updated: date | None = None
    pipeline: str = ""
    library: str = ""
    base: bool | None = None
    """A base model, which was never shown conversations; False for an instruct model."""


def search(query: str, limit: int = 30) -> tuple[Hit, ...]:
    """The hub's text-generation models with safetensors that match `query`, the most downloaded first.

    Raises FinetuiError: hub-offline, hub-busy (with the time that the hub asks to wait), hub-failed.
    """
    if hub.is_offline():
        raise _offline("HF_HUB_OFFLINE is set.")
    words = one_line(query, 100)
    asked = [
        ("search", words),
        ("pipeline_tag", "text-generation"),
        ("filter", "safetensors"),
        ("sort", "downloads"),
        ("direction", "-1"),
        ("limit", str(max(1, min(limit, 100)))),
        *(("expand[]", name) for name in _FIELDS),
    ]
    try:
        found = hub_http.read_json("/api/models", urlencode([pair for pair in asked if pair[1]]))
    except Exception as error:  # the edge of httpx and huggingface_hub
        raise _card(error) from error
    if not isinstance(found, list):
        raise FinetuiError(
            "The hub's answer cannot be understood.",
            "It is no list of models.",
            "Try again in a while, or type the whole name owner/name.",
            code="hub-failed",
        )
    hits = [hit for one in found if isinstance(one, Mapping) and (hit := _hit(one)) is not None]
    return tuple(hits[:limit])


def _hit(told: Mapping[str, Any]) -> Hit | None:
    """A result as a Hit; None for one whose name is no hub id, and so could not be chosen."""
    name = told.get("id") or told.get("modelId")
    if not isinstance(name, str) or "/" not in name or not hub.is_id(name):
        return None
    tags = [tag for tag in _list(told.get("tags")) if isinstance(tag, str)][:200]
    if "gguf" in tags and "safetensors" not in tags:
        return None
    counted = told.get("safetensors")
    total = counted.get("total") if isinstance(counted, Mapping) else None
    card = told.get("cardData")
    named = card.get("license") if isinstance(card, Mapping) else None
    license = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), named)
    return Hit(
        id=name,
        downloads=_count(told.get("downloads")),
        likes=_count(told.get("likes")),
        parameters=_count(total) or None,
        license=one_line(license, 40) if isinstance(license, str) else "",
        gated=bool(told.get("gated")),
        updated=_date(told.get("lastModified")),
        pipeline=_word(told.get("pipeline_tag")),
        library=_word(told.get("library_name")),
        base=is_base(name, True if "conversational" in tags else None),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _word(value: object) -> str:
    return one_line(value, 40) if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15 else None


def _date(value: object) -> date | None:
    try:
        return datetime.fromisoformat(str(value)).date()
    except ValueError:
        return None


def _offline(why: str) -> FinetuiError:
    return FinetuiError(
        "The hub cannot be searched: it cannot be reached.",
        why,
        "What is on this machine can still be chosen; check the network to search.",
        code="hub-offline",
    )


def _card(error: Exception) -> FinetuiError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 429:
        return hub.busy_card(response)
    if isinstance(status, int):
        token = (
            " The token on this machine may be wrong or expired."
            if status in (401, 403) and hub_token()
            else ""
        )
        return FinetuiError(
            "The hub does not answer the search.",
            f"It answered with status {status}.{token}",
            "Try again in a while, or type the whole name owner/name.",
            code="hub-failed",
        )
    if isinstance(error, ValueError):
        return FinetuiError(
            "The hub's answer cannot be understood.",
            one_line(redact(str(error)), 160),
            "Try again in a while, or type the whole name owner/name.",
            code="hub-failed",
        )
    return _offline(f"No answer from {one_line(hub.endpoint(), 100)}.")
