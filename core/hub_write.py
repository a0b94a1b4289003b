"""Writing to the hub: who the token is, and every refusal as a card. Reading has its own words in `hub`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import hub
from .errors import FinetuiError
from .secrets import hub_token, redact
from .text import one_line


@dataclass(frozen=True)
class Account:
    """Whose token it is. `names` are the owners that it may write for, as far as the hub says."""

    name: str
    names: tuple[str, ...]


def api() -> Any:
    """huggingface_hub's client for this hub. Raises FinetuiError: hub-offline, hub-no-token."""
    from huggingface_hub import HfApi

    hub.quiet()
    if hub.is_offline():
        raise offline("HF_HUB_OFFLINE is set.")
    token = hub_token()
    if token is None:
        raise FinetuiError(
            "There is no hub token on this machine.",
            "Uploading needs one that may write.",
            f"Make one with the right to write at {hub.endpoint()}/settings/tokens, then set HF_TOKEN or run `hf auth login`.",
            code="hub-no-token",
        )
    return HfApi(endpoint=hub.endpoint(), token=token)


def account() -> Account:
    """Asks the hub whose token it is. Blocking. Raises FinetuiError: those of `card`, and hub-no-rights for a token that
    only reads."""
    try:
        told = api().whoami()
        name = str(told["name"])
        orgs = [str(org["name"]) for org in told.get("orgs", ())]
        role = (told.get("auth", {}).get("accessToken") or {}).get("role", "")
    except FinetuiError:
        raise
    except Exception as error:  # the edge of huggingface_hub
        raise card(error, "the hub") from error
    if role == "read":
        raise no_rights(one_line(name, 60), "It may read only.")
    return Account(name, (name, *orgs))


def no_rights(where: str, why: str = "") -> FinetuiError:
    """The card for a token that may not write there (hub-no-rights)."""
    return FinetuiError(
        f"The hub token may not write to {one_line(where, 100)}.",
        why or "The hub answered 403: forbidden.",
        f"Make a token with the right to write at {hub.endpoint()}/settings/tokens, or take an owner that is yours with --to.",
        code="hub-no-rights",
    )


def offline(why: str = "") -> FinetuiError:
    """The card for a hub that cannot be reached while writing (hub-offline)."""
    return FinetuiError(
        "The hub cannot be reached.",
        why or f"No answer from {one_line(hub.endpoint(), 100)}, or the connection was cut.",
        "Check the network and give the same command again: what has arrived is not sent twice.",
        code="hub-offline",
    )


def card(error: BaseException, where: str) -> FinetuiError:
    """Any failure of writing to `where` as a card: hub-token, hub-no-rights, hub-busy, hub-not-found, hub-refused,
    hub-failed, hub-offline."""
    import httpx
    from huggingface_hub import errors

    chain = list(hub.causes(error))
    for found in chain:
        if isinstance(found, FinetuiError):
            return found
    response = next((r for r in (getattr(found, "response", None) for found in chain) if r is not None), None)
    status = getattr(response, "status_code", None)
    said = one_line(redact(str(getattr(response, "headers", {}).get("X-Error-Message", ""))), 300)
    if status is None:
        # hf_xet tells of a status in its text only.
        text = " ".join(str(found) for found in chain)
        status = next(
            (code for code in (401, 403, 429) if f"{code} " in text and "status" in text.lower()), None
        )
    if status == 401:
        return FinetuiError(
            "The hub does not accept the token.",
            "It answered 401: the token is wrong, or was revoked.",
            f"Make a new one at {hub.endpoint()}/settings/tokens, then set HF_TOKEN or run `hf auth login`.",
            code="hub-token",
        )
    if status == 403:
        return no_rights(where, f"The hub says: {said}" if said else "")
    if status == 429:
        return hub.busy_card(response)
    if status == 404:
        return FinetuiError(
            f"The hub has no place for {one_line(where, 100)}.",
            "It answered 404: the owner does not exist, or the token may not see it.",
            "Check the spelling; an id is written owner/name.",
            code="hub-not-found",
        )
    if isinstance(status, int):
        refused = 400 <= status < 500
        return FinetuiError(
            f"The hub {'refused' if refused else 'could not take'} the upload to {one_line(where, 100)}.",
            f"It answered with status {status}" + (f": {said}" if said else "."),
            "Put that right, and give the same command again."
            if refused
            else "Give the same command again in a while: what has arrived is not sent twice.",
            code="hub-refused" if refused else "hub-failed",
        )
    lost = (httpx.TransportError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    if any(isinstance(found, lost) for found in chain):
        return offline("HF_HUB_OFFLINE is set." if hub.is_offline() else "")
    return FinetuiError(
        f"The upload to {one_line(where, 100)} failed.",
        one_line(redact(str(error)), 300) or type(error).__name__,
        "Give the same command again: what has arrived is not sent twice.",
        code="hub-failed",
    )
