"""Host names of addresses, a column at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

_HOST = r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:\[\]]+)"


def hosts(urls: pa.Array) -> pa.Array:
    """string[n]: the host of each address, lower-cased and without "www."; null where the address has none.

    Args:
        urls: string[n], with nulls.
    """
    found = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    return pc.replace_substring_regex(pc.utf8_lower(found), r"^www\.", "").cast(pa.string())


def host_names(urls: Sequence[str | None]) -> list[str]:
    """The host of each address as `hosts` finds it; "" where the address has none."""
    return [host or "" for host in hosts(pa.array(urls, pa.string())).to_pylist()]
