"""A screen that closes loses its widgets before it stops hearing: late answers and callbacks must find nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from textual.screen import Screen

S = TypeVar("S", bound=Screen[Any])
P = ParamSpec("P")


def while_standing(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Makes a screen's `method` do nothing once the screen is being taken down (or is not in place yet)."""

    @wraps(method)
    def guarded(screen: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if screen.is_attached and screen.display:
            method(screen, *args, **kwargs)

    return guarded
