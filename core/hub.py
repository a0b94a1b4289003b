"""The Hugging Face hub as both steps see it: where it is, what is cached, and its failures as cards.

`huggingface_hub` is imported only inside functions: the wizard must start without it.
"""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from .errors import FinetuiError
from .secrets import hub_token, redact, token_file
from .text import duration_words, one_line

Noun = Literal["model", "dataset"]


def _patience() -> float:
    try:
        return min(600.0, max(1.0, float(os.environ.get("FINETUI_HUB_SECONDS", "10"))))
    except ValueError:
        return 10.0


TIMEOUT_SECONDS = _patience()
"""For one request; a person is waiting. A slow network may set FINETUI_HUB_SECONDS higher."""

_ID = re.compile(r"^[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?$", re.ASCII)
_TRUE = ("1", "true", "yes", "on")


def is_id(source: str) -> bool:
    """Whether `source` is written as a hub id: `owner/name`, or a single name."""
    return bool(_ID.fullmatch(source)) and ".." not in source and "--" not in source and len(source) <= 96


def is_offline() -> bool:
    """Whether the environment forbids the hub."""
    return any(
        os.environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def endpoint() -> str:
    """The hub's address, without a slash at its end. HF_ENDPOINT names another one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it downloads; its own rules and variables."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or str(Path(base) / "huggingface")
    return Path(home).expanduser() / "hub"


def cached_snapshot(repository: str, noun: Noun, revision: str | None = None) -> Path | None:
    """The folder of the cached snapshot of `repository` at `revision` (a branch, tag or commit; main by default).

    The folder may lack files that were never downloaded.
    """
    root = cache_folder() / f"{noun}s--{repository.replace('/', '--')}"
    name = revision or "main"
    if ".." in name.split("/"):
        return None
    try:
        reference = root / "refs" / name
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else name
        folder = root / "snapshots" / commit
        return folder if "/" not in commit and folder.is_dir() else None
    except (OSError, ValueError):
        return None


def use_token(token: str) -> None:
    """Uses `token` in this process and the processes that it starts, and nowhere else.

    Raises FinetuiError (hub-token) for what cannot be a token.
    """
    os.environ["HF_TOKEN"] = _checked(token)


def keep_token(token: str) -> None:
    """Keeps `token` where the hub's own login keeps it (0600), for every program of this account, and uses it.

    Raises FinetuiError (hub-token), also where the file cannot be written.
    """
    from . import atomic, paths

    token = _checked(token)
    file = token_file()
    try:
        paths.private_dir(file.parent)
        atomic.write_text(file, token)
    except OSError as error:
        raise FinetuiError(
            "The token could not be kept.",
            f"{one_line(str(file), 160)}: {error.strerror or error}.",
            "It is still used until finetui ends; `hf auth login` keeps it too.",
            code="hub-token",
        ) from error
    finally:
        use_token(token)


def forget_token() -> None:
    """Forgets the token in this process, and removes the one that the hub's login keeps.

    Raises FinetuiError (hub-token) where the file cannot be removed.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        os.environ.pop(name, None)
    try:
        token_file().unlink(missing_ok=True)
    except OSError as error:
        raise FinetuiError(
            "The kept token could not be removed.",
            f"{one_line(str(token_file()), 160)}: {error.strerror or error}.",
            "Remove that file yourself, or run `hf auth logout`.",
            code="hub-token",
        ) from error


def _checked(token: str) -> str:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token or len(token) > 500:
        raise FinetuiError(
            "That is not a hub token.",
            "A token is one word of letters and digits; most begin with hf_.",
            f"Copy it whole from {endpoint()}/settings/tokens.",
            code="hub-token",
        )
    return token


def status() -> int | None:
    """The HTTP status with which the hub answers a small question, or None where nothing answers. No token is sent."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(endpoint() + "/api/models?limit=1", headers={"User-Agent": "finetui"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, ValueError, http.client.HTTPException):
        return None


def address(repository: str, noun: Noun) -> str:
    """The page of `repository`, for people."""
    return f"{endpoint()}/{'datasets/' if noun == 'dataset' else ''}{repository}"


def offline_card(repository: str, noun: Noun, why: str = "") -> FinetuiError:
    """The card for a hub that cannot be reached (hub-offline)."""
    return FinetuiError(
        f"{one_line(repository, 100)} is not on this machine, and the hub cannot be reached.",
        why or f"No answer from {one_line(endpoint(), 100)}.",
        f"Check the network, name a local {'folder' if noun == 'model' else 'file'}, or take the demo: it needs no network.",
        code="hub-offline",
    )


def not_found_card(repository: str, noun: Noun) -> FinetuiError:
    """The card for a repository that the hub does not have, or does not show (hub-not-found)."""
    token = (
        "Your token may lack the right to see it."
        if hub_token()
        else "A private one needs a token (HF_TOKEN)."
    )
    return FinetuiError(
        f"The hub has no {noun} named {one_line(repository, 100)}.",
        f"Looked at {one_line(address(repository, noun), 160)}. {token}",
        "Check the spelling; an id is written owner/name.",
        code="hub-not-found",
    )


def gated_card(repository: str, noun: Noun) -> FinetuiError:
    """The card for a repository whose terms must be accepted first (hub-gated)."""
    have = hub_token() is not None
    return FinetuiError(
        f"{one_line(repository, 100)} is gated: its owner asks you to accept terms first.",
        "Your token's account has not been granted access."
        if have
        else "No hub token was found on this machine.",
        f"Accept the terms at {one_line(address(repository, noun), 160)}"
        + (", then try again." if have else ", then set HF_TOKEN or run `hf auth login`."),
        code="hub-gated",
    )


def card(error: BaseException, repository: str, noun: Noun) -> FinetuiError:
    """Any failure of a hub call as a card: hub-offline, hub-not-found, hub-gated, hub-revision or hub-failed.

    Looks through the chain of causes, as the libraries wrap what really happened.
    """
    import httpx
    from huggingface_hub import errors

    chain = list(causes(error))
    for found in chain:
        if isinstance(found, FinetuiError):
            return found
        if isinstance(found, errors.GatedRepoError):
            return gated_card(repository, noun)
        if isinstance(found, errors.RevisionNotFoundError):
            return FinetuiError(
                f"{one_line(repository, 100)} has no such revision.",
                "The branch, tag or commit that the recipe names is not there.",
                "Empty the revision to take the newest.",
                code="hub-revision",
            )
        if isinstance(found, errors.RepositoryNotFoundError):
            return not_found_card(repository, noun)
    for found in chain:
        status = getattr(getattr(found, "response", None), "status_code", None)
        if status in (401, 403):
            return gated_card(repository, noun)
        if status == 404:
            return not_found_card(repository, noun)
        if status == 429:
            return busy_card(getattr(found, "response", None))
        if isinstance(status, int):
            return FinetuiError(
                f"The hub could not answer for {one_line(repository, 100)}.",
                f"It answered with status {status}.",
                "Try again in a while.",
                code="hub-failed",
            )
    offline = (
        httpx.TransportError,
        errors.OfflineModeIsEnabled,
        errors.LocalEntryNotFoundError,
        ConnectionError,
        TimeoutError,
    )
    if any(isinstance(found, offline) for found in chain):
        return offline_card(repository, noun, "HF_HUB_OFFLINE is set." if is_offline() else "")
    return FinetuiError(
        f"{one_line(repository, 100)} could not be read from the hub.",
        one_line(redact(str(error)), 300) or type(error).__name__,
        "Try again, or name a local one.",
        code="hub-failed",
    )


def busy_card(response: object) -> FinetuiError:
    """The card for a hub that answers 429 (hub-busy), with the wait that its Retry-After asks for."""
    headers = getattr(response, "headers", {})
    seconds = retry_after_seconds(headers.get("Retry-After"))
    wait = f"Wait {duration_words(seconds)}" if seconds else "Wait a minute"
    return FinetuiError(
        "The hub asks us to slow down.",
        "It answered 429: too many requests from this address.",
        f"{wait} and try again" + ("." if hub_token() else "; a token (HF_TOKEN) raises the limit."),
        code="hub-busy",
    )


def retry_after_seconds(value: object) -> float | None:
    """A Retry-After header in seconds, where it is a number; at most an hour."""
    text = str(value or "").strip()
    return min(float(text), 3600.0) if text.isascii() and text.isdecimal() else None


def causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def quiet() -> None:
    """Keeps huggingface_hub from drawing progress bars and writing warnings into the terminal that the wizard owns."""
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    disable_progress_bars()
    hub_logging.set_verbosity_error()
