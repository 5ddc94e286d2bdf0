"""Errors that a user or the data can cause, each shown as one message; and addresses, as a message may show them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import url2pathname

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://[^\s'\"<>|]*[^\s'\"<>|:,.;)\]]")
_USER = re.compile(r"(?<=://)(?:[^/?#\s]*@|[^/?#\s:\[]+:(?!\d*(?:/|$))[^?#\s]*@)")
"""With a slash, too, which secrets of AWS hold: what follows the colon is no port then."""
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols whose addresses name a container before the @."""
_SIGNING = re.compile(
    r"x-(amz|goog|oss|ms|cos|bce|obs)-.*|q-.*|(aws|google|oss)?access(key)?id|signature|sig|expires?|exp|key-pair-id"
    r"|policy|s[eprtv]|spr|sip|sk(oid|tid|[tesv])|srt|ss|.*(token|secret|password|passwd|credential|auth|api-?_?key).*"
    r"|key|pwd|jwt|hmac|hash|hdn(ts|ea)|user(name)?|login",
    re.IGNORECASE,
)
"""Names of query parameters that sign an address or say until when it is signed (S3, Google, Azure, CDNs), or name who
asks."""
_OPAQUE = re.compile(r"[A-Za-z0-9+/=_~%-]{24,}|eyJ.*")


def shown(address: str) -> str:
    """An address without its user and password, and without those parameters of its query that sign it.

    A renewed signature does not change it. What is no address (has no "://") stays as it is.
    """
    if "://" not in address:
        return address
    plain, mark, query = address.partition("?")
    if plain.partition("://")[0].rpartition(":")[2] not in _CONTAINERS or ":" in _user(plain):
        plain = _USER.sub("", plain)
    parts = [part for part in re.findall(r"[^&;]*[&;]?", query) if not _signs(part.rstrip("&;"))] if mark else []
    return plain + ("?" + "".join(parts).rstrip("&;") if any(parts) else "")


def as_shown(value: Any) -> Any:
    """JSON types with every address in them as `shown`."""
    if isinstance(value, dict):
        return {name: as_shown(part) for name, part in value.items()}
    if isinstance(value, list):
        return [as_shown(part) for part in value]
    return shown(value) if isinstance(value, str) else value


def has_user(address: str) -> bool:
    """True if an address holds a user name or a password."""
    protocol = address.partition("://")[0].rpartition(":")[2]
    user = _user(address)
    return bool(user) and (protocol not in _CONTAINERS or ":" in user)


def without_secrets(text: str) -> str:
    """A message with every address in it as `shown`; signatures that stand beside them are masked."""
    if "://" not in text:
        return text
    secrets = set()
    for match in _URL.finditer(text):
        query = match[0].partition("?")[2]
        secrets |= {value for name, value in parse_qsl(query) if _signs(f"{name}={value}") and len(value) > 7}
    text = _URL.sub(lambda match: shown(match[0]), text)
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _user(address: str) -> str:
    match = _USER.search(address)
    return match[0] if match else ""


def _signs(part: str) -> bool:
    name, _, value = part.partition("=")
    return bool(_SIGNING.fullmatch(unquote(name)) or _OPAQUE.fullmatch(value))


class FinesieveError(Exception):
    """Base of every error a user can cause. Its message names the file, the position or key, and the remedy.

    What opens an address (user, password, signature) never gets into a message.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(without_secrets(str(message)))


class ConfigError(FinesieveError):
    """A config that cannot be used: names the file, the line where known, the key and the allowed values."""


class InputError(FinesieveError):
    """Input that cannot be read at all (missing file, wrong kind). A single bad record is quarantined instead."""


class ModelError(FinesieveError):
    """A model name or folder that cannot be loaded, or whose content does not match its digests."""


class AnnotationsError(FinesieveError):
    """An annotations file that cannot be trained on or evaluated against: names the column and the rows."""


class RunError(FinesieveError):
    """A run that had to stop: wrong ledger, too many quarantined records, dead worker, occupied output folder."""


class MissingExtraError(FinesieveError):
    """A feature that needs an optional dependency; the message says which extra to install."""

    def __init__(self, feature: str, extra: str, cause: str) -> None:
        super().__init__(f"{feature} needs an optional dependency ({cause}). Remedy: {install_command(extra)}")


def install_command(extra: str) -> str:
    """The command that installs an extra of finesieve from where this installation came: a clone, a wheel, an index."""
    from importlib.metadata import distributions  # slow to import, and only an error needs it

    texts = (found.read_text("direct_url.json") for found in distributions(name="finesieve"))
    origin = json.loads(next(filter(None, texts), "{}"))
    path = Path(url2pathname(urlsplit(origin.get("url", "")).path))
    if path.suffix == ".whl":
        wanted = f"'finesieve[{extra}] @ {path.as_uri()}'"
    elif origin:
        wanted = f"{'-e ' if origin.get('dir_info', {}).get('editable') else ''}'{_from_here(path)}[{extra}]'"
    else:
        wanted = f"'finesieve[{extra}]'"
    return f"{_from_here(Path(sys.executable))} -m pip install {wanted}"


def _from_here(path: Path) -> str:
    """`path` from the working directory, if it lies below it."""
    here = Path.cwd()
    if path == here:
        return "."
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)
