"""The text of a web page from its bytes, whatever it claims its character set to be."""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pyarrow as pa
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from filters.read.http import UTF16_MARKUP, extract_media_type

UNREADABLE = 0.05
"""Share of replacement and control characters above which a text is not readable."""
_TOLERATED = 0.02
"""Errors per byte above 0x7f up to which a declared charset is believed."""
_BROKEN_UTF8 = 0.1
"""A page whose bytes above 0x7f are UTF-8 but for this share is UTF-8 with damage, not another character set."""
_COMPARED = 256 << 10
"""Bytes of a page by which readings are compared."""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # which begins as UTF-16 does
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ERROR = re.compile(r"[\x01-\x08\x0e-\x1f\x7f-\x9f\ufffd-\uffff]")
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
"""C1 controls in UTF-8."""

_TOKEN = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(/?[a-z][^\s/>]*+)((?:[^\"'>]++|\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))*+)(?:>|\Z)|<[!/?][^>]*+",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(rb"([^\s/=\"'][^\s/=]*+)\s*+(?:=\s*+(?:\"([^\"]*+)|'([^']*+)|([^\s\"'][^\s]*+)))?")
_CONTENT_CHARSET = re.compile(rb"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*[\"']([^\"']{1,40})", re.IGNORECASE)

# What resiliparse's table of the Encoding Standard's labels lacks, and vendors' names that stand in pages.
_LABELS = {
    "x-mac-cyrillic": "mac_cyrillic", "x-mac-ukrainian": "mac_cyrillic", "mac-cyrillic": "mac_cyrillic",
    "x-user-defined": "x-user-defined",
    "hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr",
    "uhc": "cp949", "cp949": "cp949", "ms949": "cp949", "johab": "johab",
    "cp936": "gb18030", "ms936": "gb18030", "windows-936": "gb18030", "gb-2312": "gb18030", "gb2312-80": "gb18030",
    "cp950": "big5hkscs", "ms950": "big5hkscs", "windows-950": "big5hkscs", "big-5": "big5hkscs",
    "cp932": "cp932", "ms932": "cp932", "windows-932": "cp932", "cp874": "cp874", "utf-8859-1": "cp1252",
    "eucjp": "euc_jp", "euckr": "cp949", "cp65001": "utf-8", "utf": "utf-8",
}  # fmt: skip
# The Python codec that is, or comes next to, what the standard decodes a label by.
_CODECS = {"gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932", "big5": "big5hkscs", "iso8859-11": "cp874"}
_MULTIBYTE = ("gb18030", "big5hkscs", "euc_jp", "cp932", "cp949", "johab")
_PLAIN = {"cp949": "euc_kr", "cp932": "shift_jis", "euc_jp": "euc_jp", "big5hkscs": "big5", "gb18030": "gb2312"}
"""Each without what vendors and later versions added."""
_RUN = re.compile(rb"[\x80-\xff]{2,}")
_IN_RUNS = 0.6
"""Share of bytes above 0x7f that stand side by side in Chinese, Japanese and Korean; in Western languages few do."""
_ESCAPED = {"iso2022_jp": b"\x1b", "iso2022_kr": b"\x1b", "hz": b"~{"}
"""Encodings in 7 bits, and what shows them."""
_DOUBTED = frozenset((*_MULTIBYTE, *_ESCAPED, "utf-16-le", "utf-16-be"))
"""What a page that is valid UTF-8 may be in all the same, if its server says so."""
_USER_DEFINED = "".join(map(chr, [*range(128), *range(0xF780, 0xF800)]))

# HKSCS as the standard's index has it beyond Python's big5hkscs and cp950: of 2008, and codes of earlier versions.
_BIG5_CODES = (
    "877a877b877c877d877e87a187a287a387a487a587a687a787a887a987aa87ab87ac87ad87ae87af87b087b187b287b387b487b587b687b7"
    "87b887b987ba87bb87bc87bd87be87bf87c087c187c287c387c487c587c687c787c887c987ca87cb87cc87cd87ce87cf87d087d187d287d3"
    "87d487d587d687d787d887d987da87db87dc87dd87de87df8e698e6f8e7e8eab8eb48ecd8ed08f578f698f6e8fcb8fcc8ffe906d907a90dc"
    "90f191bf924492af92b092b192b292c892d1944794ca95d9964496ed96fc9b769b789b7b9bc69bde9bec9bf69c429c539c629c689c6b9c77"
    "9cbc9cbd9cd09d579d5a9dc49ea99eef9efd9f609f669fcb9fd8a063a077a0d5a0dfa0e4c6cfc6d3c6d5c6d7c6dec6dffa5ffa66fabdfac5"
    "fad5fb48fbb8fbf3fbf9fc4ffc6cfcb9fce2fcf1fdb7fdb8fdbbfdf1fe52fe6ffeaafedd"
)
_BIG5_CHARACTERS = (
    "㡵𡵓𣚞𦀡㻬𥣞㫵竼龗𤅡𨤍𣇪𠪊𣉞䌊蒄龖鐯䤰蘓墖靊鈘秐稲晠権袝瑌篅枂稬剏遆㓦珄𥶹瓆鿇垳䤯呌䄱𣚎堘穲𧭥讏䚮𦺈"
    "䆁𥶙箮𢒼鿈𢓁𢓉𢓌鿉蔄𣖻䂴鿊䓡𪷿拁灮鿋箸簆糎緒縝者耨菁蒨萏覦覩起都銹靜響鼖蔃兙兛兝兞鍮瑹浧禛邗靝瀞嬨爁"
    "矗纇駖釔惞澶輶侻營鄄鷰菏尐秣婧輋筑拐恢痹汊鬮鼗僭弌蠏拎瑨煢牐廴无癶隶〃仝倩偽包卄卿嘅婷幵廐彘悤撐晴杞"
    "沜渝港煮猪瑜瓩砉"
)
_BIG5 = {
    bytes.fromhex(_BIG5_CODES[4 * place : 4 * place + 4]): character for place, character in enumerate(_BIG5_CHARACTERS)
}
# Where the standard decodes to another character: WAVE DASH and others as Windows has them, and characters of
# GB 18030 that were in the private use area before 2022.
_INSTEAD: dict[str, dict[str, str]] = {
    "euc_jp": dict(zip("\u301c\u2016\u2212\xa2\xa3\xac", "\uff5e\u2225\uff0d\uffe0\uffe1\uffe2", strict=True)),
    "big5hkscs": dict(zip("\u2022\uff64\u203e\u223c\u2641\u2609\xa5\xa2\xa3",
                          "\u2027\ufe51\xaf\uff5e\u2295\u2299\uffe5\uffe0\uffe1", strict=True)),
    "gb18030": dict(zip("\ue5e5\ue7c7\ue78d\ue78e\ue78f\ue790\ue791\ue792\ue793\ue794\ue795\ue796"
                        "\ue81e\ue826\ue82b\ue82c\ue832\ue843\ue854\ue864",
                        "\u3000\u1e3f\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18\ufe19"
                        "\u9fb4\u9fb5\u9fb6\u9fb7\u9fb8\u9fb9\u9fba\u9fbb", strict=True)),
    "cp932": dict.fromkeys("\xa0\uf8f0\uf8f1\uf8f2\uf8f3", "\ufffd"),
    "koi8-u": {"\u255d": "\u045e", "\u256c": "\u040e"},
}  # fmt: skip


class UndecodableError(ValueError):
    """A page that is readable in no charset."""


def decode_page(payload: bytes, content_type: str) -> str:
    """The page as text: valid UTF-8 when encoded, without BOM and NUL.

    A byte order mark decides; else bytes that are valid UTF-8 are UTF-8, since a wrong `charset=iso-8859-1` is far more
    common than another encoding that happens to be valid UTF-8; else the charsets of HTTP, of meta and of the XML
    declaration, in this order, where they fit. At last, of what was declared, what is detected (resiliparse's uchardet)
    and UTF-8 the reading with the fewest errors counts. Labels mean what the Encoding Standard says.

    Args:
        payload: bytes of the page.
        content_type: media type and charset, "" if unknown.

    Raises:
        UndecodableError: more than `UNREADABLE` of the best reading are replacement or control characters.
    """
    for bom, encoding in _BOMS:
        if payload.startswith(bom):
            payload = payload[len(bom) :]
            return _best(payload, [encoding, *_declared(payload, content_type)], trust=True)
    if UTF16_MARKUP.match(payload):
        return _best(payload, ["utf-16-be" if payload.startswith(b"\0") else "utf-16-le"], trust=True)
    try:
        text = _utf8(payload)
    except UnicodeDecodeError:
        return _best(payload, list(_declared(payload, content_type)))
    served = encoding_of(extract_media_type(content_type).charset)
    if served in _DOUBTED or _is_doubtful(payload):
        text = _another(payload, text, list(_declared(payload, content_type)))
    return without_nul(text)


def utf8_page(payload: bytes, content_type: str) -> bytes:
    """`decode_page` in UTF-8: the payload itself where it is that already, which is then only checked.

    Raises:
        UndecodableError: as `decode_page`.
    """
    plain = (
        b"\0" not in payload
        and not payload.startswith(codecs.BOM_UTF8)
        and encoding_of(extract_media_type(content_type).charset) not in _DOUBTED
        and _is_utf8(payload)
        and not _is_doubtful(payload)
    )
    return payload if plain else decode_page(payload, content_type).encode("utf-8", "replace")


def _is_utf8(payload: bytes) -> bool:
    """Whether bytes are valid UTF-8; Arrow says so without decoding them."""
    offsets = pa.py_buffer(struct.pack("=qq", 0, len(payload)))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(payload)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def check_readable(text: str) -> None:
    """Hold a text against `UNREADABLE`.

    Raises:
        UndecodableError: it has too many replacement and control characters.
    """
    if errors_in(text) > UNREADABLE * len(text):
        raise UndecodableError(_unreadable(text, ""))


def errors_in(text: str) -> int:
    """Replacement and control characters of a text (not white space, not NUL)."""
    return len(_ERROR.findall(text))


def _misreadings(text: str, encoding: str) -> int:
    """Errors of a reading. GB 18030 has a character for almost any two bytes: those of the private use area are what
    another charset looks like."""
    return errors_in(text) + (len(_PRIVATE.findall(text)) if encoding == "gb18030" else 0)


def encoding_of(label: str) -> str | None:
    """The Python codec next to what the Encoding Standard decodes a label by; None if it does not know the label."""
    name = label.strip(" \t\r\n\f'\"").lower()
    found = map_encoding_to_html5(name, False)
    return _LABELS.get(name) if found is None else _CODECS.get(found, found)


def without_nul(text: str) -> str:
    """Text without NUL characters."""
    return text.replace("\0", "") if "\0" in text else text


def clean_text(text: str) -> str:
    """Text that any consumer can take: no NUL, no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return without_nul(text)


def _declared(payload: bytes, content_type: str) -> Iterator[str]:
    """Encodings by HTTP, meta and the XML declaration; one that two of them name comes twice."""
    served = extract_media_type(content_type)
    found = [encoding_of(served.charset)]
    for label in _meta_charsets(payload):
        encoding = encoding_of(label)
        if encoding is not None:
            # A meta tag that can be read as ASCII cannot be in UTF-16 (HTML standard, 13.2.3.2).
            instead = {"utf-16-le": "utf-8", "utf-16-be": "utf-8", "x-user-defined": "cp1252"}
            found.append(instead.get(encoding, encoding))
            break
    if written := _XML_ENCODING.match(payload):
        encoding = encoding_of(written[1].decode("latin-1"))
        found.append("utf-8" if encoding in ("utf-16-le", "utf-16-be") else encoding)
    return (encoding for encoding in found if encoding)


def _meta_charsets(payload: bytes) -> Iterator[str]:
    """Labels of meta tags outside of comments and other tags (HTML standard, "prescan a byte stream"), of the whole
    page, because browsers go back for a late one."""
    loose = []
    for token in _TOKEN.finditer(payload):
        if token[1] is None or token[1].lower() != b"meta":
            continue
        attributes: dict[bytes, bytes] = {}
        for name, *values in _ATTRIBUTE.findall(token[2]):
            attributes.setdefault(name.lower(), b"".join(values))
        if b"charset" in attributes:
            yield attributes[b"charset"].decode("latin-1")
        elif found := _CONTENT_CHARSET.search(attributes.get(b"content", b"")):
            label = (found[1] or found[2] or found[3] or b"").decode("latin-1")
            if attributes.get(b"http-equiv", b"").lower() == b"content-type":
                yield label
            else:
                loose.append(label)
    yield from loose


def _utf8(payload: bytes) -> str:
    """The payload as UTF-8; a character that its end cuts becomes U+FFFD.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        start = payload[: error.start]
        if error.reason != "unexpected end of data" or start.isascii():
            raise
        return start.decode() + "\ufffd"


def _is_doubtful(payload: bytes) -> bool:
    """Whether valid UTF-8 holds what pages in UTF-8 do not: escapes of ISO-2022, C1 controls, or the name of HZ."""
    return b"\x1b" in payload or _C1.search(payload) is not None or b"hz-gb-2312" in payload[:4096].lower()


def _another(payload: bytes, text: str, declared: list[str]) -> str:
    """The page by a declared charset where that fits better, though its bytes are UTF-8 too."""
    if b"\x1b$B" in payload or b"\x1b$@" in payload:
        declared = [*declared, "iso2022_jp"]
    doubted = errors_in(text)
    for encoding in dict.fromkeys(declared):
        if encoding in _ESCAPED:
            fits = _ESCAPED[encoding] in payload
        elif encoding in _MULTIBYTE:
            # UTF-8 in Chinese, Japanese or Korean has sequences of three bytes.
            fits = re.search(rb"[\xe0-\xff]", payload) is None and (doubted > 0 or declared.count(encoding) > 1)
        else:
            fits = encoding.startswith("utf-16") and b"\0" in payload
        if fits:
            reading = _read(payload, encoding)
            if errors_in(reading) <= (doubted if encoding in _ESCAPED else 0):
                text = reading
                break
    check_readable(text)
    return text


def _best(payload: bytes, declared: list[str], *, trust: bool = False) -> str:
    """The page by the first declared charset that fits (with `trust` even before UTF-8 with damage), else by the one
    with the fewest errors.

    Raises:
        UndecodableError: none is readable.
    """
    sample = payload[:_COMPARED]
    high = len(sample) - len(sample.translate(None, bytes(range(128, 256))))
    is_utf8 = sample.decode("utf-8", "replace").count("\ufffd") <= max(_BROKEN_UTF8 * high, 1 if high > 8 else 0)
    errors: dict[str, int] = {}
    for encoding in dict.fromkeys([*declared, "utf-8"]):
        errors[encoding] = _misreadings(_read(sample, encoding), encoding)
        multibyte = encoding in _MULTIBYTE or encoding in _ESCAPED
        fits = errors[encoding] <= _TOLERATED * high and (
            not is_utf8 or encoding == "utf-8" or trust or (multibyte and not errors[encoding])
        )
        if fits or (encoding == "utf-8" and is_utf8):
            break
    else:
        detected = _detected(sample, high)
        if detected is not None and detected not in errors:
            errors[detected] = _misreadings(_read(sample, detected), detected)
        encoding = min(errors, key=errors.__getitem__)
    text = _read(sample, encoding)
    if errors[encoding] > UNREADABLE * len(text):
        raise UndecodableError(_unreadable(text, encoding))
    return without_nul(text if len(sample) == len(payload) else _read(payload, encoding))


def _detected(sample: bytes, high: int) -> str | None:
    """What uchardet takes a page for. It knows no vendor's characters, and one of them misleads it: so it is asked once
    more about what each Chinese, Japanese and Korean charset reads, without those (EUC-KR spells some in 8 bytes)."""
    found = _uchardet(sample)
    if found in _ESCAPED or (found in _MULTIBYTE and found != "gb18030"):  # which fits almost anything
        return found
    if sum(map(len, _RUN.findall(sample))) < _IN_RUNS * high:
        return found or "cp1252"
    confirmed: dict[str, int] = {}
    for encoding, plain in _PLAIN.items():
        text = _read(sample, encoding)
        if errors_in(text) <= _TOLERATED * high:
            spelt_out = {ord(character) for character in set(text) if len(character.encode(plain, "ignore")) > 3}
            known = text.translate(dict.fromkeys(spelt_out)).encode(plain, "ignore")
            if _uchardet(known) == encoding:
                confirmed[encoding] = len(known)
    return max(confirmed, key=confirmed.__getitem__, default=found)


def _uchardet(data: bytes) -> str | None:
    return encoding_of(detect_encoding(data, html5_compatible=False) or "")


def _unreadable(text: str, encoding: str) -> str:
    share = errors_in(text) / max(len(text), 1)
    return f"{share:.0%} of the text{f' as {encoding}' if encoding else ''} are replacement or control characters"


def _read(payload: bytes, encoding: str) -> str:
    """The payload by a codec with what the Encoding Standard decodes beyond it; U+FFFD for what it does not."""
    if encoding == "iso2022_jp":
        text = _iso2022_jp(payload)
    elif encoding == "x-user-defined":
        text = codecs.charmap_decode(payload, "replace", _USER_DEFINED)[0]
    else:
        text = payload.decode(encoding, _HANDLERS.get(encoding, "finesieve.single_byte"))
    instead = _INSTEAD.get(encoding)
    if instead:
        text = re.sub(f"[{''.join(instead)}]", lambda match: instead[match[0]], text)
    return text


_ESCAPE = re.compile(rb"\x1b(\([BJI]|\$\(?[@BD])")
_HIGH = bytes(byte | 128 if 33 <= byte < 127 else byte for byte in range(256))


def _iso2022_jp(payload: bytes) -> str:
    """ISO-2022-JP: each escape says what follows, whose characters are those of EUC-JP and Shift_JIS."""
    first, *rest = _ESCAPE.split(payload)
    parts = [first.decode("ascii", "replace")]
    for escape, data in zip(rest[::2], rest[1::2], strict=True):
        if escape == b"(B":
            parts.append(data.decode("ascii", "replace"))
        elif escape == b"(J":
            parts.append(data.decode("ascii", "replace").replace("\\", "¥").replace("~", "‾"))
        elif escape == b"(I":
            parts.append(_read(data.translate(_HIGH), "cp932"))
        elif escape == b"$(D":
            parts.append(_read(re.sub(rb"([!-~]{2})", b"\x8f\\1", data).translate(_HIGH), "euc_jp"))
        else:
            parts.append(_read(data.translate(_HIGH), "euc_jp"))
    return "".join(parts)


def _euc_row(pair: bytes) -> str:
    """A character of JIS X 0208 with the rows of vendors (13, 89 to 92), by way of Shift_JIS."""
    row, cell = pair[0] - 0xA1, pair[1] - 0xA1
    if not (0 <= row < 94 and 0 <= cell < 94):
        return ""
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + (0x9F if row % 2 else 0x40 if cell < 63 else 0x41)
    return bytes((lead, trail)).decode("cp932", "ignore")


def _big5(pair: bytes) -> str:
    if pair[0] == 0xA3 and 0xC0 <= pair[1] <= 0xE0:  # pictures of control characters
        return chr(0x2400 + pair[1] - 0xC0 + (pair[1] == 0xE0))
    return _BIG5.get(pair) or pair.decode("cp950", "ignore")


def _mended(more: Callable[[bytes], str], error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: two bytes that the codec does not know by `more`, else U+FFFD; a second byte that is
    ASCII is not swallowed."""
    assert isinstance(error, UnicodeDecodeError)
    pair = error.object[error.start : error.start + 2]
    both = len(pair) == 2 and pair[0] > 0x80
    if both and (found := more(pair)):
        return found, error.start + 2
    if pair[0] == 0x80 and error.encoding == "gb18030":
        return "€", error.start + 1
    return "\ufffd", error.start + (2 if both and pair[0] < 0xFF and pair[1] > 0x7F else 1)


def _single_byte(more: Mapping[int, str], error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: the C1 controls that the standard puts where a code page has nothing."""
    assert isinstance(error, UnicodeDecodeError)
    byte = error.object[error.start]
    return more.get(byte) or (chr(byte) if 0x80 <= byte < 0xA0 else "\ufffd"), error.start + 1


codecs.register_error("finesieve.single_byte", partial(_single_byte, {}))
codecs.register_error("finesieve.cp1255", partial(_single_byte, {0xCA: "\u05ba"}))
codecs.register_error("finesieve.euc_jp", partial(_mended, _euc_row))
codecs.register_error("finesieve.big5", partial(_mended, _big5))
codecs.register_error("finesieve.multibyte", partial(_mended, lambda pair: ""))
_HANDLERS = {
    **dict.fromkeys(_MULTIBYTE, "finesieve.multibyte"),
    "euc_jp": "finesieve.euc_jp",
    "big5hkscs": "finesieve.big5",
    "cp1255": "finesieve.cp1255",
    **dict.fromkeys(("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "hz", "iso2022_kr"), "replace"),
}
