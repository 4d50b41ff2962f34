r"""The final answer of a worked solution, compared as the field's verifiers compare: by its value where it is a number.

    "... 48 + 24 = 72.\n#### 72"      72        the number behind gsm8k's mark
    "... so it is \boxed{\frac{1}{2}}" 1/2      the last box
    "She has $1,072.50 left."          1072.5   else the last number

Source of the forms: gsm8k (Cobbe et al. 2021, arXiv 2110.14168), MATH (Hendrycks et al. 2021, arXiv 2103.03874).
"""

import re
from fractions import Fraction

MARK = "####"
BOXES = (r"\boxed", r"\fbox")
PLAIN = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3})?"  # 1,072.50 or 1e3
# A sign belongs to what it touches, where no number or word stands before: 10-5 and 10 - 5 end with 5, x=-5 with -5.
NUMBER = re.compile(rf"(?<![\w.])-?(?:{PLAIN})(?:/\d+)?|(?<![\w.,])(?:{PLAIN})(?:/\d+)?")
WITH_UNIT = re.compile(rf"([+-]?(?:{PLAIN})(?:/\d+)?)[A-Za-z ]*")  # 42, 42 km
FRACTION = re.compile(r"\\frac(?:\{([^{}]*)\}\{([^{}]*)\}|(\w)(\w))")
NOISE = re.compile(r"\\left|\\right|\\[!,;: ]|\\?\$|\\?%|\^\{?\\circ\}?|~")
TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf)\{([^{}]*)\}")


def is_right(completion: str, answer: str | float) -> bool:
    """Whether the completion's final answer is the record's `answer`, which may be a worked solution itself."""
    wanted = expected(str(answer))
    value = number(wanted)
    if value is not None:
        return final_number(completion) == value
    boxed = last_box(completion)  # what is no number counts in a box or behind the mark only
    marked = boxed if boxed is not None else after_mark(completion)
    return marked is not None and normal(marked) == normal(wanted)


def final_number(text: str) -> Fraction | None:
    """The number in the last box, else behind the last mark, else the last one; None where no number is there."""
    boxed = last_box(text)
    if boxed is not None:
        return number(boxed)
    marked = after_mark(text)
    if marked is not None:
        return marked_number(marked, text.rpartition(MARK)[2])
    return value_of(last_number(text))


def marked_number(line: str, rest: str) -> Fraction | None:
    """Of the line behind a mark the number it is, or begins with, or of a sum its result; else the last of the rest.

    gsm8k's own reading, too, takes the number at once behind the mark, whatever follows.
    """
    result = line.rpartition("=")[2]
    whole = number(result)
    if whole is not None:
        return whole
    first = NUMBER.search(plain(result))
    return value_of(first[0] if first else last_number(rest))


def value_of(text: str | None) -> Fraction | None:
    return None if text is None else number(text)


def expected(answer: str) -> str:
    """A record's answer without the work before it."""
    boxed = last_box(answer)
    marked = boxed if boxed is not None else after_mark(answer)
    return answer if marked is None else marked


def after_mark(text: str) -> str | None:
    """The rest of the line behind the last ####."""
    _, mark, rest = text.rpartition(MARK)
    lines = rest.strip().splitlines()
    return lines[0] if mark and lines else None


def last_box(text: str) -> str | None:
    r"""What stands in the last \boxed{}, its braces balanced; None where there is none, or it is not closed."""
    start, name = max((text.rfind(name), name) for name in BOXES)
    if start < 0:
        return None
    rest = text[start + len(name):].lstrip()
    if not rest.startswith("{"):
        return rest.split("$")[0].strip() or None  # \boxed 72
    depth = 0
    for place, letter in enumerate(rest):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:place]
    return None


def last_number(text: str) -> str | None:
    """The last number in a text, with its sign."""
    numbers = NUMBER.findall(plain(text))
    return numbers[-1] if numbers else None


def number(text: str) -> Fraction | None:
    """The value of a number, a decimal or a fraction, whatever unit stands behind it; None of all else."""
    found = WITH_UNIT.fullmatch(re.sub(r"\s+", " ", normal(text)))
    if not found:
        return None
    try:
        return Fraction(found[1].replace(",", ""))
    except (ValueError, ZeroDivisionError):  # more digits than Python reads, or n/0
        return None


def normal(text: str) -> str:
    """An answer without what does not change it: $, %, degrees, commas in numbers, spaces, `x =`, **, a full stop."""
    text = plain(text).strip("* \t\n").rstrip(".").strip("* ")
    name, equals, rest = text.partition("=")
    text = rest if equals and len(name.strip()) <= 2 else text
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return re.sub(r"\s+(?=\W)|(?<=\W)\s+", "", text.strip())


def plain(text: str) -> str:
    r"""LaTeX's fractions as a/b, and no marks of its own: \dfrac{1}{2} is 1/2, \frac{x+1}{2} (x+1)/2."""
    text = NOISE.sub("", text.replace("−", "-").replace("{,}", ",").replace("dfrac", "frac").replace("tfrac", "frac"))
    text = TEXT.sub(r"\1", text)
    while FRACTION.search(text):
        text = FRACTION.sub(slashed, text)
    return text


def slashed(fraction: re.Match[str]) -> str:
    return "/".join(bracketed(term) for term in fraction.groups() if term is not None)


def bracketed(term: str) -> str:
    """A term of a fraction as it stands beside a slash."""
    term = term.strip()
    return term if re.fullmatch(r"-?[\w.]*", term) else f"({term})"
