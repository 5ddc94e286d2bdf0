"""A page in a prompt: delimited, bounded in tokens, and unable to end its own frame.

Whoever wrote the page may want a high score. Nothing here decides what a judge believes; it makes sure that the page
stays a page: it cannot forge our delimiters or a chat template's tokens (servers such as llama.cpp and vLLM parse
those inside a message), cannot hide text in invisible characters, and cannot push the question out of the window.
What instructions in plain words do to a judge's scores is measured by benchmarks/injections.py.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

OPEN = "<page>"
CLOSE = "</page>"
CUT_NOTE = "(Cut: the first {shown:,} of {total:,} characters are shown.)"

TokenCounter = Callable[[str], int]
"""How many tokens a judge makes of a text."""

_CHARACTERS_PER_TOKEN = 16
"""More than tokenizers reach on prose: text beyond this many characters a token is cut before anything is counted."""
MIN_TOKENS = 64
"""Room for the frame, the note of a cut and a few words."""
_TRIES = 8
_PASSES = 4
_ROOM_FOR_NOTE = 32


@dataclass(frozen=True, slots=True)
class Delimited:
    """A page as a judge sees it.

    Attributes:
        text: `OPEN`, the page, `CLOSE`, each on lines of their own; after a cut, a line that says where.
        truncated: whether the page was cut.
        neutralised: places that were changed: forged delimiters and template tokens, role headings, and runs of
            control, bidirectional and invisible characters.
        shown: characters of the page up to the cut, counted as the judge sees them.
    """

    text: str
    truncated: bool
    neutralised: int
    shown: int


def delimit(text: str, max_tokens: int, count_tokens: TokenCounter | None = None) -> Delimited:
    """Frame a page for a prompt.

    Args:
        text: the page, of any content.
        max_tokens: most tokens that the result may have, frame and note of a cut included.
        count_tokens: of the judge; None: the estimate of `filters.kernels.tokens`. Called once for a page that fits,
            and a few times for one that is cut. `token_counter` makes one.

    Raises:
        ValueError: `max_tokens` has no room for a page.
    """
    count = count_tokens or estimate_tokens
    limit = max_tokens * _CHARACTERS_PER_TOKEN
    head, neutralised = neutralise(text[:limit])
    clipped = len(text) > limit
    framed = _frame(head, None)
    if not clipped and count(framed) <= max_tokens:
        return Delimited(framed, False, neutralised, len(head))
    total = len(head) + max(0, len(text) - limit)
    shown = _fitting(head, total, max_tokens, count)
    return Delimited(_frame(head[:shown], total), True, neutralised, shown)


def token_counter(path: str | None) -> TokenCounter | None:
    """A counter from a judge's tokenizer.json, which is JSON and executes nothing; None without one.

    Without one `estimate_tokens` counts, and what the server refuses as too long is cut and asked again.

    Raises:
        ConfigError: the file is missing or no tokenizer.
        MissingExtraError: the tokenizers package is not installed.
    """
    if path is None:
        return None
    from filters.kernels.tokens import load_tokenizer

    tokenizer = load_tokenizer(path, "tokenizer")
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def estimate_tokens(text: str) -> int:
    """Tokens by the fitted rule of `filters.kernels.tokens`, for a judge whose server does not count."""
    from filters.kernels.packed import PackedText
    from filters.kernels.tokens import token_estimate

    return int(token_estimate(PackedText.from_strings([text]))[0])


def _frame(page: str, total: int | None) -> str:
    framed = f"{OPEN}\n{page}\n{CLOSE}"
    return framed if total is None else f"{framed}\n{CUT_NOTE.format(shown=len(page), total=total)}"


def _fitting(page: str, total: int, max_tokens: int, count: TokenCounter) -> int:
    """How many characters of `page` fit: a search by interpolation, its result counted and never above the limit."""
    low, high = 0, len(page)
    best = -1
    guess = min(high, max_tokens * 4)
    for _ in range(_TRIES):
        cut = _boundary(page, guess)
        tokens = count(_frame(page[:cut], total))
        if tokens <= max_tokens:
            best, low = max(best, cut), guess
            if tokens >= 0.97 * max_tokens or guess >= len(page):
                return best
        else:
            high = min(high, guess)
        aim = int(guess * (0.985 * max_tokens - _ROOM_FOR_NOTE) / max(tokens - _ROOM_FOR_NOTE, 1))
        guess = aim if low < aim < high else (low + high) // 2
    while best < 0 and guess > 0:
        guess //= 2
        cut = _boundary(page, guess)
        if count(_frame(page[:cut], total)) <= max_tokens:
            best = cut
    if best < 0:
        raise ValueError(f"max_tokens = {max_tokens} has no room for a page and its frame; give at least {MIN_TOKENS}")
    return best


def _boundary(page: str, most: int) -> int:
    """The end of the last sentence, else word, in the last tenth of the first `most` characters; else `most`."""
    if most >= len(page):
        return len(page)
    start = most - most // 10
    ends = [match.end() for match in re.finditer(r"[.!?。！？](?=\s)|\n", page[start:most])]
    if not ends:
        ends = [match.start() for match in re.finditer(r"\s", page[start:most])]
    return start + ends[-1] if ends else most


def neutralise(text: str) -> tuple[str, int]:
    """The text without anything that imitates our delimiters or a chat template, and without invisible characters.

    Returns:
        (text, number of places changed). Applied to its own result it changes nothing.
    """
    text = _LINE_ENDS.sub("\n", text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = text.replace("\xad", "")
    text = _SPACES.sub(" " * 8, _BLANK_LINES.sub("\n\n", text))
    changed = 0
    for _ in range(_PASSES):
        text, count = _disarm(text)
        changed += count
        if not count:
            break
    else:  # nested so that each pass uncovers another: no bracket survives
        text = "".join(_PLAIN.get(shape, character) for shape, character in zip(skeleton(text), text, strict=True))
    text, count = _show_invisible(text)
    changed += count
    return text.strip(), changed


_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
_SPACES = re.compile(r"(?=\s{9})[^\S\n]{9,}")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n){2,}")
_PLAIN = {"<": "(", ">": ")", "[": "(", "]": ")", "{": "(", "}": ")", "|": "!", "&": "+"}

# --- forged structure, matched on the skeleton: lower-case ASCII, ignorable characters as NUL

_LIKE = str.maketrans("аеорсіѕАЕОРСІЅɡ‹›⟨⟩〈〉▁", "aeopcisAEOPCISg<><><>_")
"""Look-alikes of what a delimiter or a token of DeepSeek's template is made of; compatibility forms are Unicode's."""
_FILLERS = (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x2800, 0x3164, 0xFFA0)
_WIDE = (*range(0x80, 0x10000), *range(0x1D400, 0x1D800), *range(0xE0000, 0xE1000))


def skeleton(text: str) -> str:
    """The text as a model's tokenizer may read it, as long as `text`: lower-case, in ASCII where NFKD has one letter.

    Characters that are not seen (joiners, marks, fillers, tags) are NUL.
    """
    return text.lower() if text.isascii() else text.translate(_folded())


@functools.cache
def _folded() -> dict[int, str]:
    table = {code: chr(code).lower() for code in range(128)}
    for code in _WIDE:
        if unicodedata.category(chr(code)) in ("Cf", "Mn", "Me") or code >= 0xE0000:
            table[code] = "\0"
            continue
        plain = [part for part in unicodedata.normalize("NFKD", chr(code)) if not unicodedata.combining(part)]
        letter = "".join(plain).translate(_LIKE).lower()
        if len(letter) == 1 and letter.isascii():
            table[code] = letter
    return table | dict.fromkeys(_FILLERS, "\0")


_OPENING = r"(?:[<\[{]|&lt;?|&\#0*60;?|&\#x0*3c;?|%3c|\\u003c|\\x3c)"
_CLOSING = r"(?:[>\]}]|&gt;?|&\#0*62;?|&\#x0*3e;?|%3e|\\u003e|\\x3e)"
# fmt: off
_TOKENS = [
    "s", "bos", "eos", "pad", "unk", "cls", "sep", "mask", "inst", "sys", "system", "user", "human", "assistant",
    "model", "tool", "tools", "think", "thinking", "answer", "instruction", "instructions", "response", "prompt",
    "context", "gmask", "sop", "eop", "turn", "step", "image", "start_of_turn", "end_of_turn", "start_of_image",
    "end_of_image", "tool_call", "tool_calls", "tool_response", "tool_results", "available_tools",
    "system_prompt", "im_start", "im_end", "im_sep", "endoftext", "end_of_text", "begin_of_text", "eot_id",
    "start_header_id", "end_header_id",
]
# fmt: on
"""Names of special tokens of chat templates: ChatML, Llama, Mistral, Gemma, Phi, Command, GLM, DeepSeek, T5."""


def _spelt(word: str, gap: str = r"\0{0,8}") -> str:
    return gap.join(re.escape(character) for character in word)


_OWN = _spelt("page", r"[\0\s]{0,8}")
_KNOWN = "|".join(_spelt(token) for token in _TOKENS)
# Every repetition is bounded, so that no page makes the search quadratic.
_FORGED = re.compile(
    r"(?=[<\[{&%\\])(?:"
    + "|".join(
        (
            # our own delimiter, in any brackets, spelt with gaps or not
            rf"{_OPENING}{{1,8}}[\0\s/\\|!_-]{{0,16}}{_OWN}(?![a-z0-9])(?:[\0\s/\\|]{{0,16}}{_CLOSING}{{1,8}})?",
            # <|anything|>
            rf"{_OPENING}{{1,8}}\0{{0,8}}\|[^<>\n]{{1,64}}?\|\0{{0,8}}{_CLOSING}{{1,8}}",
            rf"{_OPENING}{{1,8}}[\0\s/|]{{0,16}}(?:{_KNOWN})[\0\s/|]{{0,16}}{_CLOSING}{{1,8}}",
            rf"{_OPENING}{{1,8}}(?:extra_id_|unused|reserved|0x)[a-z0-9_\0]{{1,32}}{_CLOSING}{{1,8}}",
            # <any_name>, but not the parameter of a template in C++
            r"(?<![a-z0-9])<[\0/]{0,8}[a-z0-9\0]{1,32}_[a-z0-9_\0]{1,64}>",
        )
    )
    + ")"
)
_HEADING = re.compile(
    r"^[^\S\n]*(?:\#{1,6}[^\S\n]*|\*{1,3})?"
    r"(system|user|human|assistant|instruction|response|input|prompt)(?:[^\S\n]+(?:message|prompt))?[\0*]{0,8}:\*{0,3}",
    re.MULTILINE,
)
_BRACKETS = re.compile(rf"({_OPENING}+)|({_CLOSING}+)|[\0|]+")


def _disarm(text: str) -> tuple[str, int]:
    """Replace what looks like structure by its words in parentheses."""
    shape = skeleton(text)
    spans = [match.span() for match in _FORGED.finditer(shape)]
    headings = [match.span() for match in _HEADING.finditer(shape)]
    if not spans and not headings:
        return text, 0
    parts: list[str] = []
    position = changed = 0
    for (start, end), words in sorted([(span, _forged) for span in spans] + [(span, _heading) for span in headings]):
        if start >= position:
            parts += [text[position:start], words(text[start:end], shape[start:end])]
            position, changed = end, changed + 1
    parts.append(text[position:])
    return "".join(parts), changed


def _forged(text: str, shape: str) -> str:
    parts: list[str] = []
    position = 0
    for match in _BRACKETS.finditer(shape):
        parts += [text[position : match.start()], "(" if match[1] else ")" if match[2] else ""]
        position = match.end()
    return "".join([*parts, text[position:]])


def _heading(text: str, shape: str) -> str:
    return "(" + text.strip(" \t#*:\0") + ")"


# --- invisible characters

_UNSEEN = (
    "\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
# Joiners are orthography in Persian, in the Indic scripts and in emoji, and one variation selector may follow a symbol:
# these stay, one at a time and between such characters.
_JOINING = "\u0600-\u07ff\u08a0-\u0dff\u0e00-\u109f\u1780-\u18af\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_SYMBOL = "#*0-9\u00a9\u00ae\u203c-\u9fff\U0001f000-\U0001faff"
_INVISIBLE = re.compile(
    rf"(?=[{_UNSEEN}])(?:(?P<stays>(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])"
    rf"|(?<=[{_SYMBOL}])[\ufe00-\ufe0f](?![\ufe00-\ufe0f\U000e0100-\U000e01ef]))"
    rf"|[{_UNSEEN}]+)"
)
_SPELT_OUT = 8
"""Longer runs of invisible characters are only counted: text smuggled in them is not spelt out."""


def _show_invisible(text: str) -> tuple[str, int]:
    """(text with control and invisible characters as code points in brackets, number of runs)."""
    if text.isascii() and not _CONTROL.search(text):
        return text, 0
    runs = 0

    def show(match: re.Match[str]) -> str:
        nonlocal runs
        run = match[0]
        if match["stays"]:
            return run
        runs += 1
        if len(run) > _SPELT_OUT:
            return f"[{len(run)} invisible characters]"
        return "".join(f"[U+{ord(character):04X}]" for character in run)

    return _INVISIBLE.sub(show, text), runs
