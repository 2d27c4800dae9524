"""The files of a folder that are published, each checked before anything is sent."""

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_imports

from ..models import CENTERS_FILE
from ..models.hub_cache import CONFIG_FILE, INDEX_FILE, PROCESSOR_FILE, WEIGHTS_FILE
from ..models.hub_card import check_card, check_places
from ..models.hub_commit import CARD_FILE, TRAINING_FILE
from ..models.model_checks import check_channels, check_finite


_REMEDIES = {
    CARD_FILE: "the model card; write it with `render_card` of headshare_hf.hub, or by running the recipe again",
    CONFIG_FILE: "the configuration; save the model with `save_pretrained`",
    PROCESSOR_FILE: "the image processor; save it with `processor.save_pretrained`",
}


def select_files(folder: str | Path, source: str | Path | None = None) -> dict[str, Path]:
    """
    The files of a folder that are published, by their names in the repository.

    They are named here one by one: card, configuration, image processor, weights, class centers, the code that the
    configuration refers to, and `training_config.json` where there is one. Everything else, such as checkpoints, the
    state of a run, caches and results with paths of this machine, stays where it is.

    Args:
        folder (`str` or `Path`): With the files of `save_pretrained` and a `README.md`.
        source (`str` or `Path`, *optional*): The folder that they were copied from; paths beside it are refused.

    Raises:
        ValueError: A file is missing, damaged, or not what can be published: weights with NaN or infinite values, or both
            whole and in shards, an image processor of other channels than the model, a card or a training configuration
            that shows a path of this machine. File, and tensor or field, are named.
    """
    folder, private = Path(folder), _parents(Path(source or folder))
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} does not exist")
    for name, remedy in _REMEDIES.items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}, {remedy}")
    config, processor = (_read_json(folder / name) for name in (CONFIG_FILE, PROCESSOR_FILE))
    _check_processor(folder / PROCESSOR_FILE, processor, config)
    _check_card(folder / CARD_FILE, private)
    names = [CARD_FILE, CONFIG_FILE, PROCESSOR_FILE, *_weights(folder, config), *_code(folder, config, processor)]
    if (folder / TRAINING_FILE).is_file():
        settings = _read_json(folder / TRAINING_FILE)
        # Without the escapes of JSON, which hide letters of a path.
        check_places(json.dumps(settings, ensure_ascii=False), folder / TRAINING_FILE, private)
        names.append(TRAINING_FILE)
    return {name: folder / name for name in names}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); save it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (it holds a {type(content).__name__}, no object); save it again")
    return content


def _check_processor(path: Path, processor: dict[str, Any], config: dict[str, Any]) -> None:
    try:
        check_channels(processor, config.get("num_channels"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_card(path: Path, private: list[Path]) -> None:
    try:
        card = ModelCard.load(path)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"the metadata of the model card {path} cannot be read ({error}); write it again") from error
    check_card(card, f"the model card {path}")
    check_places(path.read_text(encoding="utf-8"), path, private)


def _parents(folder: Path) -> list[Path]:
    """Where other runs of this machine are likely to be."""
    return [folder.absolute().parent, folder.resolve().parent]


def _weights(folder: Path, config: dict[str, Any]) -> list[str]:
    """Names of the files with tensors, after all of them have been read."""
    if (folder / WEIGHTS_FILE).is_file():
        _refuse_two_models(folder)
        found = [WEIGHTS_FILE]
    elif (folder / INDEX_FILE).is_file():
        found = _shards(folder / INDEX_FILE)
    else:
        raise ValueError(f"{folder} has no weights ({WEIGHTS_FILE}); save the model with `save_pretrained`")
    tensors = {name for file in found for name in _tensor_names(folder / file)}
    centers = [CENTERS_FILE] if (folder / CENTERS_FILE).is_file() else []
    for file in centers:
        tensors |= _tensor_names(folder / file)
    is_classifier = "HeadShareForImageClassification" in (config.get("architectures") or [])
    if is_classifier and "classifier.weight" not in tensors:
        raise ValueError(f"{folder} has no {CENTERS_FILE}, the classifier; save the model with `save_pretrained`")
    return [*found, *centers, *([] if WEIGHTS_FILE in found else [INDEX_FILE])]


def _refuse_two_models(folder: Path) -> None:
    # `from_pretrained` reads the whole file, but nothing says that it is the one that was saved last.
    if (folder / INDEX_FILE).is_file():
        raise ValueError(
            f"{folder} has both {WEIGHTS_FILE} and {INDEX_FILE}, of two saves, and only one of them is the model; delete the "
            "other one, or save the model into an empty folder"
        )


def _shards(index: Path) -> list[str]:
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(_is_file_name(name) for name in places.values()):
        raise ValueError(f"{index} is damaged (it has no `weight_map`); save the model again")
    return sorted(set(places.values()))


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _tensor_names(path: Path) -> set[str]:
    try:
        # It compares the size of the file with what its header says.
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            check_finite((name, file.get_tensor(name)) for name in names)
            return set(names)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist, but {INDEX_FILE} names it; save the model again") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}); save the model again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _references(content: dict[str, Any]) -> list[str]:
    """What `auto_map` refers to in the folder itself; `repository--module.Class` is code of another one."""
    places = content.get("auto_map") or {}
    values = places.values() if isinstance(places, dict) else []
    # An image processor may have one class a backend, or a list of them with gaps.
    several = [
        list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for value in values
    ]
    return [
        reference for group in several for reference in group if isinstance(reference, str) and "--" not in reference
    ]


def _code(folder: Path, config: dict[str, Any], processor: dict[str, Any]) -> list[str]:
    """Names of the modules that `auto_map` refers to, and of those that they import."""
    references = [reference for content in (config, processor) for reference in _references(content)]
    if config.get("model_type") == "headshare" and not references:
        raise ValueError(
            f"{folder / CONFIG_FILE} does not say where the code of the model is (`auto_map`); load the model and save "
            "it again with `save_pretrained`, which writes the code"
        )
    found, rest = [], sorted({f"{reference.split('.')[0]}.py" for reference in references})
    while rest:
        name = rest.pop(0)
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}, code of the model; save model and image processor again")
        found.append(name)
        imported = (f"{module}.py" for module in sorted(get_relative_imports(folder / name)))
        rest += [module for module in imported if module not in found and module not in rest]
    return found
