"""JSON Schema of configs, for editors and for the reference: keys, types, defaults, and what each key means.

It accepts what `load_config` accepts: one value in place of a list, and numbers as text (`1e9` is text to YAML 1.1,
`10_000_000` to YAML 1.2). What only a comparison of several keys can tell, it leaves to `load_config`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import textwrap
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from filters.config.yaml_file import VERBS

SCHEMAS = VERBS | {"rubric": "filters.annotate.rubric:Rubric"}
"""Names of schemas, and where they are defined."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_WHOLE = r"^[-+]?[0-9][0-9_]*$"
_NUMBER = r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$"


def schema_class(name: str) -> type[BaseModel]:
    """The model of a schema, by its name in `SCHEMAS`."""
    module, attribute = SCHEMAS[name].split(":")
    found: type[BaseModel] = getattr(import_module(module), attribute)
    return found


def json_schema(name: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a config, by its name in `SCHEMAS`."""
    return {"$schema": DIALECT, "title": f"finesieve {name}"} | section_schema(schema_class(name))


def section_schema(section: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a section and of all sections in it, without a dialect and a title."""
    found = section.model_json_schema(schema_generator=_Generator, mode="validation")
    _tidy(found)
    return found


def _tidy(node: Any) -> None:
    """Take out the bounds that pydantic leaves under its own names beside a validator; `load_config` checks them."""
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _tidy(part)
    if isinstance(node, dict) and ("anyOf" in node or "type" in node):
        for bound in ("gt", "ge", "lt", "le"):
            if not isinstance(node.get(bound), dict):
                node.pop(bound, None)


@functools.cache
def meanings(model: type[BaseModel]) -> Mapping[str, str]:
    """What each key of a section means: the text under its field, or the part "Attributes:" of the class.

    Keys of base classes are included.
    """
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if not issubclass(one, BaseModel) or one is BaseModel:
            continue
        _, _, attributes = (inspect.getdoc(one) or "").partition("\nAttributes:\n")
        found |= {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(attributes)}
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                    found[name] = " ".join(meaning.split())
    return found


class _Generator(GenerateJsonSchema):
    """pydantic's schema with meanings of keys, and with the short forms that a config may have."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().model_schema(schema)
        found.pop("title", None)
        found["description"] = " ".join((inspect.getdoc(schema["cls"]) or "").split("\n\n")[0].split())
        for name, meaning in meanings(schema["cls"]).items():
            if name in found.get("properties", {}):
                found["properties"][name]["description"] = meaning
        return found

    def int_schema(self, schema: Any) -> JsonSchemaValue:
        return super().int_schema(schema) | {"type": ["integer", "string"], "pattern": _WHOLE}

    def float_schema(self, schema: Any) -> JsonSchemaValue:
        return super().float_schema(schema) | {"type": ["number", "string"], "pattern": _NUMBER}

    def tuple_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().tuple_schema(schema)
        item = found.get("items")
        if "prefixItems" in found or not isinstance(item, dict) or item.get("type") == "array":
            return found
        return {"anyOf": [found, item]}

    def tagged_union_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().tagged_union_schema(schema)
        found["oneOf"] = [one | {"required": [schema["discriminator"]]} for one in found["oneOf"]]
        return found
