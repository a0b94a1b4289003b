"""The names that columns of datasets go by, and the roles they stand for."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

LISTS = (
    "messages",
    "conversations",
    "conversation",
    "chat",
    "dialogue",
    "dialog",
    "turns",
    "trace",
    "traces",
)
INSTRUCTION = ("instruction", "instructions")
CONTEXT = ("input", "context")
OUTPUT = ("output", "response", "answer", "completion", "target")
SYSTEM = ("system", "system_prompt", "system_message")
TOOLS = ("tools", "functions")
REASONING = ("reasoning_content", "reasoning", "thinking", "complex_cot", "chain_of_thought", "cot")
TEXT = (
    "text",
    "content",
    "document",
    "raw_content",
    "body",
    "article",
    "passage",
    "markdown",
    "code",
    "story",
)
CHOSEN = ("chosen", "chosen_response", "response_chosen", "preferred", "accepted", "answer_chosen", "better")
REJECTED = (
    "rejected",
    "rejected_response",
    "response_rejected",
    "dispreferred",
    "reject",
    "answer_rejected",
    "worse",
)
PREFERENCE_PROMPT = ("prompt", "question", "instruction", "input", "query", "user", "context")

PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "output"),
    ("prompt", "answer"),
    ("prompt", "target"),
    ("question", "answer"),
    ("question", "response"),
    ("question", "solution"),
    ("question", "output"),
    ("query", "response"),
    ("query", "answer"),
    ("problem", "solution"),
    ("problem", "answer"),
    ("input", "output"),
    ("input", "response"),
    ("input", "completion"),
    ("input", "answer"),
    ("input", "target"),
    ("inputs", "targets"),
    ("source", "target"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("request", "response"),
    ("message", "response"),
    ("text", "completion"),
    ("text", "response"),
    ("text", "output"),
    ("text", "answer"),
    ("article", "highlights"),
    ("document", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("article", "summary"),
    ("question", "query"),
    ("sentence", "translation"),
)
"""Question and answer as they usually stand together, the surest first."""

ASKS = (
    *(
        "question",
        "prompt",
        "query",
        "instruction",
        "problem",
        "input",
        "request",
        "user",
        "human",
        "customer",
    ),
    *(
        "message",
        "ask",
        "utterance",
        "q",
        "frage",
        "pregunta",
        "demande",
        "domanda",
        "pergunta",
        "vraag",
        "pytanie",
    ),
    *(
        "вопрос",
        "问题",
        "提问",
        "质问",
        "質問",
        "질문",
        "anfrage",
        "eingabe",
        "title",
        "titel",
        "post",
        "source",
    ),
)
ANSWERS = (
    *(
        "answer",
        "response",
        "completion",
        "output",
        "reply",
        "solution",
        "assistant",
        "bot",
        "agent",
        "target",
        "a",
    ),
    *(
        "antwort",
        "respuesta",
        "réponse",
        "reponse",
        "risposta",
        "resposta",
        "antwoord",
        "odpowiedź",
        "odpowiedz",
    ),
    *(
        "ответ",
        "回答",
        "答案",
        "답변",
        "대답",
        "ausgabe",
        "accepted_answer",
        "best_answer",
        "summary",
        "translation",
    ),
    *("label", "gpt", "model", "chatbot", "result"),
)
"""Single names for either side, and words in longer ones (`customer_question`, `agent_reply`), the surest first."""

_WORDS = re.compile(r"[^\W_]+")


def normal(name: str) -> str:
    """A column's name for comparison: lower case, its words joined by `_`."""
    return name.strip().strip("\ufeff").lower()


def words(name: str) -> list[str]:
    """The words of a name: `Customer Question`, `customer_question` and `customerQuestion` alike."""
    return _WORDS.findall(re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


_KNOWN = {
    name
    for group in (LISTS, INSTRUCTION, CONTEXT, OUTPUT, SYSTEM, TOOLS, TEXT, CHOSEN, REJECTED, ASKS, ANSWERS)
    for name in group
}
_KNOWN |= {name for pair in PAIRS for name in pair} | {"id", "category", "label", "role", "score", "date"}


def is_known(name: str) -> bool:
    """Whether a cell reads like a column's name that is known: one of the names, not a sentence that has one in it."""
    said = words(name)
    return "_".join(said) in _KNOWN or (
        len(said) in (2, 3) and len(name) <= 30 and " " not in name.strip() and any(w in _KNOWN for w in said)
    )


def named(columns: Collection[str], names: Sequence[str]) -> str | None:
    """The first of `names` among `columns` (in lower case)."""
    return next((name for name in names if name in columns), None)


def ask_and_answer(columns: Sequence[str]) -> tuple[str, str, float] | None:
    """The columns (in lower case) of question and answer, and how sure that is; None where no two names speak for it."""
    there = set(columns)
    for ask, answer in PAIRS:
        if ask in there and answer in there:
            return ask, answer, 1.0 if (ask, answer) in PAIRS[:27] else 0.9
    ask, answer = named(columns, ASKS), named(columns, ANSWERS)
    if ask and answer and ask != answer:
        return ask, answer, 0.8
    asks = [name for word in ASKS if len(word) > 1 for name in columns if _has(name, word)]
    answers = [name for word in ANSWERS if len(word) > 1 for name in columns if _has(name, word)]
    answer = answer or next((name for name in answers if name != ask), None)
    ask = ask or next((name for name in asks if name != answer), None)
    if ask and answer and ask != answer:
        return ask, answer, 0.6
    return None


def _has(name: str, word: str) -> bool:
    """Whether a name has the word in it, or ends with it, as compounds do (`Kundenfrage`)."""
    said = words(name)
    return word in said or (len(word) >= 5 and any(part.endswith(word) for part in said))
