"""Plain requests to the hub, bounded in time and size. The token goes to the hub itself and to no other host.

`huggingface_hub` answers most questions; this is for what it does not do: ranges of a file, a search with a deadline,
and downloads that go on where they were cut. httpx is imported only inside functions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from . import hub
from .secrets import hub_token

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
MAX_JSON_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 256 * 1024


class Bounded(OSError):
    """An answer that was too long or took too long."""


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what must be equal for a token to be sent."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def file_address(repository: str, revision: str, name: str) -> str:
    """Where the hub gives out a model's file."""
    return f"{hub.endpoint()}/{quote(repository)}/resolve/{quote(revision, safe='')}/{quote(name)}"


@contextmanager
def opened(
    url: str, headers: Mapping[str, str] | None = None, seconds: float = hub.TIMEOUT_SECONDS
) -> Iterator[httpx.Response]:
    """The answer to a GET of `url`, not yet read. Redirects are followed, without the token where they leave the hub's
    origin, and never from https to http.

    `seconds` bounds each wait, not the whole. Raises httpx.HTTPError and the errors of huggingface_hub for a status
    that is none of success.
    """
    import httpx
    from huggingface_hub.utils import hf_raise_for_status

    token = hub_token()
    with httpx.Client(follow_redirects=False, timeout=seconds) as client:
        for _ in range(MAX_REDIRECTS):
            sent = {"User-Agent": "finetui", "Accept-Encoding": "identity", **(headers or {})}
            if token and origin(url) == origin(hub.endpoint()):
                sent["Authorization"] = f"Bearer {token}"
            with client.stream("GET", url, headers=sent) as response:
                if not response.has_redirect_location:
                    if response.is_error:
                        response.read()
                        hf_raise_for_status(response)
                    yield response
                    return
                target = urljoin(url, response.headers["Location"])
            if origin(target)[0] not in ("http", "https") or (
                origin(url)[0] == "https" and origin(target)[0] != "https"
            ):
                raise Bounded("the hub redirects to an address that is not safe")
            url = target
    raise httpx.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects", request=httpx.Request("GET", url))


def read(
    url: str, limit: int, headers: Mapping[str, str] | None = None, seconds: float = hub.TIMEOUT_SECONDS
) -> bytes:
    """The whole answer, of at most `limit` bytes and within `seconds` once it has begun. Raises as `opened`, and Bounded."""
    parts: list[bytes] = []
    size = 0
    with opened(url, headers, seconds) as response:
        end = time.monotonic() + seconds
        for part in response.iter_bytes(CHUNK_BYTES):
            size += len(part)
            if size > limit:
                raise Bounded(f"the answer is longer than {limit} bytes")
            if time.monotonic() > end:
                raise TimeoutError("the hub answers too slowly")
            parts.append(part)
    return b"".join(parts)


def read_json(path: str, query: str) -> Any:
    """What the hub's API answers at `path` (such as `/api/models`) to `query`. Raises as `read`, and ValueError."""
    try:
        return json.loads(read(f"{hub.endpoint()}{path}?{query}", MAX_JSON_BYTES))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_range(repository: str, revision: str, name: str, start: int, length: int) -> bytes:
    """`length` bytes of a file from `start` on, or fewer where it ends. Raises as `read`."""
    address = file_address(repository, revision, name)
    with opened(address, {"Range": f"bytes={start}-{start + length - 1}"}) as response:
        skip = start if response.status_code == 200 else 0  # a server that knows no ranges
        if skip + length > MAX_JSON_BYTES * 2:
            raise Bounded("the server knows no ranges")
        found = b""
        end = time.monotonic() + hub.TIMEOUT_SECONDS
        for part in response.iter_bytes(CHUNK_BYTES):
            found += part
            if len(found) >= skip + length:
                break
            if time.monotonic() > end:
                raise TimeoutError("the hub answers too slowly")
    return found[skip : skip + length]
