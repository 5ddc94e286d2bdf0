"""Cards: what comes from outside stays in its cell, and the header is YAML of its own."""

from __future__ import annotations

import yaml

from filters.cards import bullets, card_table, cell, make_card


def test_a_card_is_blocks_below_a_header() -> None:
    table = card_table(("name", "records"), [(cell("a|b\n`<img>`\\"), "3"), ("c", "4")], right=[1])
    text = make_card("# Title", "", table, bullets("one", "", "two"), header={"tags": ["a: b"]})
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {"tags": ["a: b"]}
    assert body == (
        "# Title\n\n| name | records |\n|---|---:|\n| a\\|b '&lt;img>'\\\\ | 3 |\n| c | 4 |\n\n- one\n- two\n"
    )
    assert make_card("# Title", "") == "# Title\n"
