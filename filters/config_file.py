"""A YAML file to a validated config of any schema; what is wrong with it is told with file, line and key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from filters.errors import ConfigError

C = TypeVar("C", bound=BaseModel)

MAX_ITEMS = 100_000
"""Most values of a config, each counted as often as aliases repeat it."""


class Section(BaseModel):
    """Base of every section of a config: unknown keys, NaN and infinity are refused, and nothing changes it later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _finite(value: Any) -> Any:
    """`value`, a tree of JSON types.

    Raises:
        ValueError: a number in it is NaN or infinite.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _finite(part)
    return value


Options = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Options that are handed on as they are."""


def load_config(schema: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Validate the YAML file at `path`, with overrides applied, against `schema`.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds keys or values the schema does not allow.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read this config: {error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_size(node)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply to be a config") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config is a mapping with keys {', '.join(schema.model_fields)}")
    overridden: set[tuple[str, ...]] = set()
    for override in overrides:
        overridden.add(_apply_override(data, override))
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        messages = [_describe(detail, schema, str(path), node, overridden) for detail in error.errors()]
        raise ConfigError("\n".join(messages)) from error


def _check_size(node: yaml.Node | None) -> None:
    """Refuse aliases that nine lines can make a billion values of, before anything copies or prints them.

    Raises:
        yaml.YAMLError: the values are too many, or an alias stands inside of what it names.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(node: yaml.Node) -> int:
        place = id(node)
        if place in inside:
            raise yaml.constructor.ConstructorError(
                None, None, "an alias (*name) stands inside of what it names", node.start_mark
            )
        if place not in sizes:
            inside.add(place)
            parts: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                parts = node.value
            sizes[place] = 1 + sum(map(size, parts))
            inside.remove(place)
            if sizes[place] > MAX_ITEMS:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"aliases (*name) make {sizes[place]:,} values of this, {MAX_ITEMS:,} at most are read. Remedy: "
                    "write out what is meant",
                    node.start_mark,
                )
        return sizes[place]

    if node is not None:
        size(node)


def _apply_override(data: dict[str, Any], override: str) -> tuple[str, ...]:
    key, separator, value = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: write it as key.path=value, for example --set keep.min_score=2.5")
    try:
        _check_size(yaml.compose(value, Loader=yaml.SafeLoader))
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from error
    place: Any = data
    for depth, part in enumerate(keys[:-1]):
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override}: {'.'.join(keys[: depth + 1])} is not a mapping")
    place[keys[-1]] = parsed
    return keys


def _describe(
    detail: ErrorDetails, schema: type[BaseModel], path: str, node: yaml.Node | None, overridden: set[tuple[str, ...]]
) -> str:
    tagged = tuple(part for part in detail["loc"] if not str(part).startswith("function-"))
    location, _ = _place(schema, tagged)
    key = ".".join(str(part) for part in location)
    names = tuple(str(part) for part in location)
    if any(names[: len(override)] == override for override in overridden):
        where = f"{path} (--set)"
    else:
        line = _line_of(node, location)
        where = f"{path}:{line}" if line else path
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        _, siblings = _place(schema, tagged[:-1])
        close = difflib.get_close_matches(str(location[-1]), siblings, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        message = f"unknown key{hint or '.'} Allowed here: {', '.join(siblings)}" if siblings else f"unknown key{hint}"
    elif detail["type"] == "missing":
        message = "this key is required"
    elif detail["type"] != "value_error":
        message = f"{message} (got {detail['input']!r:.80})"
    return f"{where}: {key}: {message}" if key else f"{where}: {message}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _place(schema: type[BaseModel], location: Sequence[int | str]) -> tuple[tuple[int | str, ...], list[str]]:
    """(`location` in the config's keys, without the kinds pydantic puts among them; the keys allowed there)."""
    candidates, keys = [schema], []
    for part in location:
        of_kind = [model for model in candidates if "kind" in model.model_fields]
        chosen = [model for model in of_kind if model.model_fields["kind"].default == part]
        if len(candidates) > 1 and chosen:
            candidates = chosen
            continue
        keys.append(part)
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
            candidates = [model for field in fields for model in _models(field.annotation)]
    return tuple(keys), list(candidates[0].model_fields) if candidates else []


def _line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int | None:
    """1-based line of the deepest part of `location` that the file has; None if it has none of it."""
    line: int | None = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
