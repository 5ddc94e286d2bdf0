"""`finesieve schema`: JSON Schema of the configs, for editors."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def schema(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Which config: filter, train or annotate; or rubric.")
    ] = "filter",
) -> None:
    """Print the JSON Schema of a config, so that editors complete and check its keys.

    A config names it in its first line: # yaml-language-server: $schema=schema/filter.json
    """
    from filters.config.json_schema import SCHEMAS, json_schema

    if name not in SCHEMAS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(SCHEMAS)}", param_hint="NAME")
    print(json.dumps(json_schema(name), indent=1))
