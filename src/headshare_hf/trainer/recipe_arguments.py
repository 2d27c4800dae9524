"""How a recipe file and the command line become the sections of a recipe."""

import contextlib
import dataclasses
import difflib
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from .config import DistillationConfig
from .recipe_sections import SECTIONS, Recipe


def parse_recipe(arguments: list[str]) -> Recipe:
    """
    Reads `--config FILE` (YAML or JSON) and `--section.field value` overrides.

    A file may name another one under `extends`, relative to itself, whose sections it then completes or overrides.

    Args:
        arguments (`list[str]`): The command line, without the program.

    Raises:
        ValueError: Names the file, section or field that is wrong, and the nearest right name.
    """
    rest = list(arguments)
    config = _take_config(rest)
    overrides = split_overrides(rest)
    sections = read_recipe(config) if config is not None else {}
    for (section, name), value in overrides.items():
        sections.setdefault(section, {})[name] = value
    return build_recipe(sections)


def build_recipe(sections: dict[str, dict[str, Any]]) -> Recipe:
    """
    Args:
        sections (`dict[str, dict[str, Any]]`): The content of a recipe file.

    Raises:
        ValueError: As [`parse_recipe`].
    """
    for required in ("student", "data", "training"):
        if required not in sections:
            raise ValueError(f"the recipe has no section `{required}`; sections: {', '.join(SECTIONS)}")
    return Recipe(**{name: build_section(name, content or {}) for name, content in sections.items()})


def describe_options() -> str:
    """What `--help` prints: every field of every section."""
    lines = ["--config FILE                    recipe in YAML or JSON; any field below replaces its value"]
    for section, kind in SECTIONS.items():
        own = set(DistillationConfig.__annotations__) if kind is DistillationConfig else None
        for entry in dataclasses.fields(kind):
            if own is None or entry.name in own:
                lines.append(f"--{section}.{entry.name:<30} {entry.metadata.get('help', '')}")
    return "\n".join([*lines, "--training.* also takes every field of transformers.TrainingArguments"])


def split_overrides(arguments: Sequence[str]) -> dict[tuple[str, str], Any]:
    """
    Reads `--section.field value` and `--section.field=value`.

    Args:
        arguments (`Sequence[str]`): Of the command line.

    Returns:
        `dict[tuple[str, str], Any]`: Values, read as YAML, by section and field.

    Raises:
        ValueError: Something is no such option, or has no value.
    """
    overrides, rest = {}, list(arguments)
    while rest:
        name, value = _take_option(rest)
        section, dot, key = name.partition(".")
        if not dot:
            raise ValueError(f"option --{name} has no section; write e.g. --training.{name}")
        overrides[(section, key)] = yaml.safe_load(value)
    return overrides


def _take_option(rest: list[str]) -> tuple[str, str]:
    flag = rest.pop(0)
    if not flag.startswith("--"):
        raise ValueError(f"unexpected argument {flag!r}; options look like --training.learning_rate 0.1")
    name, given, value = flag[2:].partition("=")
    if not given:
        if not rest:
            raise ValueError(f"option {flag} needs a value")
        value = rest.pop(0)
    return name, value


def _take_config(rest: list[str]) -> Path | None:
    """The last one given, as for any other option; none of them is left in `rest`."""
    found = None
    while places := [index for index, flag in enumerate(rest) if flag.partition("=")[0] == "--config"]:
        following = rest[places[0] :]
        found = Path(_take_option(following)[1])
        rest[places[0] :] = following
    return found


def read_recipe(path: Path, seen: Sequence[Path] = ()) -> dict[str, Any]:
    """
    The content of a YAML or JSON file, completed by what it `extends`.

    Args:
        path (`Path`): The file.
        seen (`Sequence[Path]`, *optional*): Files that extend it.

    Raises:
        ValueError: A file does not exist, cannot be read, is no mapping, or extends itself.
    """
    if path.resolve() in seen:
        raise ValueError(f"recipe {path} extends itself")
    if not path.is_file():
        raise ValueError(f"recipe {path} does not exist")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"recipe {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"recipe {path} must consist of sections: {', '.join(SECTIONS)}")
    base = content.pop("extends", None)
    if base is None:
        return {name: {} if section is None else section for name, section in content.items()}
    # Section by section, so that a file states only what is its own.
    merged = read_recipe(path.parent / base, [*seen, path.resolve()])
    for name, section in content.items():
        parts = isinstance(section, dict | None) and isinstance(merged.get(name, {}), dict)
        merged[name] = {**merged.get(name, {}), **(section or {})} if parts else section
    return merged


def build_section(name: str, content: dict[str, Any]) -> Any:
    """
    One section of a recipe.

    Args:
        name (`str`): Of the section.
        content (`dict[str, Any]`): Its fields.

    Raises:
        ValueError: Names the section or field that is wrong, and the nearest right name.
    """
    if name not in SECTIONS:
        raise ValueError(f"unknown section `{name}`{_nearest(name, SECTIONS)}; sections: {', '.join(SECTIONS)}")
    if not isinstance(content, dict):
        raise ValueError(f"section `{name}` is {content!r}; it must consist of fields")
    kind: Any = SECTIONS[name]
    known = {entry.name: entry for entry in dataclasses.fields(kind) if entry.init}
    for key in content:
        if key not in known:
            raise ValueError(f"section `{name}` has no field `{key}`{_nearest(key, known)}")
    values = {key: _as_field(f"{name}.{key}", value, str(known[key].type)) for key, value in content.items()}
    return _parser(kind).parse_dict(values)[0]


@cache
def _parser(kind: Any) -> HfArgumentParser:
    # Making one takes several times as long as reading a section with it, and a comparison reads hundreds of sections.
    return HfArgumentParser(kind)


def _as_field(name: str, value: Any, kind: str) -> Any:
    """Checks a value, and mends what YAML 1.1 reads otherwise than people mean it: 1e-4 as text, `no` as false."""
    kinds = set(re.findall(r"int|float|bool|str|list|dict", kind))
    if isinstance(value, bool) and "bool" not in kinds:
        value = "yes" if value else "no"
    if isinstance(value, str) and kinds and kinds <= {"int", "float"} and "float" in kinds:
        with contextlib.suppress(ValueError):
            value = float(value)
    # Other types are those of transformers' own fields, which checks them itself.
    if value is None or not kinds or "str" in kinds or _fits(value, kinds):
        return value
    raise ValueError(f"`{name}` is {value!r}; it must be {' or '.join(sorted(kinds))}")


def _fits(value: Any, kinds: set[str]) -> bool:
    if isinstance(value, bool):
        return "bool" in kinds
    if isinstance(value, int):
        return bool(kinds & {"int", "float"}) and not kinds & {"list", "dict"}
    return type(value).__name__ in kinds


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""
