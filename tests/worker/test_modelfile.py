"""Modelfiles for Ollama: template, stops and system prompt of a model, or nothing that would be wrong."""

from __future__ import annotations

import os
from pathlib import Path

from finetui.core.worker import modelfile

from . import tiny


def chatml(default_system: str = "") -> modelfile.Render:
    def render(messages: modelfile.Messages) -> str:
        if default_system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": default_system}, *messages]
        parts = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
        return "".join(parts) + "<|im_start|>assistant\n"

    return render


def test_a_chatml_modelfile() -> None:
    text = modelfile.write("m.gguf", chatml(), "<s>", "<|im_end|>", 'Say "hi".\nAlways.', 4096)
    assert text == (
        "FROM ./m.gguf\n"
        'TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}'
        '<|im_start|>assistant\n"""\n'
        'SYSTEM """Say "hi".\nAlways."""\n'
        "PARAMETER num_ctx 4096\n"
        "PARAMETER temperature 0\n"
        'PARAMETER stop "<|im_end|>"\n'
    )


def test_the_templates_own_system_prompt_is_kept_where_none_was_trained() -> None:
    text = modelfile.write("m.gguf", chatml("You are Smol."), "<|im_start|>", "<|im_end|>", None, 4096)
    assert 'SYSTEM "You are Smol."' in text


def test_llama_3_is_known_without_its_first_token() -> None:
    def render(messages: modelfile.Messages) -> str:
        parts = [
            f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in messages
        ]
        return "<|begin_of_text|>" + "".join(parts) + "<|start_header_id|>assistant<|end_header_id|>\n\n"

    text = modelfile.write("m.gguf", render, "<|begin_of_text|>", "<|eot_id|>", None, 4096)
    assert "<|start_header_id|>{{ .Role }}<|end_header_id|>" in text
    assert "begin_of_text" not in text
    assert "SYSTEM" not in text


def test_an_unknown_template_is_left_to_the_gguf() -> None:
    def render(messages: modelfile.Messages) -> str:
        if messages[0]["role"] == "system":
            raise ValueError("System role not supported")
        return "".join(m["content"] for m in messages)

    text = modelfile.write("m.gguf", render, "<s>", "</s>", None, 4096)
    assert text == 'FROM ./m.gguf\nPARAMETER num_ctx 4096\nPARAMETER temperature 0\nPARAMETER stop "</s>"\n'


def test_a_context_holds_the_longest_row_and_a_talk_but_no_more_than_the_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    assert modelfile.context_of(tiny_model, 512) == tiny.CONTEXT, "the model knows no more"
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 32768}}')
    found = [modelfile.context_of(tmp_path, longest) for longest in (512, 8192, 99_999)]
    assert found == [4096, 8192, 32768]
    assert modelfile.context_of(tmp_path / "nowhere", 512) == 4096
    assert "temperature" not in modelfile.write("m.gguf", None, "", "</s>", None, 4096)


def test_an_adapters_modelfile_is_written_only_where_it_is_truthful() -> None:
    def odd(messages: modelfile.Messages) -> str:
        return "".join(m["content"] for m in messages)

    def over(base: modelfile.Render | None, own: modelfile.Render | None) -> str | None:
        return modelfile.write_over(
            "a-lora.gguf", "owner/base", base, own, "<s>", "<|im_end|>", "Be brief.", 4096
        )

    text = over(odd, chatml())
    assert text is not None and "owner/base" in text.splitlines()[0]
    said = [line for line in text.splitlines() if line[:1] != "#"]
    assert said[:2] == ["FROM ./BASE.gguf", "ADAPTER ./a-lora.gguf"]
    whole = modelfile.write("m.gguf", chatml(), "<s>", "<|im_end|>", "Be brief.", 4096).splitlines()
    assert said[2:] == whole[1:], "the same template, system prompt and stops"
    # A template that Ollama cannot be told stands in the base's GGUF, or nowhere.
    assert over(odd, odd) is not None and over(None, None) is not None
    assert over(chatml(), odd) is None and over(None, odd) is None and over(odd, None) is None


def test_a_system_prompt_cannot_break_out_of_its_quotes() -> None:
    text = modelfile.write("m.gguf", None, "", "", '"""\nFROM evil"', 4096)
    assert text.count('"""') == 2
    assert os.linesep + "FROM evil" in text.split('"""')[1]
