"""Secrets and personal data in a text, by the forms that they are known to have. Says which kinds, never what."""

from __future__ import annotations

import re
from collections.abc import Callable

_KEY_STARTS = ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "npm_"), ("sk-", "xox", "glpat-")
_KEY_STARTS_PLAIN = ("AKIA", "ASIA", "AIza")
_KEYS = re.compile(
    r"(?<![\w-])(?:"
    r"sk-[A-Za-z0-9_-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}"
    r"|gh[opusr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|glpat-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}"
    r")"
)
_JWT = re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY")
_EMAIL = re.compile(r"[A-Za-z0-9_%+-][\w.%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
_EXAMPLE_MAIL = re.compile(
    r"@(?:[\w-]+\.)*(?:example|test|invalid|localhost)\b|@(?:[\w-]+\.)*example\.(?:com|org|net)\b", re.I
)
_CARD = re.compile(r"(?<!\d)(?<!\d\.)(?:\d[ -]?){12,18}\d(?!\d|\.\d)")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ .\-/]?(?:\(?\d{1,4}\)?[ .\-/]?){2,5}\d{2,4}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-])"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_SHAPES = bytes(48 if 48 <= c <= 57 else 65 if 65 <= c <= 90 else 46 for c in range(256))
"""Digits as 0, capitals as A, all else as a dot: a text's shape, in which numbers are found without a regex."""
_BETWEEN_DIGITS = b" -().+/"

KEY, TOKEN, PRIVATE_KEY = "API key", "login token (JWT)", "private key"
EMAIL, PHONE, CARD, IBAN = "e-mail address", "phone number", "payment card number", "bank account (IBAN)"
KINDS = (KEY, PRIVATE_KEY, TOKEN, CARD, IBAN, EMAIL, PHONE)
"""The worst first."""
SECRETS = frozenset({KEY, TOKEN, PRIVATE_KEY})
"""What must never be trained on; the others are personal data, which may be wanted."""


def kinds(text: str) -> tuple[str, ...]:
    """The kinds of secrets and personal data that `text` seems to hold. A few µs for a thousand characters."""
    found: list[str] = []
    if (
        any(start in text for start in _KEY_STARTS_PLAIN)
        or ("_" in text and any(start in text for start in _KEY_STARTS[0]))
        or ("-" in text and any(start in text for start in _KEY_STARTS[1]))
    ) and _KEYS.search(text):
        found.append(KEY)
    if "eyJ" in text and _JWT.search(text):
        found.append(TOKEN)
    if "-----BEGIN" in text and _PEM.search(text):
        found.append(PRIVATE_KEY)
    if "@" in text and any(not _EXAMPLE_MAIL.search(m[0]) for m in _EMAIL.finditer(text)):
        found.append(EMAIL)
    shape = text.encode("ascii", "replace").translate(_SHAPES, _BETWEEN_DIGITS)
    if b"00000000" in shape:
        if _any(_CARD, text, _luhn):
            found.append(CARD)
        if _PHONE.search(text):
            found.append(PHONE)
    if b"AA00" in shape and _any(_IBAN, text, _is_iban):
        found.append(IBAN)
    return tuple(found)


def _any(pattern: re.Pattern[str], text: str, holds: Callable[[str], bool]) -> bool:
    return any(holds(match[0]) for match in pattern.finditer(text))


def _luhn(text: str) -> bool:
    """The check digit of ISO/IEC 7812. A number of one repeated digit is none."""
    digits = [int(c) for c in text if c in "0123456789"]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    total = 0
    for at, digit in enumerate(reversed(digits)):
        double = digit * 2 if at % 2 else digit
        total += double - 9 if double > 9 else double
    return total % 10 == 0


def _is_iban(text: str) -> bool:
    """The check digits of ISO 13616."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
