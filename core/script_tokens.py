"""The part of a script that makes tokens of conversations and marks those that are learned, as `worker/chat.py` does."""

from __future__ import annotations

import textwrap

from .recipe import Recipe
from .script_data import Data
from .script_text import Cell

_RENDER = '''
def render(turns, answer_next=False):
    """The turns as the model reads them: through the chat template that comes with it."""
{folding}    text = tokenizer.apply_chat_template({turns}, {tools}tokenize=False, add_generation_prompt=answer_next)
    return text + OPENING if answer_next else text


# What stands before an answer where the template does not write it by itself.
OPENING, ask = "", [{{"role": "user", "content": "b"}}]
if (asked := render(ask, True)) == render(ask):
    said = render([*ask, {{"role": "assistant", "content": "zqx"}}])
    OPENING = said[len(asked) : max(len(asked), said.find("zqx"))] if said.startswith(asked) else ""
'''

_FOLDING = """
    if not TAKES_SYSTEM and len(turns) > 1 and turns[0]["role"] == "system" and turns[1]["role"] == "user":
        head = turns[0]["content"] + "\\n\\n" + turns[1]["content"]
        turns = [{"role": "user", "content": head}, *turns[2:]]
"""

_TAKES_SYSTEM = """
# A few templates have no system turn: there the prompt goes to the head of the first question.
TAKES_SYSTEM = True
try:
    tokenizer.apply_chat_template([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], tokenize=False)
except Exception:
    TAKES_SYSTEM = False
"""

_SPAN = '''
SPECIAL = tuple(tokenizer.get_added_vocab())


def span(turns, index, text):
    """Where in `text` (the turns, rendered) the turn at `index` stands, its end-of-turn token included."""
    before = render(turns[:index], answer_next=True)
    until = text if index == len(turns) - 1 else render(turns[: index + 1])
    if text.startswith(before) and text.startswith(until) and len(before) < len(until):
        start, end = len(before), len(until)
    else:
        # Some templates write an earlier answer differently than the last one (they drop what was thought). So it is
        # found by what changes in the text when the answer is another one.
        said = turns[index]["content"].strip()
        other = ("b" if said[0] == "a" else "a") + "x" + ("b" if said[-1] == "a" else "a")
        changed = render([*turns[:index], {"role": "assistant", "content": other}, *turns[index + 1 :]])
        start = len(os.path.commonprefix([text, changed]))
        end = len(text) - len(os.path.commonprefix([text[start:][::-1], changed[start:][::-1]]))
        rest = text[end:].lstrip()
        mark = next((token for token in sorted(SPECIAL, key=len, reverse=True) if rest.startswith(token)), "")
        end = len(text) - len(rest) + len(mark) if mark else end
    body = text[start:end].rstrip()  # the line break after the end-of-turn token is the template's
    return start, start + len(body) if body.endswith(SPECIAL) else end
'''

_TOKENS_OF_TEXT = '''
def tokens_of_text(text):
    """Plain writing is learned whole, from the token that begins a text to the one that ends it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id != tokenizer.eos_token_id
    if begins and ids[:1] != [tokenizer.bos_token_id]:
        ids = [tokenizer.bos_token_id, *ids]
    if ids[-1:] != [tokenizer.eos_token_id]:
        ids = [*ids, tokenizer.eos_token_id]
    return ids, list(ids)
'''

_TOKENS = '''
def tokens(turns, learned):
    """Token ids, and the same again as labels: -100 where the loss does not count."""
    text = render(turns)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, places = found["input_ids"], found["offset_mapping"]
    labels = [-100] * len(ids)
    for start, end in {spans}:
        inside = [at for at, (a, b) in enumerate(places) if a >= start and b <= end and b > a]
        if inside:
            labels[inside[0] : inside[-1] + 1] = ids[inside[0] : inside[-1] + 1]
    # A template without an end-of-turn token would never teach the model to stop.
    closing = set(tokenizer.get_added_vocab().values()) - {{tokenizer.unk_token_id}}
    if tokenizer.bos_token_id != tokenizer.eos_token_id:
        closing -= {{tokenizer.bos_token_id}}
    if {ends}not closing & set(ids[-4:]):
        ids, labels = [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]
    if ids[:2] == [tokenizer.bos_token_id] * 2 and tokenizer.bos_token_id != tokenizer.eos_token_id:
        ids, labels = ids[1:], labels[1:]  # begun twice
    return ids, labels
'''

_DATASET = '''
def dataset(rows):
    """The rows as tokens, cut at MAX_LENGTH. Rows in which nothing is learned are left out."""
    made = {{"input_ids": [], "labels": []}}
    for row in rows:
        for ids, labels in {tokenized}:
            ids, labels = ids[:MAX_LENGTH], labels[:MAX_LENGTH]
            if any(label != -100 for label in labels[1:]):
                made["input_ids"].append(ids)
                made["labels"].append(labels)
    return Dataset.from_dict(made)


train_set, test_set = dataset(train_rows), dataset(test_rows)
print(f"{{len(train_set)}} rows of tokens to train on, {{len(test_set)}} held out")
'''


def cell(recipe: Recipe, data: Data) -> Cell:
    """From `train_rows` and `test_rows` to `train_set` and `test_set`."""
    section = recipe.dataset
    blocks: list[str] = []
    if not data.all_plain:
        tools = 'tools=turns[0].get("tools"), ' if data.tools else ""
        if data.systems:
            blocks.append(_TAKES_SYSTEM)
        # The key that carries the tools is ours; templates never see it.
        turns = (
            '[{k: v for k, v in turn.items() if k != "tools"} for turn in turns]' if data.tools else "turns"
        )
        blocks.append(
            _RENDER.format(
                folding=_FOLDING.strip("\n") + "\n" if data.systems else "", turns=turns, tools=tools
            )
        )
        if section.train_on != "everything" or section.multi_turn == "split":
            blocks.append(_SPAN)
        blocks.append(_examples(recipe, data))
        everything = section.train_on == "everything" and section.multi_turn == "keep"
        spans = "[(0, len(text))]" if everything else "(span(turns, index, text) for index in learned)"
        ends = "" if everything else "len(turns) - 1 in learned and "
        blocks.append(_TOKENS.format(spans=spans, ends=ends))
    if data.plain:
        blocks.append(_TOKENS_OF_TEXT)
    tokenized = "[tokens(*one) for one in examples(row)]"
    if data.all_plain:
        tokenized = "[tokens_of_text(row)]"
    elif data.plain:
        tokenized = f"[tokens_of_text(row)] if isinstance(row, str) else {tokenized}"
    made = _DATASET.format(tokenized=tokenized)
    if section.long_rows == "drop":
        made = made.replace(
            "        for ids, labels in",
            "        # Rows that are too long are left out whole.\n        for ids, labels in",
            1,
        )
        made = made.replace(
            "            ids, labels = ids[:MAX_LENGTH], labels[:MAX_LENGTH]\n            if any(",
            "            if len(ids) <= MAX_LENGTH and any(",
        )
        made = made.replace("cut at MAX_LENGTH. Rows", "Rows")
    blocks.append(made)
    words = {
        "answers": "The loss counts the answers only, so that the model learns to answer and not to ask.",
        "last_answer": "The loss counts the last answer only; what comes before is given.",
        "everything": "The loss counts everything, the questions too.",
    }[section.train_on]
    if data.all_plain:
        words = "Plain writing, learned whole."
    return Cell(
        "Tokens, and which of them are learned",
        words,
        "\n\n".join(block.strip("\n") + "\n" for block in blocks),
    )


def _examples(recipe: Recipe, data: Data) -> str:
    section = recipe.dataset
    unless = ' and turn.get("weight") != 0' if data.weights else ""
    answers = f'answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"{unless}]'
    if section.multi_turn == "split" and section.train_on != "last_answer":
        alone = (
            ""
            if section.train_on == "everything"
            else "    if len(answers) < 2:\n        return [(turns, answers)]\n"
        )
        body = f"    {answers}\n{alone}    return [(turns[: i + 1], [i]) for i in answers]"
        words = "One example for each answer, with all before it as given."
    elif section.train_on == "everything":
        body, words = (
            "    return [(turns, range(len(turns)))]",
            "The turns, and which of them are learned: all.",
        )
    elif section.train_on == "last_answer":
        body, words = (
            f"    {answers}\n    return [(turns, answers[-1:])]",
            "The turns, and which of them are learned: the last answer.",
        )
    else:
        body, words = (
            f"    {answers}\n    return [(turns, answers)]",
            "The turns, and which of them are learned: the answers.",
        )
    return textwrap.dedent(f'def examples(turns):\n    """{words}"""\n{body}\n')
