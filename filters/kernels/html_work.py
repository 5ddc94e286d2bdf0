"""Estimates the work of parsing a page: simulates the tree constructor of HTML without a tree.

Of the "list of active formatting elements" (HTML Standard, 13.2.4.3) all that were closed by the way are built again,
attributes and all, in each paragraph, so that time and memory grow with the square of the page; what an end tag closes
is looked for along all open elements. Both are counted here. The rules of the standard (13.2.6) are simplified to the
side of counting more: what is in a <select> or a <title> counts, and elements of SVG are as any others.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

FORMATTING, UNIQUE, VOID, CLOSES_P, MARKER, SPECIAL, SCOPE, TRANSPARENT = (1 << bit for bit in range(8))
ITEM, TERM, HEADING, CELL, ROW, SECTION, TABLE, PARAGRAPH = (1 << bit for bit in range(8, 16))
OPTION, SCRIPT, FOREIGN, ROOT, BUTTON, SILENT = (1 << bit for bit in range(16, 22))

_NAMES = {
    FORMATTING: "a b big code em font i nobr s small strike strong tt u",
    UNIQUE: "a nobr",
    VOID: "area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr",
    CLOSES_P: "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer "
    "form header hgroup main menu nav ol p search section summary ul h1 h2 h3 h4 h5 h6 pre listing table li dd dt "
    "plaintext hr xmp",
    MARKER: "applet marquee object template td th caption",
    SPECIAL: "address applet article aside blockquote button caption center colgroup dd details dir div dl dt fieldset "
    "figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 header hgroup iframe li listing main marquee menu nav "
    "noembed noframes noscript object ol p plaintext pre script search section select style summary table tbody td "
    "template textarea tfoot th thead title tr ul xmp",
    SCOPE: "applet caption table td th marquee object template",
    TRANSPARENT: "address div p",
    ITEM: "li",
    TERM: "dd dt",
    HEADING: "h1 h2 h3 h4 h5 h6",
    CELL: "td th",
    ROW: "tr",
    SECTION: "tbody thead tfoot caption colgroup",
    TABLE: "table",
    PARAGRAPH: "p",
    OPTION: "option optgroup",
    SCRIPT: "script",
    FOREIGN: "svg math",
    ROOT: "html head body",
    BUTTON: "button",
    SILENT: "base link meta script style template title noscript tbody thead tfoot tr td th caption col colgroup param "
    "source track head body html",
}
"""Properties of elements. SILENT: its start tag builds no formatting elements again; so do those that close a <p>."""


class Work(NamedTuple):
    """Work that a parser does for a page.

    Attributes:
        rebuilt: formatting elements built again, and their attributes.
        steps: open or formatting elements looked at.
        depth: most elements open at once, without <html>, <head> and <body>.
        attributes: most attributes of one tag.
    """

    rebuilt: int
    steps: int
    depth: int
    attributes: int


_START, _PRIME = 0xCBF29CE484222325, 0x100000001B3


def _hash(name: str) -> int:
    value = _START
    for byte in name.encode():
        value = (value ^ byte) * _PRIME % 2**64
    return (value + 2**63) % 2**64 - 2**63


def _table(flags: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hashes and flags of elements where `_flag_of` looks for them: from the slot that the hash names on."""
    hashes, found = np.zeros(_SLOTS, np.int64), np.zeros(_SLOTS, np.int64)
    for name, flag in flags.items():
        slot = name & (_SLOTS - 1)
        while hashes[slot]:
            slot = (slot + 1) & (_SLOTS - 1)
        hashes[slot], found[slot] = name, flag
    return hashes, found


_SLOTS = 1024
_HASHES, _FLAGS = _table(
    {
        _hash(name): sum(flag for flag, names in _NAMES.items() if name in names.split())
        for name in " ".join(_NAMES.values()).split()
    }
)
_SCRIPT_HASH = _hash("script")
_BYTES = np.arange(256)
_BLANK = np.isin(_BYTES, (9, 10, 12, 13, 32))
_ENDS_NAME = _BLANK | np.isin(_BYTES, (47, 62))
_ENDS_ATTRIBUTE = _ENDS_NAME | (_BYTES == 61)
_LOWER = np.where((_BYTES >= 65) & (_BYTES <= 90), _BYTES | 32, _BYTES).astype(np.uint64)

_USUAL_DEPTH = 200
"""A page of less is simulated in little memory."""
_EACH, _HIGH, _ONE = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080), np.uint64(1)

# Places in the state of the simulation, ...
_DEPTH, _LISTED, _REBUILT, _STEPS, _DEEPEST, _MOST = range(6)
# ... columns of the stack of open elements (the place in the list of formatting elements, or -1) ...
_NAME, _FLAG, _ENTRY = range(3)
# ... and of the list of formatting elements: the place among the open elements, -1 if it is closed, -2 for a marker;
# where its attributes stand in the page, and their hash, 0 as long as nobody asked.
_OPEN, _LISTED_NAME, _ATTRIBUTES, _FROM, _TO, _TAG = range(6)


def parsing_work(page: bytes, limit: Work) -> Work:
    """Simulate the parsing of a page in UTF-8; where a limit is passed, it ends there.

    Takes time in proportion to the page and to `limit.steps` and `limit.rebuilt` at most.
    """
    data = np.frombuffer(page, np.uint8)
    words = data[: len(data) // 8 * 8].view("<u8")
    for depth in (min(_USUAL_DEPTH, limit.depth), limit.depth):
        state = np.zeros(6, np.int64)
        _simulate(data, words, limit.rebuilt, limit.steps, depth, limit.attributes, state)
        if max(state[_DEEPEST], state[_LISTED]) < depth:
            break
    return Work(*state[_REBUILT:].tolist())


@numba.njit(nogil=True, cache=True)
def _next(data, words, at, wanted):  # type: ignore[no-untyped-def]
    """The first place from `at` on that holds the byte `wanted`; eight bytes are looked at at once.

    A byte of `differs` that is 0 sets the highest bit of its own in `hit`, and none below it does.
    """
    word = at >> 3
    if word < len(words):
        pattern = np.uint64(wanted) * _EACH
        passed = (_ONE << np.uint64((at & 7) << 3)) - _ONE
        differs = (words[word] ^ pattern) | passed
        while True:
            hit = (differs - _EACH) & ~differs & _HIGH
            if hit:
                below = (hit & (~hit + _ONE)) - _ONE
                return (word << 3) + np.int64(((below & _EACH) * _EACH) >> np.uint64(56)) - 1
            word += 1
            if word == len(words):
                break
            differs = words[word] ^ pattern
        at = word << 3
    while at < len(data) and data[at] != wanted:
        at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _flag_of(name):  # type: ignore[no-untyped-def]
    """Properties of an element by the hash of its name."""
    slot = name & (_SLOTS - 1)
    while _HASHES[slot] != name:
        if _HASHES[slot] == 0:
            return 0
        slot = (slot + 1) & (_SLOTS - 1)
    return _FLAGS[slot]


@numba.njit(nogil=True, cache=True)
def _simulate(data, words, most_rebuilt, most_steps, depth, most_attributes, state):  # type: ignore[no-untyped-def]
    stack = np.zeros((depth + 2, 3), np.int64)
    listed = np.zeros((depth + 2, 6), np.int64)
    n = len(data)
    at = 0
    foreign = False
    while at < n:
        if data[at] != 60:
            while at < n and _BLANK[data[at]]:
                at += 1
            blank = at == n or data[at] == 60
            at = _next(data, words, at, 60)
            top = stack[state[_DEPTH] - 1, _FLAG] if state[_DEPTH] else 0
            if not (blank and top & (TABLE | SECTION | ROW)):
                _rebuild(stack, listed, state, depth)
        elif at + 3 < n and data[at + 1] == 33 and data[at + 2] == 45 and data[at + 3] == 45:
            at = _comment_end(data, at + 4)
        else:
            end_tag = at + 1 < n and data[at + 1] == 47
            name_at = at + 2 if end_tag else at + 1
            first = data[name_at] | 32 if name_at < n else 0
            if not 97 <= first <= 122:
                if end_tag or (name_at < n and data[name_at] in (33, 63)):
                    at = _next(data, words, at, 62)
                at += 1
                continue
            behind, name = _name(data, name_at)
            at, attributes = _attributes(data, words, behind)
            state[_MOST] = max(state[_MOST], attributes)
            flag = _flag_of(name)
            if end_tag:
                _end(name, flag, stack, listed, state)
            else:
                _begin(name, flag, data, attributes, behind, at, stack, listed, state, depth)
                foreign = foreign or flag & FOREIGN != 0
                if flag & SCRIPT and not foreign:
                    at = _script_end(data, words, at)
                    _pop(stack, listed, state, state[_DEPTH] - 1)
        state[_DEEPEST] = max(state[_DEEPEST], state[_DEPTH])
        if (
            state[_REBUILT] > most_rebuilt
            or state[_STEPS] > most_steps
            or state[_DEPTH] >= depth
            or state[_LISTED] >= depth
            or state[_MOST] > most_attributes
        ):
            return


@numba.njit(nogil=True, cache=True)
def _comment_end(data, at):  # type: ignore[no-untyped-def]
    """The byte after a comment whose text begins at `at`: after -->, --!>, or at once for <!--> and <!--->."""
    n = len(data)
    if at < n and data[at] == 62:
        return at + 1
    if at + 1 < n and data[at] == 45 and data[at + 1] == 62:
        return at + 2
    while at + 2 < n:
        if data[at] == 45 and data[at + 1] == 45:
            if data[at + 2] == 62:
                return at + 3
            if data[at + 2] == 33 and at + 3 < n and data[at + 3] == 62:
                return at + 4
        at += 1
    return n


@numba.njit(nogil=True, cache=True)
def _script_end(data, words, at):  # type: ignore[no-untyped-def]
    """The byte after </script ...>, or the end of the page."""
    n = len(data)
    while True:
        at = _next(data, words, at, 60)
        if at + 8 >= n:
            return n
        if data[at + 1] == 47 and data[at + 2] | 32 == 115:
            behind, name = _name(data, at + 2)
            if name == _SCRIPT_HASH:
                return _attributes(data, words, behind)[0]
        at += 1


@numba.njit(nogil=True, cache=True)
def _name(data, at):  # type: ignore[no-untyped-def]
    """(byte after, hash) of the name of a tag that begins at `at`."""
    name = np.uint64(_START)
    while at < len(data) and not _ENDS_NAME[data[at]]:
        name = (name ^ _LOWER[data[at]]) * np.uint64(_PRIME)
        at += 1
    return at, np.int64(name)


@numba.njit(nogil=True, cache=True)
def _attributes(data, words, at):  # type: ignore[no-untyped-def]
    """(byte after the tag, attributes) of a tag whose name ends at `at`."""
    n = len(data)
    attributes = 0
    while at < n:
        while at < n and (_BLANK[data[at]] or data[at] == 47):
            at += 1
        if at == n or data[at] == 62:
            break
        attributes += 1
        at += 1  # an equals sign may begin a name
        while at < n and not _ENDS_ATTRIBUTE[data[at]]:
            at += 1
        after = at
        while after < n and _BLANK[data[after]]:
            after += 1
        if after < n and data[after] == 61:
            at = after + 1
            while at < n and _BLANK[data[at]]:
                at += 1
            if at < n and data[at] in (34, 39):
                at = _next(data, words, at + 1, data[at]) + 1
            else:
                while at < n and not _BLANK[data[at]] and data[at] != 62:
                    at += 1
    return min(at + 1, n), attributes


@numba.njit(nogil=True, cache=True)
def _pop(stack, listed, state, depth):  # type: ignore[no-untyped-def]
    """Close open elements until `depth` are left."""
    while state[_DEPTH] > max(depth, 0):
        state[_DEPTH] -= 1
        top = state[_DEPTH]
        if stack[top, _ENTRY] >= 0:
            listed[stack[top, _ENTRY], _OPEN] = -1
            stack[top, _ENTRY] = -1
        if stack[top, _FLAG] & MARKER:
            while state[_LISTED] > 0:
                state[_LISTED] -= 1
                place = listed[state[_LISTED], _OPEN]
                if place >= 0:
                    stack[place, _ENTRY] = -1
                if place == -2:
                    break


@numba.njit(nogil=True, cache=True)
def _push(name, flag, stack, state):  # type: ignore[no-untyped-def]
    depth = state[_DEPTH]
    if depth < len(stack):
        stack[depth, _NAME], stack[depth, _FLAG], stack[depth, _ENTRY] = name, flag, -1
        state[_DEPTH] += 1


@numba.njit(nogil=True, cache=True)
def _unlist(stack, listed, state, place):  # type: ignore[no-untyped-def]
    """Take an entry out of the list of formatting elements."""
    if listed[place, _OPEN] >= 0:
        stack[listed[place, _OPEN], _ENTRY] = -1
    state[_STEPS] += state[_LISTED] - place
    for later in range(place + 1, state[_LISTED]):
        for column in range(6):
            listed[later - 1, column] = listed[later, column]
        if listed[later, _OPEN] >= 0:
            stack[listed[later, _OPEN], _ENTRY] = later - 1
    state[_LISTED] -= 1


@numba.njit(nogil=True, cache=True)
def _rebuild(stack, listed, state, most):  # type: ignore[no-untyped-def]
    """Reconstruct the active formatting elements."""
    first = state[_LISTED]
    while first > 0 and listed[first - 1, _OPEN] == -1:
        first -= 1
    for place in range(first, state[_LISTED]):
        if state[_DEPTH] >= most:
            return
        _push(listed[place, _LISTED_NAME], FORMATTING, stack, state)
        stack[state[_DEPTH] - 1, _ENTRY] = place
        listed[place, _OPEN] = state[_DEPTH] - 1
        state[_REBUILT] += 1 + listed[place, _ATTRIBUTES]


@numba.njit(nogil=True, cache=True)
def _find(wanted, ends, stack, state):  # type: ignore[no-untyped-def]
    """The innermost open element with one of the wanted properties, unless one with one of `ends` is further in."""
    place = state[_DEPTH] - 1
    while place >= 0 and not stack[place, _FLAG] & (wanted | ends):
        place -= 1
    state[_STEPS] += state[_DEPTH] - place
    return place if place >= 0 and stack[place, _FLAG] & wanted else -1


@numba.njit(nogil=True, cache=True)
def _hash_of(data, begin, end):  # type: ignore[no-untyped-def]
    """A hash of a stretch of the page that is not 0."""
    value = np.uint64(_START)
    for at in range(begin, end):
        value = (value ^ np.uint64(data[at])) * np.uint64(_PRIME)
    return np.int64(value) | 1


@numba.njit(nogil=True, cache=True)
def _begin(name, flag, data, attributes, behind, at, stack, listed, state, most):  # type: ignore[no-untyped-def]
    if flag & ROOT:
        return
    if flag & CLOSES_P:
        found = _find(PARAGRAPH, SCOPE | BUTTON, stack, state)
        if found >= 0:
            _pop(stack, listed, state, found)
    if flag & (ITEM | TERM):
        place = state[_DEPTH] - 1
        while place >= 0 and not stack[place, _FLAG] & (flag & (ITEM | TERM)):
            if stack[place, _FLAG] & SPECIAL and not stack[place, _FLAG] & TRANSPARENT:
                place = -1
                break
            place -= 1
        state[_STEPS] += state[_DEPTH] - max(place, 0)
        if place >= 0:
            _pop(stack, listed, state, place)
    elif flag & (CELL | ROW | SECTION):
        # Clear the stack back to the row, the section or the table.
        ends = TABLE | (ROW if flag & CELL else 0) | (SECTION if flag & (CELL | ROW) else 0)
        found = _find(ends, 0, stack, state)
        if found >= 0:
            _pop(stack, listed, state, found + 1)
    elif state[_DEPTH] and stack[state[_DEPTH] - 1, _FLAG] & flag & (HEADING | OPTION):
        _pop(stack, listed, state, state[_DEPTH] - 1)
    elif flag & BUTTON:
        found = _find(BUTTON, SCOPE, stack, state)
        if found >= 0:
            _pop(stack, listed, state, found)
    if flag & UNIQUE:
        place = state[_LISTED] - 1
        while place >= 0 and listed[place, _OPEN] != -2 and listed[place, _LISTED_NAME] != name:
            place -= 1
        state[_STEPS] += state[_LISTED] - place
        if place >= 0 and listed[place, _OPEN] != -2:
            _end(name, flag, stack, listed, state)
    if not flag & (CLOSES_P | SILENT):
        _rebuild(stack, listed, state, most)
    if flag & VOID:
        return
    _push(name, flag, stack, state)
    if flag & MARKER and state[_LISTED] < len(listed):
        listed[state[_LISTED], _OPEN] = -2
        state[_LISTED] += 1
    if flag & FORMATTING:
        tag = same = 0
        oldest = -1
        place = state[_LISTED] - 1
        while place >= 0 and listed[place, _OPEN] != -2:
            if listed[place, _LISTED_NAME] == name:
                # Most elements are closed before another of their name begins: hashes are made when they are needed.
                tag = tag or _hash_of(data, behind, at)
                if listed[place, _TAG] == 0:
                    listed[place, _TAG] = _hash_of(data, listed[place, _FROM], listed[place, _TO])
                if listed[place, _TAG] == tag:
                    same += 1
                    oldest = place
            place -= 1
        state[_STEPS] += state[_LISTED] - place
        if same >= 3:
            _unlist(stack, listed, state, oldest)
        place = state[_LISTED]
        if place < len(listed):
            listed[place, _OPEN], listed[place, _LISTED_NAME] = state[_DEPTH] - 1, name
            listed[place, _ATTRIBUTES], listed[place, _FROM], listed[place, _TO] = attributes, behind, at
            listed[place, _TAG] = tag
            stack[state[_DEPTH] - 1, _ENTRY] = place
            state[_LISTED] += 1


@numba.njit(nogil=True, cache=True)
def _end(name, flag, stack, listed, state):  # type: ignore[no-untyped-def]
    if flag & ROOT:
        return
    if flag & FORMATTING:
        place = state[_LISTED] - 1
        while place >= 0 and listed[place, _OPEN] != -2 and listed[place, _LISTED_NAME] != name:
            place -= 1
        state[_STEPS] += state[_LISTED] - place
        if place >= 0 and listed[place, _OPEN] != -2:
            _adopt(place, stack, listed, state)
            return
    place = state[_DEPTH] - 1
    ends = SCOPE if flag & SPECIAL else SPECIAL
    if flag & TABLE:
        ends = 0
    elif flag & (CELL | ROW | SECTION):
        ends = TABLE
    while place >= 0 and stack[place, _NAME] != name and not stack[place, _FLAG] & ends:
        place -= 1
    state[_STEPS] += state[_DEPTH] - place
    if place >= 0 and stack[place, _NAME] == name:
        _pop(stack, listed, state, place)


@numba.njit(nogil=True, cache=True)
def _adopt(place, stack, listed, state):  # type: ignore[no-untyped-def]
    """The adoption agency algorithm for an entry of the list of formatting elements."""
    element = listed[place, _OPEN]
    if element < 0:
        _unlist(stack, listed, state, place)
        return
    state[_STEPS] += state[_DEPTH] - element
    blocks = 0
    last = -1
    for above in range(element + 1, state[_DEPTH]):
        if stack[above, _FLAG] & SPECIAL:
            blocks += 1
            last = above
            if blocks == 8:
                break
    if last < 0:
        _pop(stack, listed, state, element)
        # It has closed itself, and is still listed.
        _unlist(stack, listed, state, place)
        return
    # A copy of the element and of up to three between it and each block goes into that block.
    state[_REBUILT] += blocks * (4 + listed[place, _ATTRIBUTES])
    if blocks < 8:
        _pop(stack, listed, state, last + 1)
    _unlist(stack, listed, state, place)
    for above in range(element + 1, state[_DEPTH]):
        for column in range(3):
            stack[above - 1, column] = stack[above, column]
        if stack[above, _ENTRY] >= 0:
            listed[stack[above, _ENTRY], _OPEN] = above - 1
    state[_STEPS] += state[_DEPTH] - element
    state[_DEPTH] -= 1
    stack[state[_DEPTH], _ENTRY] = -1
