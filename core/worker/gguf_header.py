"""Reads the header of a GGUF file, forward and without the weights. The format: ggml/docs/gguf.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The struct letter of each scalar type."""

_STRING, _ARRAY = 8, 9
_MOST_ITEMS: Final = 10_000_000
_MOST_SIDES: Final = 4  # GGML_MAX_DIMS


class Header:
    """A GGUF's header, read forward. Any surprise is a ValueError."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def begin(self) -> tuple[int, int]:
        """How many tensors and how many keys the file states; what follows are the keys."""
        if self.take(4) != b"GGUF":
            raise ValueError("it does not begin as a GGUF")
        self.number("I")
        tensors, keys = self.number("Q"), self.number("Q")
        if tensors == 0 or tensors > 1_000_000 or keys > 1_000_000:
            raise ValueError("it holds no weights")
        return tensors, keys

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError("it ends within its header")
        return data

    def number(self, letter: str) -> int:
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def text(self) -> str:
        return self.take(self._length()).decode("utf-8", "replace")

    def _length(self) -> int:
        length = self.number("Q")
        if length > 64 * 1024**2:
            raise ValueError("a text in its header is too long")
        return length

    def skip(self, kind: int) -> None:
        """Passes over a value of the type `kind`."""
        if kind in _SCALARS:
            self.take(struct.calcsize("<" + _SCALARS[kind]))
        elif kind == _STRING:
            self.text()
        elif kind == _ARRAY:
            inner, count = self._array()
            if inner in _SCALARS:
                self.file.seek(count * struct.calcsize("<" + _SCALARS[inner]), 1)
            else:
                for _ in range(count):
                    self.file.seek(self._length(), 1)
        else:
            raise ValueError("a value in its header has no known type")

    def value(self, kind: int) -> Any:
        """The next value, of the type `kind`: a number, a text, or a list of either."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError("a value in its header has no known type")
        inner, count = self._array()
        if inner == _STRING:
            return [self.text() for _ in range(count)]
        letters = f"<{count}{_SCALARS[inner]}"
        return list(struct.unpack(letters, self.take(struct.calcsize(letters))))

    def _array(self) -> tuple[int, int]:
        inner, count = self.number("I"), self.number("Q")
        if (inner not in _SCALARS and inner != _STRING) or count > _MOST_ITEMS:
            raise ValueError("an array in its header makes no sense")
        return inner, count


@dataclass(frozen=True)
class Placed:
    """A tensor in a GGUF: its shape as safetensors has it, the number of its type (`enum ggml_type`), and its first byte."""

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int


@dataclass(frozen=True)
class Contents:
    """What a GGUF holds, without the values of its long lists: a vocabulary as objects takes more memory than many a model."""

    keys: frozenset[str]
    architecture: str
    tensors: tuple[Placed, ...]


def contents(file: Path) -> Contents:
    """What stands in the header of `file`. Raises ValueError, OSError."""
    with file.open("rb") as opened:
        header = Header(opened)
        tensor_count, key_count = header.begin()
        keys: set[str] = set()
        alignment, architecture = 32, ""
        for _ in range(key_count):
            key, kind = header.text(), header.number("I")
            keys.add(key)
            if key == "general.alignment" and kind == 4:
                alignment = max(1, header.number("I"))
            elif key == "general.architecture" and kind == _STRING:
                architecture = header.text()
            else:
                header.skip(kind)
        placed: list[Placed] = []
        for _ in range(tensor_count):
            name = header.text()
            sides = header.number("I")
            if sides > _MOST_SIDES:
                raise ValueError("a tensor in its header has too many dimensions")
            shape = [header.number("Q") for _ in range(sides)]
            placed.append(Placed(name, tuple(reversed(shape)), header.number("I"), header.number("Q")))
        data = -(-opened.tell() // alignment) * alignment
    return Contents(
        frozenset(keys),
        architecture,
        tuple(Placed(one.name, one.shape, one.kind, data + one.begin) for one in placed),
    )
