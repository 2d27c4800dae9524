"""The YAML block of a README.md: what it says, what is wrong with it, and which tags follow from it."""

import re

import yaml


LISTS_OF_STRINGS = ("tags", "metrics", "datasets", "language", "base_model")


def front_matter(text: str) -> tuple[dict, str | None]:
    """The block between the two lines of dashes, and what makes it unreadable."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text.lstrip("\ufeff").replace("\r\n", "\n"), re.DOTALL)
    if not match:
        return {}, None
    try:
        card = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        return {}, f"the YAML block cannot be read: {error}"
    if card is not None and not isinstance(card, dict):
        return {}, "the YAML block must be a mapping"
    # Dates and the like become what JSON has.
    return _plain(card or {}), None


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def problems(card: dict) -> list[str]:
    """What the Hub refuses, as far as a card of ours could get it wrong."""
    found = [
        f'"{name}" must be a string or a list of strings'
        for name in LISTS_OF_STRINGS
        if name in card and not all(isinstance(item, str) for item in _list(card[name]))
    ]
    found += [
        f'"{name}" must be a string'
        for name in ("license_name", "license_link", "library_name", "pipeline_tag")
        if name in card and not isinstance(card[name], str)
    ]
    if not all(isinstance(item, str) for item in _list(card.get("license", []))):
        found.append('"license" must be a string')
    return found + _index_problems(card.get("model-index", []))


def _index_problems(index) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be a list']
    found = []
    for number, model in enumerate(index):
        where = f'"model-index[{number}]'
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            found.append(f'{where}.name" is required')
            continue
        for place, result in enumerate(model.get("results") or []):
            found += _result_problems(f"{where}.results[{place}]", result)
    return found


def _result_problems(where: str, result: dict) -> list[str]:
    found = []
    for name, fields in (("task", ("type",)), ("dataset", ("name", "type"))):
        part = result.get(name) or {}
        found += [f'{where}.{name}.{field}" is required' for field in fields if not part.get(field)]
    metrics = result.get("metrics")
    if not metrics:
        return [*found, f'{where}.metrics" is required']
    for place, metric in enumerate(metrics):
        found += [
            f'{where}.metrics[{place}].{field}" is required'
            for field in ("type", "value")
            if metric.get(field) is None
        ]
    return found


def _list(value) -> list:
    return value if isinstance(value, list) else [value]


def tags(type: str, card: dict, config: dict) -> list[str]:
    """The tags of the card, and those that its other fields stand for."""
    found = [str(tag) for tag in _list(card.get("tags") or [])]
    found += [str(card[name]) for name in ("pipeline_tag", "library_name") if card.get(name)]
    found += [config["model_type"]] if config.get("model_type") else []
    for name, prefix in (("license", "license:"), ("datasets", "dataset:"), ("base_model", "base_model:")):
        found += [f"{prefix}{value}" for value in _list(card.get(name) or [])]
    found += [str(language) for language in _list(card.get("language") or [])]
    if type == "model" and config.get("auto_map"):
        found.append("custom_code")
    return list(dict.fromkeys([*found, "region:us"]))
