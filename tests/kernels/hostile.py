"""Texts that break things, and random ones, for every kernel's test against its plain-Python reference."""

from __future__ import annotations

import random

HOSTILE = [
    b"",
    b"a",
    b" ",
    b"\n",
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xed\xa0\x80 lone surrogate",
    b"\xc0\xaf overlong \xe0\x80\xaf \xf0\x80\x80\xaf",
    b"\xf4\x90\x80\x80 beyond \xf8\x88\x80\x80\x80",
    b"\x80\x80\x80",
    b"caf\xe9 latin-1",
    b" \t\n\r\x0b\x0c\x1c\x85 " * 50,
    "\u00a0\u2003\u3000 all white \u2028\u2029".encode(),
    b"a\x00b\x00\x00c",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1f0 \u2764\ufe0f".encode(),
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0 kanji\u3068kana \uff76\uff80\uff76\uff85".encode(),
    "\U00020000\U0002a6df\U00030000 \U0001d400\U0001d401".encode(),
    "\u0130STANBUL Stra\u00dfe \u03a3\u0391\u03a3 \u023a\u212a \u01c5 na\u00efve co\u00adop\u200berate".encode(),
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \uc548\ub155\ud558\uc138\uc694 \u0645\u0631\u062d\u0628\u0627".encode(),
    b"</s>",
    b"one </s> two",
    b"</s></s> </s>x",
    b"__label__a text __label__ __label__zzz _ __ __labe",
    b"word " * 3,
    b"UPPER lower MiXeD 123 4,5.6 don't under_score e-mail@x.org",
    b"x" * 100_000,
    ("\u00e9" * 30_000).encode(),
    b"ab " * 5_000,
]


def random_texts(count: int, seed: int) -> list[bytes]:
    """Words from a small vocabulary, any code points, or any bytes, in turns."""
    draw = random.Random(seed)
    vocabulary = [
        "the",
        "Of",
        "klasse",
        "\u00e6ble",
        "x1",
        "\u6f22\u5b57",
        "\u041c\u043e\u0441",
        "</s>",
        "__label__a",
        "\U0001f600",
    ]
    texts = []
    for number in range(count):
        length = draw.choice([0, 1, 2, 4, 5, 30, 200])
        if number % 3 == 0:
            joined = "".join(
                draw.choice(vocabulary) + draw.choice([" ", "\n", ", ", "\x00", " "]) for _ in range(length)
            )
            texts.append(joined.encode())
        elif number % 3 == 1:
            codes = [draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)]) for _ in range(length)]
            texts.append("".join(map(chr, codes)).encode())
        else:
            texts.append(bytes(draw.choice([draw.randrange(256), 32, 0xC3, 0xE2, 0x80]) for _ in range(length)))
    return texts


def window_texts(seed: int) -> list[bytes]:
    """ASCII words, marks and white space that begin and end at every place of windows of 64 bytes, some not ASCII."""
    draw = random.Random(seed)
    texts = [b"a" * 60 + b"B" * length + b" c" * 40 for length in range(10)]
    texts += [b"." * 60 + b" " * gap + b"x" * 70 + b"\n" * gap + b"Yz" for gap in range(8)]
    pieces = ["a", "Be", "tree", "Nine9", "x_y", "0123456789", "__label__no", "</s>", "p" * 70, " ", "  ", "\n", "\n\n"]
    pieces += [".", "...", ", ", "\t", "\x1c", "\x00", "\r\n", "\u00e9", "\u6f22", "\U0001f600", "\u00a0", "\u00ad"]
    weights = [10] * 7 + [1, 1] + [12, 2, 4, 2] + [4, 1, 6] + [1] * 9
    for length in range(60):
        text = "".join(draw.choices(pieces, weights, k=length)).encode()
        texts += [text, text + b"\xff" + text]
    return texts


TEXTS = HOSTILE + random_texts(150, seed=7) + window_texts(seed=8)


def characters(text: bytes) -> str:
    """Decoded, with U+FFFD for each byte that is in no valid sequence."""
    decoded = []
    position = 0
    while position < len(text):
        for size in (1, 2, 3, 4):
            try:
                decoded.append(text[position : position + size].decode())
            except UnicodeDecodeError:
                continue
            break
        else:
            size = 1
            decoded.append("\ufffd")
        position += size
    return "".join(decoded)
