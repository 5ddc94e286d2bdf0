"""A YAML file to a validated config of any schema; what is wrong with it is told with file, line and key."""

from __future__ import annotations

import difflib
import glob
import math
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from filters.errors import ConfigError

C = TypeVar("C", bound=BaseModel)
Keys = tuple[int | str, ...]

VERBS = {
    "filter": "filters.config.filter:FilterConfig",
    "annotate": "filters.annotate.config:AnnotateConfig",
    "train": "filters.train.config:TrainConfig",
}
"""Schemas of the commands that take a config."""
LARGEST = 2**63 - 1
_SHOWN = 20
_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_TYPES = {
    "string_type": "should be text",
    "string_unicode": "should be text",
    "string_sub_type": "should be text",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "is too large",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "union_tag_not_found": "needs the key kind",
}
"""What pydantic says in words of Python."""

MAX_ITEMS = 100_000
"""Most values of a config, each counted as often as aliases repeat it."""


class Section(BaseModel):
    """Base of every section of a config: unknown keys, NaN and infinity are refused, and nothing changes it later.

    Errors hold no values: an address that is refused has a password in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
    _folder: str = PrivateAttr("")

    def model_post_init(self, context: Any, /) -> None:
        """Take over the folder of the config file."""
        if context is not None:
            self._folder = context["folder"]

    @property
    def folder(self) -> str:
        """The absolute folder that its paths of inputs are relative to; "": the working directory."""
        return self._folder

    @classmethod
    def in_folder(cls, data: Any, folder: str) -> Self:
        """Validate data whose paths are relative to a folder.

        Raises:
            ValidationError: the schema does not allow the data.
        """
        return cls.model_validate(data, context={"folder": folder})

    def at(self, path: str) -> str:
        """A path of this section as it can be opened from here; an address stays as it is."""
        return path if "://" in path else os.path.join(self._folder, path)


@dataclass(frozen=True)
class PathKey:
    """Marks a text of a schema as a path or address: in a config file it is relative to the folder of that file.

    A path of an input names it in what a run writes, so it stays relative to that folder, whatever the working
    directory is, and `Section.at` says where it lies. Any other becomes relative to the working directory.

    Attributes:
        input: whether it is that of an input.
        is_name: whether a value is a name instead, which stays as it is; it is given the value, and the path it
            would be.
        pattern: the value is a glob pattern.
        inside: finds paths in a longer text, as its group 1, in which '' stands for '.
    """

    is_name: Callable[[str, str], bool] = lambda value, path: False
    pattern: bool = False
    inside: re.Pattern[str] | None = None
    input: bool = False


PathText = Annotated[str, PathKey()]
"""A path or address."""


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

    A scalar stands for a list of one. Relative paths are relative to the folder of the file, those of overrides to the
    working directory (and are named as if the file had them); `~` and `$NAME` are expanded.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds keys or values the schema does not allow.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this config: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: cannot read this config: {error}") from error
    node, data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config is a mapping with keys {', '.join(schema.model_fields)}")
    overridden: set[Keys] = set()
    for override in overrides:
        overridden.add(_apply_override(data, override))

    def where(keys: Keys) -> str:
        if _is_overridden(keys, overridden):
            return f"{path} (--set)"
        line = _line_of(node, keys)
        return f"{path}:{line}" if line else str(path)

    home = os.path.realpath(os.path.dirname(path))

    def base(keys: Keys) -> str:
        return os.getcwd() if _is_overridden(keys, overridden) else home

    try:
        prepared = _prepared([schema], data, (), base, where, home)
        return schema.model_validate(prepared, context={"folder": home})
    except ValidationError as error:
        if (verb := _other_verb(schema, data)) is not None:
            raise ConfigError(f"{path}: this is a config of another command; call finesieve {verb} {path}") from error
        details = error.errors(include_url=False)
        messages = dict.fromkeys(_describe(detail, schema, where) for detail in details[:_SHOWN])
        more = [f"{path}: ... and {len(details) - _SHOWN:,} more"] if len(details) > _SHOWN else []
        raise ConfigError("\n".join([*messages, *more])) from error


class _Loader(yaml.SafeLoader):
    """YAML as JSON has it: text, numbers, true, false, null, lists, mappings with texts as keys. Dates are text."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if kind is not yaml.ScalarNode or not implicit[0]:
            return tag
        as_text = tag.removeprefix(_TAG) not in ("null", "bool", "int", "float", "str", "merge")
        if as_text or (tag != f"{_TAG}str" and ":" in value):  # 24:00:00 is no number in base 60
            return f"{_TAG}str"
        return tag

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, LookupError, OverflowError) as error:
            if isinstance(node, yaml.ScalarNode) and len(node.value) > 100:
                raise _refused(node, "a number of so many digits is none that a config can hold") from error
            raise _refused(node, f"{node.value!r:.80} is no {node.tag.removeprefix(_TAG)}") from error
        if isinstance(value, int) and abs(value) > LARGEST:
            raise _refused(node, f"a whole number can be {LARGEST:,} at most")
        if isinstance(value, str) and any(character == "\0" or "\ud800" <= character < "\ue000" for character in value):
            raise _refused(node, "text of a config cannot hold U+0000 or half a surrogate pair")
        return value

    def construct_pairs_of_text(self, node: yaml.Node) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _refused(node, "no mapping of keys to values")
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != f"{_TAG}merge" and isinstance(key.value, str):
                if key.value in lines:
                    raise _refused(
                        key, f"the key {key.value!r:.80} stands here twice, first in line {lines[key.value]}"
                    )
                lines[key.value] = key.start_mark.line + 1
        self.flatten_mapping(node)
        for key, _ in node.value:
            if key.tag != f"{_TAG}str":
                remedy = f"put {key.value!r:.80} in quotes" if isinstance(key, yaml.ScalarNode) else "and no collection"
                raise _refused(key, f"a key is text; {remedy}")
        return {str(key): value for key, value in self.construct_mapping(node, deep=True).items()}

    def construct_list(self, node: yaml.SequenceNode) -> list[Any]:
        items: list[Any] = self.construct_sequence(node, deep=True)
        return items


_Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,
    f"{_TAG}null": yaml.SafeLoader.construct_yaml_null,
    f"{_TAG}bool": yaml.SafeLoader.construct_yaml_bool,
    f"{_TAG}int": yaml.SafeLoader.construct_yaml_int,
    f"{_TAG}float": yaml.SafeLoader.construct_yaml_float,
    f"{_TAG}str": yaml.SafeLoader.construct_yaml_str,
    f"{_TAG}seq": _Loader.construct_list,
    f"{_TAG}map": _Loader.construct_pairs_of_text,
}


def _refused(node: yaml.Node, why: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


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
            raise _refused(node, "an alias (*name) stands inside of what it names")
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
                raise _refused(
                    node,
                    f"aliases (*name) make {sizes[place]:,} values of this, {MAX_ITEMS:,} at most are read. Remedy: "
                    "write out what is meant",
                )
        return sizes[place]

    if node is not None:
        size(node)


def _parse(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """The YAML nodes of `text`, and the JSON types they stand for.

    Raises:
        ConfigError: names `where` and the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_size(node)
        return node, None if node is None else loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{where}:{line}: not valid YAML: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}" if mark else ""
        tabs = ". Indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        words = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{where}{at}: not valid YAML: {words}{tabs}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: nested too deeply to be a config") from error


def _apply_override(data: dict[str, Any], override: str) -> Keys:
    key, separator, value = override.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: write it as key.path=value, for example --set keep.min_score=2.5")
    _, parsed = _parse(value, f"--set {override:.200}")
    found: list[int | str] = [*keys]
    place: Any = data
    for depth, name in enumerate(keys):
        part: Any = name
        if isinstance(place, list) and name.isdecimal() and len(name) < 10 and int(name) < len(place):
            found[depth] = part = int(name)
        elif not isinstance(place, dict):
            raise ConfigError(f"--set {override}: {'.'.join(keys[:depth])} is not a mapping")
        if depth == len(keys) - 1:
            place[part] = parsed
            break
        inner = place[part] if isinstance(place, list) else place.get(part)
        # A copy: an alias stands for the same value elsewhere.
        place[part] = {} if inner is None else inner.copy() if isinstance(inner, dict | list) else inner
        place = place[part]
    return tuple(found)


def _is_overridden(keys: Keys, overridden: Collection[Keys]) -> bool:
    return any(keys[: len(override)] == override for override in overridden)


def _prepared(
    schemas: Sequence[type[BaseModel]],
    data: dict[str, Any],
    keys: Keys,
    base: Callable[[Keys], str],
    where: Callable[[Keys], str],
    home: str,
) -> dict[str, Any]:
    """`data` with lists in place of scalars where the schema wants them, and with its paths resolved."""
    kinds = [(one, one.model_fields["kind"].default) for one in schemas if "kind" in one.model_fields]
    schemas = [one for one, kind in kinds if kind == data.get("kind")] or schemas
    done = {}
    for name, value in data.items():
        place = (*keys, name)
        fields = [schema.model_fields[name] for schema in schemas if name in schema.model_fields]
        annotations = [Annotated[field.annotation, field.metadata, *field.metadata] for field in fields]
        if any(_wants_list(annotation, value) for annotation in annotations):
            value = [value]
        mark = next((mark for annotation in annotations for mark in _path_keys(annotation)), None)
        inner = [model for annotation in annotations for model in sections_of(annotation)]

        def of(item: Any, at: Keys, mark: PathKey | None = mark, inner: list[type[BaseModel]] = inner) -> Any:
            if isinstance(item, str) and mark is not None and item:
                return _resolved(item, mark, base(at), home, lambda: f"{where(at)}: {'.'.join(map(str, at))}")
            return _prepared(inner, item, at, base, where, home) if isinstance(item, dict) and inner else item

        if isinstance(value, list) and (mark or inner):
            value = [of(item, (*place, number)) for number, item in enumerate(value)]
        if isinstance(value, dict) and mark:
            done[name] = {key: of(item, (*place, key)) for key, item in value.items()}
            continue
        done[name] = of(value, place)
    return done


def _parts(annotation: Any) -> list[Any]:
    """The alternatives of a union, without what is annotated to them."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _parts(inner[0])
    return [part for one in inner for part in _parts(one)] if origin in (Union, UnionType) else [annotation]


def _wants_list(annotation: Any, value: Any) -> bool:
    """True if the schema wants a list of any length, for which one value may stand."""
    if value is None or isinstance(value, list) or (isinstance(value, dict) and not sections_of(annotation)):
        return False
    parts = _parts(annotation)
    lists = [part for part in parts if get_origin(part) is tuple and Ellipsis in get_args(part)]
    return bool(lists) and not any(part is str or value in get_args(part) for part in parts if part not in lists)


def _path_keys(annotation: Any) -> list[PathKey]:
    if isinstance(annotation, PathKey):
        return [annotation]
    return [mark for part in get_args(annotation) for mark in _path_keys(part)]


def _resolved(value: str, mark: PathKey, folder: str, home: str, where: Callable[[], str]) -> str:
    """A path of `folder` with `~` and variables expanded, relative to `home` if it is of an input.

    Any other is relative to the working directory, if it lies below.

    Raises:
        ConfigError: there is no such variable or user.
    """
    if mark.inside is not None:

        def path_in(match: re.Match[str]) -> str:
            found = _resolved(match[1].replace("''", "'"), PathKey(input=mark.input), folder, home, where)
            return match[0].replace(match[1], found.replace("'", "''"))

        return mark.inside.sub(path_in, value)

    def variable(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ConfigError(f"{where()}: the environment has no variable {name} ({value!r:.200})")
        return os.environ[name]

    if os.path.lexists(os.path.join(folder, value)):
        expanded = value
    else:
        expanded = os.path.expanduser(_VARIABLE.sub(variable, value))
        if value.startswith("~") and expanded.startswith("~"):
            raise ConfigError(f"{where()}: {value!r:.200} begins with ~, and there is no such user")
    if "://" in expanded:
        return expanded
    joined = os.path.join(folder, expanded)
    if mark.is_name(value, joined):
        return value
    path, start = os.path.normpath(joined), home if mark.input else os.getcwd()
    if not os.path.isabs(expanded) and (mark.input or path.startswith(os.path.join(start, ""))):
        if mark.pattern and glob.has_magic(expanded) and not os.path.lexists(joined):
            folder, start = glob.escape(folder), glob.escape(start)
        path = os.path.relpath(os.path.join(folder, expanded), start)
    return "./" * mark.is_name(path, os.path.join(start, path)) + path + "/" * joined.endswith("/")


def _other_verb(schema: type[BaseModel], data: dict[str, Any]) -> str | None:
    """The command whose config `data` is, if it is none of `schema`."""

    def strange(other: type[BaseModel]) -> int:
        required = {name for name, field in other.model_fields.items() if field.is_required()}
        return len(data.keys() - other.model_fields) + len(required - data.keys())

    if len(data) < 2 or schema.__name__ not in {place.partition(":")[2] for place in VERBS.values()}:
        return None
    for verb, place in VERBS.items():
        module, name = place.split(":")
        if name != schema.__name__ and 2 * strange(getattr(import_module(module), name)) < strange(schema):
            return verb
    return None


def _describe(detail: ErrorDetails, schema: type[BaseModel], where: Callable[[Keys], str]) -> str:
    tagged = tuple(part for part in detail["loc"] if not str(part).startswith("function-"))
    location, _ = _place(schema, tagged)
    key = ".".join(str(part) for part in location)
    given, kind = detail["input"], detail["type"]
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        _, siblings = _place(schema, tagged[:-1])
        close = difflib.get_close_matches(str(location[-1]), siblings, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        message = f"unknown key{hint or '.'} Allowed here: {', '.join(siblings)}" if siblings else f"unknown key{hint}"
    elif kind == "missing":
        message = "this key is required"
    elif kind == "union_tag_invalid":
        message = f"kind should be one of {detail['ctx']['expected_tags']} (got {_shown(given['kind'])})"
    elif kind != "value_error":
        message = _TYPES.get(kind, message.removeprefix("Input ")).replace("Tuple ", "List ")
        if kind.startswith("model_"):
            message += f": {', '.join(_place(schema, tagged)[1])}"
        quotes = isinstance(given, bool) and kind.startswith("string")
        quoted = (
            """"no" (a shell wants others around them: --set 'KEY="no"')""" if "(--set)" in where(location) else '"no"'
        )
        hint = f"; YAML takes yes, no, on and off for true and false: put it in quotes, {quoted}" if quotes else ""
        message = f"{message} (got {_shown(given)}){hint}"
    return f"{where(location)}: {key}: {message}" if key else f"{where(location)}: {message}"


def _shown(value: Any) -> str:
    """A value in a message, as a config writes it."""
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else f"a list of {len(value):,}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value!r:.80}"


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in sections_of(part)]


def _place(schema: type[BaseModel], location: Sequence[int | str]) -> tuple[Keys, list[str]]:
    """(`location` without the kinds and types that pydantic puts among the keys; the keys allowed there)."""
    candidates, keys = [schema], []
    for part in location:
        of_kind = [model for model in candidates if "kind" in model.model_fields]
        chosen = [model for model in of_kind if model.model_fields["kind"].default == part]
        if len(candidates) > 1 and chosen:
            candidates = chosen
            continue
        if isinstance(part, str) and part.startswith(("tuple[", "literal[")):
            continue
        keys.append(part)
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
            candidates = [model for field in fields for model in sections_of(field.annotation)]
    return tuple(keys), list(candidates[0].model_fields) if candidates else []


def _line_of(node: yaml.Node | None, location: Keys) -> int | None:
    """1-based line of the deepest part of `location` that the file has; None if it has none of it."""
    line: int | None = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in reversed(node.value) if pair[0].value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
