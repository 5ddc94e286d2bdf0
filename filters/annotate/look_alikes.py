"""What characters look like: a text spelt as the lower-case ASCII a reader, or a language model, takes it for."""

from __future__ import annotations

import functools
import re
import unicodedata

IGNORED = "\0"
"""Stands for a character that is not seen: joiners, marks, fillers, tags."""

_LETTERS = {
    # Cyrillic, Greek, Armenian, Cherokee and Lisu letters that fonts draw like Latin ones
    "a": "аαᎪꓮΑАɑ", "b": "ЬВΒᏴꓐƄь", "c": "сСϲϹᏟꓚⅽ", "d": "ԁᎠꓓժ", "e": "еЕΕᎬꓰєҽε℮", "f": "ꓝϜƒ", "g": "ɡցᏀꓖԌɢ",
    "h": "һНΗᎻꓧհ", "i": "іІΙıɩӀ", "j": "јЈᎫꓙϳ", "k": "кКΚᏦꓗκ", "l": "ӏᏞꓡǀן", "m": "мМΜᎷꓟ", "n": "ՀΝꓠпռη", "o": "оОοΟօՕ",
    "p": "рРρΡᏢꓑ", "q": "ԛգ", "r": "гᏒꓣᎡ", "s": "ѕЅᏚꓢՏ", "t": "тТΤᎢꓔτ", "u": "սՍꓴυ", "v": "ѵѴνᏙꓦ", "w": "ԝԜᎳꓪω",
    "x": "хХχΧꓫ", "y": "уУγΥҮүꓬ", "z": "ᏃꓜΖ", "<": "‹«⟨〈˂ᐸ❮❬⧼≺⟪《⦑⪡≪𝈶", ">": "›»⟩〉˃ᐳ❯❭⧽≻⟫》⦒⪢≫𝈷", "[": "⟦〚【〔❲⁅",
    "]": "⟧〛】〕❳⁆", "{": "❴⦃", "}": "❵⦄", "/": "⁄∕⧸╱⟋⫽⼃丿", "\\": "∖⧵⧹╲", "|": "∣❘ǀ│┃┆┇╎¦⏐", "_": "▁ˍ", ":": "∶꞉ː։׃",
}  # fmt: skip

_VARIANT = re.compile(r".*\bLETTER (?:SMALL CAPITAL )?([A-Z])(?: WITH .*)?")
"""Small capitals, squared, circled, barred and regional letters, by their names."""


def skeleton(text: str) -> str:
    """The text character by character as what it looks like: as long as `text`, lower-case ASCII where possible."""
    if text.isascii():
        return text.lower()
    return text.translate(_look_alikes())


@functools.cache
def _look_alikes() -> dict[int, str]:
    """Code point -> the one ASCII character it looks like, or NUL for what is not seen."""
    table: dict[int, str] = {code: chr(code).lower() for code in range(128)}
    for code in (*range(0x80, 0x10000), *range(0x1D400, 0x1D800), *range(0x1F100, 0x1F200), *range(0xE0000, 0xE1000)):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Cs", "Co", "Lo") and not 0xFF00 <= code <= 0xFFEF:
            continue
        if category in ("Cf", "Mn", "Me") or 0xE0000 <= code <= 0xE0FFF:
            table[code] = IGNORED
            continue
        named = _VARIANT.fullmatch(unicodedata.name(character, ""))
        plain = named[1] if named else unicodedata.normalize("NFKD", character)
        seen = [part for part in plain if not unicodedata.combining(part)]
        inner = [part for part in seen if part not in "()"] or seen  # a letter in parentheses is that letter
        if len(inner) == 1 and inner[0].isascii():
            table[code] = inner[0].lower()
    for letter, likes in _LETTERS.items():
        table |= {ord(character): letter for character in likes}
    table |= dict.fromkeys((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x2800, 0x3164, 0xFFA0), IGNORED)
    return table
