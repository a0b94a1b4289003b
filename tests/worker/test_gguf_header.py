"""The header of a GGUF as our own reader finds it: as gguf's does, and whatever is done to its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from finetui.core.worker import gguf_header


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "sound.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_token_list(["one", "two", "three"])
    writer.add_context_length(64)
    writer.add_custom_alignment(64)
    for name, shape in (("token_embd.weight", (3, 32)), ("output_norm.weight", (32,))):
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_it_finds_what_gguf_finds(sound: Path) -> None:
    found, known = gguf_header.contents(sound), GGUFReader(sound)
    assert found.architecture == "llama"
    assert found.keys == {key for key in known.fields if not key.startswith("GGUF.")}
    assert [(t.name, t.shape, t.kind, t.begin) for t in found.tensors] == [
        (t.name, tuple(int(n) for n in reversed(t.shape)), int(t.tensor_type), int(t.data_offset))
        for t in known.tensors
    ]


@given(st.data())
def test_whatever_the_bytes_are_it_is_read_or_refused(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    held = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(held) - 8))
        held[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8) | st.just(b"\xff" * 8))
    torn = tmp_path_factory.mktemp("torn") / "torn.gguf"
    torn.write_bytes(held[: data.draw(st.integers(0, len(held)))])
    try:
        found = gguf_header.contents(torn)
    except ValueError:
        return
    assert all(len(tensor.shape) <= 4 for tensor in found.tensors)


def test_more_dimensions_than_there_are_is_no_header(sound: Path, tmp_path: Path) -> None:
    held = sound.read_bytes()
    at = held.index(b"token_embd.weight") + len(b"token_embd.weight")
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(held[:at] + b"\xff\xff\xff\xff" + held[at + 4 :])
    with pytest.raises(ValueError, match="too many dimensions"):
        gguf_header.contents(torn)


def test_a_text_longer_than_any_is_no_header(sound: Path, tmp_path: Path) -> None:
    held = sound.read_bytes()
    at = held.index(b"two") - 8
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(held[:at] + b"\xff" * 8 + held[at + 8 :])
    with pytest.raises(ValueError, match="too long"):
        gguf_header.contents(torn)
