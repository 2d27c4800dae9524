"""Loading that accounts for every tensor, saving with the code of the model, and publishing."""

import json
import tempfile
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, ModelCard
from torch import nn
from transformers import PreTrainedModel

from .card_thresholds import state_thresholds
from .class_centers import CENTERS_FILE
from .configuration_headshare import HeadShareConfig
from .damaged_files import damage_named
from .hub_cache import INDEX_FILE, PROCESSOR_FILE, WEIGHTS_FILE, explained
from .hub_card import address_card, check_card, check_places
from .hub_commit import CARD_FILE, check_target, commit_files, open_repository
from .loading_problems import LOADING_PROBLEMS, load_reports_held, misfit
from .model_checks import check_channels, check_finite


# Bytes; what torch allocates on the CPU starts at a multiple of it.
_ALIGNMENT = 64
# As transformers calls them.
_SHARDS = f"model-{'[0-9]' * 5}-of-{'[0-9]' * 5}.safetensors"
AUTO_MAP = {
    "AutoConfig": "configuration_headshare.HeadShareConfig",
    "AutoModel": "modeling_headshare.HeadShareModel",
    "AutoModelForImageClassification": "modeling_headshare.HeadShareForImageClassification",
}


class HeadSharePreTrainedModel(PreTrainedModel):
    """Initialisation, and loading that accounts for every tensor."""

    config_class = HeadShareConfig
    base_model_prefix = "headshare"
    main_input_name = "pixel_values"
    input_modalities = "image"
    # The loss is a mean over the batch, so the Trainer must not pass `num_items_in_batch`.
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        # Every layer draws its weights when it is built, as its paper says, and `from_pretrained` below leaves none to
        # be drawn later. What transformers would do here is to draw linear layers again from N(0, 0.02).
        pass

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """
        As `PreTrainedModel.from_pretrained`, but a checkpoint must hold exactly the tensors of the model.

        Raises:
            OSError: There is no such model, or it is private, gated, or neither in the cache nor to be reached; tells
                what the cache holds.
            ValueError: A file is damaged (it is named), or tensors are missing, unexpected or of another shape. The first
                of them are named, and the network that they look like. transformers itself would fill the gaps with
                random numbers and only log it.
        """
        name = pretrained_model_name_or_path
        wants_info = kwargs.pop("output_loading_info", False)
        # Only then transformers says which shapes differ; they are refused below.
        kwargs["ignore_mismatched_sizes"] = True
        with damage_named(name, kwargs), explained(name, kwargs, WEIGHTS_FILE, INDEX_FILE), load_reports_held():
            model, info = cast(Any, super()).from_pretrained(name, *args, output_loading_info=True, **kwargs)
        if not info["mismatched_keys"]:
            model._load_rest(name, info, kwargs)
        if any(info[kind] for kind in LOADING_PROBLEMS):
            raise ValueError(misfit(name, model, info, kwargs))
        _align(model)
        # transformers makes every tensor that it has read trainable.
        model.base_model.backbone.freeze_constants()
        return (model, info) if wants_info else model

    def _load_rest(self, name_or_path: Any, info: dict[str, Any], options: dict[str, Any]) -> None:
        """Reads what a checkpoint keeps in further files, and takes it off `info["missing_keys"]`."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """
        As `PreTrainedModel.save_pretrained`. The code of the model is saved too, so that every folder, checkpoints
        included, works with `trust_remote_code=True` where this package is not installed. That is about 140 kB and
        some hundredths of a second, too little for a second kind of folder without it. Weights of an earlier save go:
        the folder holds them in one file or in shards.

        Raises:
            ValueError: `push_to_hub` is given; [`push_to_hub`] sends what belongs to the model too.
        """
        if kwargs.get("push_to_hub"):
            raise ValueError(
                "`save_pretrained` would publish neither image processor nor card; call "
                "`push_to_hub(repo_id, image_processor=..., card=...)`"
            )
        # transformers itself enters the class that is saved alone, but the weights serve both.
        self.config.auto_map = dict(AUTO_MAP)
        self._save_rest(save_directory, kwargs)
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            _remove_outdated(Path(save_directory))

    def _save_rest(self, folder: Any, options: dict[str, Any]) -> None:
        """Writes what goes to further files, and leaves the other tensors in `options["state_dict"]`."""
        if options.get("is_main_process", True):
            # Of another model that was saved here before.
            Path(folder, CENTERS_FILE).unlink(missing_ok=True)

    def push_to_hub(  # type: ignore[override]  # transformers' own takes any number of positional arguments
        self,
        repo_id: str,
        *,
        image_processor: Any = None,
        card: ModelCard | str | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        token: bool | str | None = None,
        max_shard_size: int | str | None = "50GB",
        **kwargs: Any,
    ) -> Any:
        """
        Publishes the model in one commit: weights, configuration, code, image processor and card.

        Weights of an earlier publication that are not part of this one are removed.

        Args:
            repo_id (`str`): Where to, `namespace/name`; without a namespace, that of the user. It is made if needed.
            image_processor ([`HeadShareImageProcessor`] or another one): What prepares images for this model.
            card (`huggingface_hub.ModelCard` or `str`): What `headshare_hf.hub.render_card` returns, whose examples are
                made to load `repo_id`, or any other card whose metadata say a license.
            private (`bool`, *optional*): Whether a repository that is made is private.
            revision (`str`, *optional*): Branch to commit to; it is made from `main` if it does not exist.
            commit_message (`str`, *optional*, defaults to `"Upload model"`): Of the commit.
            token (`bool` or `str`, *optional*): Of the Hub; by default the one that is stored.
            max_shard_size (`int` or `str`, *optional*, defaults to `"50GB"`): Of one file of weights.
            kwargs: None; those of transformers fill in a card that is not ours, or propose changes.

        Returns:
            `huggingface_hub.CommitInfo`: The commit that holds the content, an earlier one if it held all of it already.

        Raises:
            ValueError: Image processor or card are missing, the card says no license, shows a path of this machine, or
                is one of this package with an unknown metric or a value that is no fraction; a tensor has NaN or infinite
                values, or the image processor makes other channels than the model reads; the id or the branch is none, or
                the repository is public and `private=True` was asked for. Nothing has been sent then.
            OSError: Somebody else made a commit to the branch meanwhile; nothing was published.
            huggingface_hub.errors.HfHubHTTPError: What else the Hub answers, unchanged.
        """
        if kwargs:
            raise ValueError(f"`push_to_hub` does not take {', '.join(kwargs)}; write what the card says into `card`")
        check_target(repo_id, revision)
        check_finite(self.state_dict().items())
        with tempfile.TemporaryDirectory() as folder:
            _save_companions(Path(folder), image_processor, card, self.config.num_channels)
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            api = HfApi(token=token)
            repo_id = open_repository(api, repo_id, private, revision)
            files: dict[str, Path | bytes] = {path.name: path for path in sorted(Path(folder).iterdir())}
            text = Path(folder, CARD_FILE).read_text(encoding="utf-8")
            text = state_thresholds(text, self.config.verification_thresholds)
            files[CARD_FILE] = address_card(text, repo_id).encode()
            return commit_files(api, repo_id, files, revision, commit_message or "Upload model")[0]


def _remove_outdated(folder: Path) -> None:
    """
    Removes what is left of an earlier save. transformers deletes shards that it does not write again, and neither a whole
    file, which `from_pretrained` would read in the place of the shards, nor the index of shards that are gone.
    """
    has_shards = any(folder.glob(_SHARDS))
    (folder / (WEIGHTS_FILE if has_shards else INDEX_FILE)).unlink(missing_ok=True)


def _save_companions(
    folder: Path, image_processor: Any, card: ModelCard | str | None, num_channels: int | None
) -> None:
    """What nobody can use or judge a model without."""
    if image_processor is None:
        raise ValueError(
            "`push_to_hub` needs `image_processor`, without which nobody knows size, statistics and channel order of the "
            "images; give the one that the model was trained with, e.g. HeadShareImageProcessor.from_pretrained(...)"
        )
    if card is None:
        raise ValueError(
            "`push_to_hub` needs `card`, a ModelCard or its text: `render_card` of headshare_hf.hub writes one with "
            "results, and `ModelCard.load(...)` of huggingface_hub reads one"
        )
    card = ModelCard(card) if isinstance(card, str) else card
    check_card(card)
    check_places(card.content, "the model card", [Path.cwd()])
    card.save(folder / CARD_FILE)
    image_processor.save_pretrained(folder)
    if not (folder / PROCESSOR_FILE).is_file():
        raise ValueError(f"a {type(image_processor).__name__} saves no {PROCESSOR_FILE}; use HeadShareImageProcessor")
    check_channels(json.loads((folder / PROCESSOR_FILE).read_text(encoding="utf-8")), num_channels)


def _align(model: nn.Module) -> None:
    """
    Moves tensors that are mapped from a file to addresses that a fresh tensor has.

    Kernels sum in another order at an odd address, so that the logits of a reloaded model would differ in the last bit.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()
