"""Options: dataclasses hold the defaults, a YAML file holds only what differs, `key=value` overrides come last.

An unknown key is an error that names the file and the nearest known key: a typing mistake never passes silently.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from e3dge_video.errors import ConfigError

T = TypeVar("T")


def bundled_config(name: str) -> Path:
    """Path of a YAML file shipped with the package, e.g. `training/starter_generator.yaml`."""
    path = Path(str(files("e3dge_video") / "configs")) / name
    if not path.is_file():
        known = sorted(
            str(p.relative_to(path.parents[len(Path(name).parts) - 1])) for p in config_root().rglob("*.yaml")
        )
        raise ConfigError(f"{name}: no such bundled configuration; there are: {', '.join(known) or 'none'}")
    return path


def config_root() -> Path:
    """Folder of the YAML files shipped with the package."""
    return Path(str(files("e3dge_video") / "configs"))


def load_config(schema: type[T], path: Path | None = None, overrides: Iterable[str] = ()) -> T:
    """Build `schema` from its defaults, a YAML file and dotted overrides, in that order.

    Args:
        schema: A dataclass type.
        path: YAML file with the values that differ from the defaults, or None.
        overrides: Strings `section.key=value`; the value is read as YAML.

    Raises:
        ConfigError: Unreadable file, unknown key or a value of the wrong type.
    """
    return from_mapping(schema, read_values(path, overrides), source=str(path) if path else "options")


def read_values(path: Path | None = None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The plain values of a YAML file and dotted overrides, not yet compared with any schema.

    Raises:
        ConfigError: Unreadable file, or an override that is none.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read as a YAML configuration ({error})".replace("\n", " ")) from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: a configuration is a table of keys and values, got {type(values).__name__}")
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"{text}: an override reads section.key=value")
        _assign(values, key.split("."), yaml.safe_load(value), text)
    return values


def from_mapping(schema: type[T], values: Mapping[str, Any], *, source: str = "options", prefix: str = "") -> T:
    """Build a dataclass from plain values (as read from YAML or JSON), nested dataclasses included."""
    hints = typing.get_type_hints(schema)
    names = [f.name for f in dataclasses.fields(schema) if f.init]  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(names)}"
            raise ConfigError(f"{source}: {prefix}{key} is not an option{hint}")
        arguments[key] = _convert(hints[key], value, source, prefix + key)
    try:
        return schema(**arguments)
    except TypeError as error:
        raise ConfigError(f"{source}: {prefix or schema.__name__}: {error}") from error
    except ConfigError as error:  # the schema's own check, which does not know where the values come from
        raise ConfigError(f"{source}: {error}") from error


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain values of a dataclass, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def _assign(values: dict[str, Any], keys: list[str], value: Any, text: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{text}: {key} is a value, not a section")
    values[keys[-1]] = value


def _convert(hint: Any, value: Any, source: str, key: str) -> Any:
    """Check a plain value against a type hint and turn lists into tuples, tables into dataclasses."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        failures = []
        for part in parts:
            try:
                return _convert(part, value, source, key)
            except ConfigError as error:
                failures.append(error)
        raise failures[0]
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(hint, value, source=source, prefix=key + ".")  # type: ignore[arg-type]
    if origin is Literal and value in parts:
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = [parts[0]] * len(value) if len(parts) == 2 and parts[1] is Ellipsis else list(parts)
        if len(inner) == len(value):
            return tuple(
                _convert(p, v, source, f"{key}[{i}]") for i, (p, v) in enumerate(zip(inner, value, strict=True))
            )
    if origin is dict and isinstance(value, Mapping):
        return {k: _convert(parts[1], v, source, f"{key}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):  # YAML reads 2e-3 as text
            return float(value)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is Any or (hint is type(None) and value is None):
        return value
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = " | ".join(map(repr, parts)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{source}: {key} = {value!r}: expected {wanted}")
