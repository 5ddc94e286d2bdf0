"""What parsing a page will build: the tree constructor of HTML, simulated without a tree.

Of the "list of active formatting elements" (HTML Standard, 13.2.4.3) all that were closed by the way are built again,
attributes and all, in each paragraph, so that time and memory grow with the square of the page; what an end tag closes
is looked for along all open elements. Both are counted here. The rules of the standard (13.2.6) are simplified to the
side of counting more: what is in a <select> or a <title> counts, and elements of SVG are as any others.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

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
    """What a parser does with a page.

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
    return value


_CODES = {
    _hash(name): sum(code for code, names in _NAMES.items() if name in names.split())
    for names in _NAMES.values()
    for name in names.split()
}
_HASHES = np.array(sorted(_CODES), np.uint64)
_FLAGS = np.array([_CODES[value] for value in sorted(_CODES)], np.int64)
_BLANK = np.isin(np.arange(256), (9, 10, 12, 13, 32))
_ENDS_NAME = _BLANK | np.isin(np.arange(256), (47, 62))
_SCRIPT_HASH = np.uint64(_hash("script"))

_USUAL_DEPTH = 200
"""A page of less is simulated in little memory."""
_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)

# Places in the state of the simulation.
_DEPTH, _LISTED, _REBUILT, _STEPS, _DEEPEST, _MOST = range(6)


def parsing_work(page: bytes, limit: Work) -> Work:
    """Simulate the parsing of a page in UTF-8; where a limit is passed, it ends there.

    Takes time in proportion to the page and to `limit.steps` and `limit.rebuilt` at most.
    """
    data = np.frombuffer(page, np.uint8)
    words = data[: len(data) // 8 * 8].view(np.uint64)
    for depth in (min(_USUAL_DEPTH, limit.depth), limit.depth):
        state = np.zeros(6, np.int64)
        _simulate(data, words, np.array(limit._replace(depth=depth), np.int64), state)
        if max(state[_DEEPEST], state[_LISTED]) < depth:
            break
    return Work(*state[_REBUILT:].tolist())


@numba.njit(nogil=True, cache=True)
def _next(data, words, at, wanted):  # type: ignore[no-untyped-def]
    """The first place from `at` on that holds the byte `wanted`; eight bytes are looked at at once."""
    n = len(data)
    while at < n and at & 7:
        if data[at] == wanted:
            return at
        at += 1
    word = at >> 3
    pattern = np.uint64(wanted) * _ONES
    while word < len(words):
        differs = words[word] ^ pattern
        if (differs - _ONES) & ~differs & _HIGH:
            break
        word += 1
    at = max(at, word << 3)
    while at < n and data[at] != wanted:
        at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _simulate(data, words, limit, state):  # type: ignore[no-untyped-def]
    most = limit[2] + 2
    names = np.zeros(most, np.uint64)  # of open elements
    flags = np.zeros(most, np.int64)
    entry = np.full(most, -1, np.int64)  # its place in the list of formatting elements
    listed = np.zeros((most, 3), np.int64)  # place among the open elements or -1 (-2: a marker), attributes, tag
    listed_names = np.zeros(most, np.uint64)
    n = len(data)
    at = 0
    foreign = False
    while at < n:
        if data[at] != 60:
            while at < n and _BLANK[data[at]]:
                at += 1
            blank = at == n or data[at] == 60
            at = _next(data, words, at, 60)
            top = flags[state[_DEPTH] - 1] if state[_DEPTH] else 0
            if not (blank and top & (TABLE | SECTION | ROW)):
                _rebuild(names, flags, entry, listed, listed_names, state, limit)
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
            at, name, attributes, behind = _tag(data, words, name_at)
            state[_MOST] = max(state[_MOST], attributes)
            place = np.searchsorted(_HASHES, name)
            flag = _FLAGS[place] if place < len(_HASHES) and _HASHES[place] == name else 0
            if end_tag:
                _end(name, flag, names, flags, entry, listed, listed_names, state)
            else:
                tag = np.int64(0)
                if flag & FORMATTING:
                    for byte in data[behind:at]:
                        tag = (tag ^ np.int64(byte)) * np.int64(0x100000001B3)
                _begin(name, flag, attributes, tag, names, flags, entry, listed, listed_names, state, limit)
                foreign = foreign or flag & FOREIGN != 0
                if flag & SCRIPT and not foreign:
                    at = _script_end(data, words, at)
                    _pop(flags, entry, listed, state, state[_DEPTH] - 1)
        state[_DEEPEST] = max(state[_DEEPEST], state[_DEPTH])
        if (
            state[_REBUILT] > limit[0]
            or state[_STEPS] > limit[1]
            or state[_DEPTH] >= limit[2]
            or state[_LISTED] >= limit[2]
            or state[_MOST] > limit[3]
        ):
            return


@numba.njit(nogil=True, cache=True)
def _comment_end(data, at):  # type: ignore[no-untyped-def]
    """The byte behind a comment whose text begins at `at`: behind -->, --!>, or at once for <!--> and <!--->."""
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
    """The byte behind </script ...>, or the end of the page."""
    n = len(data)
    while True:
        at = _next(data, words, at, 60)
        if at + 8 >= n:
            return n
        if data[at + 1] == 47 and data[at + 2] | 32 == 115:
            end, name, _, _ = _tag(data, words, at + 2)
            if name == _SCRIPT_HASH:
                return end
        at += 1


@numba.njit(nogil=True, cache=True)
def _tag(data, words, at):  # type: ignore[no-untyped-def]
    """(byte behind the tag, hash of its name, attributes, byte behind the name) of a tag whose name begins at `at`."""
    n = len(data)
    name = np.uint64(_START)
    while at < n and not _ENDS_NAME[data[at]]:
        byte = data[at]
        name = (name ^ np.uint64(byte | 32 if 65 <= byte <= 90 else byte)) * np.uint64(_PRIME)
        at += 1
    behind = at
    attributes = 0
    while at < n:
        while at < n and (_BLANK[data[at]] or data[at] == 47):
            at += 1
        if at == n or data[at] == 62:
            break
        attributes += 1
        at += 1  # an equals sign may begin a name
        while at < n and not _ENDS_NAME[data[at]] and data[at] != 61:
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
    return min(at + 1, n), name, attributes, behind


@numba.njit(nogil=True, cache=True)
def _pop(flags, entry, listed, state, depth):  # type: ignore[no-untyped-def]
    """Close open elements until `depth` are left."""
    while state[_DEPTH] > max(depth, 0):
        state[_DEPTH] -= 1
        top = state[_DEPTH]
        if entry[top] >= 0:
            listed[entry[top], 0] = -1
            entry[top] = -1
        if flags[top] & MARKER:
            while state[_LISTED] > 0:
                state[_LISTED] -= 1
                place = listed[state[_LISTED], 0]
                if place >= 0:
                    entry[place] = -1
                if place == -2:
                    break


@numba.njit(nogil=True, cache=True)
def _push(name, flag, names, flags, entry, state):  # type: ignore[no-untyped-def]
    depth = state[_DEPTH]
    if depth < len(names):
        names[depth], flags[depth], entry[depth] = name, flag, -1
        state[_DEPTH] += 1


@numba.njit(nogil=True, cache=True)
def _unlist(entry, listed, listed_names, state, place):  # type: ignore[no-untyped-def]
    """Take an entry out of the list of formatting elements."""
    if listed[place, 0] >= 0:
        entry[listed[place, 0]] = -1
    state[_STEPS] += state[_LISTED] - place
    for later in range(place + 1, state[_LISTED]):
        listed[later - 1] = listed[later]
        listed_names[later - 1] = listed_names[later]
        if listed[later, 0] >= 0:
            entry[listed[later, 0]] = later - 1
    state[_LISTED] -= 1


@numba.njit(nogil=True, cache=True)
def _rebuild(names, flags, entry, listed, listed_names, state, limit):  # type: ignore[no-untyped-def]
    """Reconstruct the active formatting elements."""
    first = state[_LISTED]
    while first > 0 and listed[first - 1, 0] == -1:
        first -= 1
    for place in range(first, state[_LISTED]):
        if state[_DEPTH] >= limit[2]:
            return
        _push(listed_names[place], FORMATTING, names, flags, entry, state)
        entry[state[_DEPTH] - 1] = place
        listed[place, 0] = state[_DEPTH] - 1
        state[_REBUILT] += 1 + listed[place, 1]


@numba.njit(nogil=True, cache=True)
def _find(wanted, ends, flags, state):  # type: ignore[no-untyped-def]
    """The innermost open element with one of the wanted properties, unless one with one of `ends` is further in."""
    place = state[_DEPTH] - 1
    while place >= 0 and not flags[place] & (wanted | ends):
        place -= 1
    state[_STEPS] += state[_DEPTH] - place
    return place if place >= 0 and flags[place] & wanted else -1


@numba.njit(nogil=True, cache=True)
def _begin(name, flag, attributes, tag, names, flags, entry, listed, listed_names, state, limit):  # type: ignore[no-untyped-def]
    if flag & ROOT:
        return
    if flag & CLOSES_P:
        found = _find(PARAGRAPH, SCOPE | BUTTON, flags, state)
        if found >= 0:
            _pop(flags, entry, listed, state, found)
    if flag & (ITEM | TERM):
        place = state[_DEPTH] - 1
        while place >= 0 and not flags[place] & (flag & (ITEM | TERM)):
            if flags[place] & SPECIAL and not flags[place] & TRANSPARENT:
                place = -1
                break
            place -= 1
        state[_STEPS] += state[_DEPTH] - max(place, 0)
        if place >= 0:
            _pop(flags, entry, listed, state, place)
    elif flag & (CELL | ROW | SECTION):
        # Clear the stack back to the row, the section or the table.
        ends = TABLE | (ROW if flag & CELL else 0) | (SECTION if flag & (CELL | ROW) else 0)
        found = _find(ends, 0, flags, state)
        if found >= 0:
            _pop(flags, entry, listed, state, found + 1)
    elif state[_DEPTH] and flags[state[_DEPTH] - 1] & flag & (HEADING | OPTION):
        _pop(flags, entry, listed, state, state[_DEPTH] - 1)
    elif flag & BUTTON:
        found = _find(BUTTON, SCOPE, flags, state)
        if found >= 0:
            _pop(flags, entry, listed, state, found)
    if flag & UNIQUE:
        place = state[_LISTED] - 1
        while place >= 0 and listed[place, 0] != -2 and listed_names[place] != name:
            place -= 1
        state[_STEPS] += state[_LISTED] - place
        if place >= 0 and listed[place, 0] != -2:
            _end(name, flag, names, flags, entry, listed, listed_names, state)
    if not flag & (CLOSES_P | SILENT):
        _rebuild(names, flags, entry, listed, listed_names, state, limit)
    if flag & VOID:
        return
    _push(name, flag, names, flags, entry, state)
    if flag & MARKER and state[_LISTED] < len(listed):
        listed[state[_LISTED], 0] = -2
        state[_LISTED] += 1
    if flag & FORMATTING:
        same = 0
        oldest = -1
        place = state[_LISTED] - 1
        while place >= 0 and listed[place, 0] != -2:
            if listed_names[place] == name and listed[place, 2] == tag:
                same += 1
                oldest = place
            place -= 1
        state[_STEPS] += state[_LISTED] - place
        if same >= 3:
            _unlist(entry, listed, listed_names, state, oldest)
        place = state[_LISTED]
        if place < len(listed):
            listed[place, 0], listed[place, 1], listed[place, 2] = state[_DEPTH] - 1, attributes, tag
            listed_names[place] = name
            entry[state[_DEPTH] - 1] = place
            state[_LISTED] += 1


@numba.njit(nogil=True, cache=True)
def _end(name, flag, names, flags, entry, listed, listed_names, state):  # type: ignore[no-untyped-def]
    if flag & ROOT:
        return
    if flag & FORMATTING:
        place = state[_LISTED] - 1
        while place >= 0 and listed[place, 0] != -2 and listed_names[place] != name:
            place -= 1
        state[_STEPS] += state[_LISTED] - place
        if place >= 0 and listed[place, 0] != -2:
            _adopt(place, names, flags, entry, listed, listed_names, state)
            return
    place = state[_DEPTH] - 1
    ends = SCOPE if flag & SPECIAL else SPECIAL
    if flag & TABLE:
        ends = 0
    elif flag & (CELL | ROW | SECTION):
        ends = TABLE
    while place >= 0 and names[place] != name and not flags[place] & ends:
        place -= 1
    state[_STEPS] += state[_DEPTH] - place
    if place >= 0 and names[place] == name:
        _pop(flags, entry, listed, state, place)


@numba.njit(nogil=True, cache=True)
def _adopt(place, names, flags, entry, listed, listed_names, state):  # type: ignore[no-untyped-def]
    """The adoption agency algorithm for an entry of the list of formatting elements."""
    element = listed[place, 0]
    if element < 0:
        _unlist(entry, listed, listed_names, state, place)
        return
    state[_STEPS] += state[_DEPTH] - element
    blocks = 0
    last = -1
    for above in range(element + 1, state[_DEPTH]):
        if flags[above] & SPECIAL:
            blocks += 1
            last = above
            if blocks == 8:
                break
    if last < 0:
        _pop(flags, entry, listed, state, element)
        # It has closed itself, and is still listed.
        _unlist(entry, listed, listed_names, state, place)
        return
    # A copy of the element and of up to three between it and each block goes into that block.
    state[_REBUILT] += blocks * (4 + listed[place, 1])
    if blocks < 8:
        _pop(flags, entry, listed, state, last + 1)
    _unlist(entry, listed, listed_names, state, place)
    for above in range(element + 1, state[_DEPTH]):
        names[above - 1], flags[above - 1], entry[above - 1] = names[above], flags[above], entry[above]
        if entry[above] >= 0:
            listed[entry[above], 0] = above - 1
    state[_STEPS] += state[_DEPTH] - element
    state[_DEPTH] -= 1
    entry[state[_DEPTH]] = -1
