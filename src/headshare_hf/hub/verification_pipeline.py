"""The transformers pipeline `"face-verification"`: do two images show the same person?"""

import os
from typing import Any

import torch
from transformers import AutoModel, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from ..evaluation import add_flipped, pair_similarities
from ..evaluation.face_model import load_image_processor
from ..models import HeadShareImageProcessor, HeadShareModel
from ..models.hub_cache import cached_commit
from .image_files import open_image


TASK = "face-verification"
_FIELDS = ("image_a", "image_b")
# Arguments of `pipeline`, and of its `model_kwargs`, that say where an image processor is too.
_PLACE = (
    *("cache_dir", "code_revision", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"),
    "trust_remote_code",
)
# Its annotations are such that no pipeline of transformers itself fits them.
_Pipeline: Any = Pipeline


class _NetworkWithPlace(AutoModel):
    """
    `AutoModel` as transformers' `pipeline` calls it for this task. The network is all that it hands to the pipeline, so that
    the network takes along where it is from: the image processor is read from there, with an error that says why it is not.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        name = pretrained_model_name_or_path
        place = {key: kwargs[key] for key in _PLACE if kwargs.get(key) is not None}
        model = super().from_pretrained(name, *args, **kwargs)
        # The commit of the network, even if its branch has moved since.
        model.place = name, {**place, "revision": cached_commit(name, place) or place.get("revision")}
        return model


class FaceVerificationPipeline(_Pipeline):
    """
    Compares two images of aligned faces by the cosine of their embeddings. Class centers are neither read nor fetched.

    It decides by a threshold that was measured on a set of pairs and stored with the model
    (`HeadShareConfig.verification_thresholds`), or by one that is given.

    Args, of `transformers.pipeline` or of a call:
        far (`float`, *optional*): Which of the stored thresholds; defaults to that of the smallest FAR.
        threshold (`float`, *optional*): Cosine in [-1, 1] from which on a pair is accepted, in the place of a stored one.
        flip (`bool`, *optional*): Only with `threshold`: whether to add the embedding of the mirrored image. Otherwise as
            when the stored thresholds were measured, or not at all.
        timeout (`float`, *optional*): Seconds to wait for an image from the web.

    Raises:
        OSError: The model's image processor is neither in the cache nor to be reached; tells what the cache holds.
        ValueError: The model is of another package or has no image processor, the one that was given cannot be loaded,
            no threshold is stored, or none for this FAR; says what to do.

    Example:

    ```python
    >>> pipe = pipeline("face-verification", model="someone/mobilefacenet-th-kd")
    >>> pipe("alice.jpg", "bob.jpg")
    {'similarity': 0.083, 'is_same': False, 'threshold': 0.291, 'far': 0.001, 'rule': 'at_most'}
    ```
    """

    _load_processor = False
    # `pipeline` reads one with all of its arguments, of which only some come here. With `True` its own error, which does
    # not say that the Hub was not reached, would be the last.
    _load_image_processor = None
    _load_feature_extractor = False
    _load_tokenizer = False
    image_processor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # It may hold a token, which is not to stay with the network.
        name, place = self.model.__dict__.pop("place", (None, {}))
        if not isinstance(self.model, HeadShareModel):
            raise ValueError(
                f"the task {TASK!r} needs a HeadShareModel, not a {type(self.model).__name__}; load it with "
                "HeadShareModel.from_pretrained, or give the pipeline its Hub id or folder"
            )
        self.image_processor = _as_image_processor(self.image_processor, name, place)

    def __call__(self, inputs: Any, other: Any = None, **kwargs: Any) -> Any:
        """
        Args:
            inputs (`str`, `PIL.Image.Image`, `tuple`, `dict`, or a `list`, generator or `Dataset` of the latter two):
                The first image (path, URL or PIL image) with the second one as `other`; or a pair of images, as a tuple
                or as `{"image_a": ..., "image_b": ...}`; or many pairs.
            other (`str` or `PIL.Image.Image`, *optional*): The second image.
            kwargs: `far`, `threshold`, `flip`, `timeout`, `batch_size`, `num_workers`.

        Returns:
            `dict` or a list of `dict`: `similarity` (cosine in [-1, 1]), `is_same` (`bool`), `threshold`, `far` and
            `rule` (both `None` where the threshold was given).

        Images are not converted before the image processor of this package gets them: transparency becomes white.

        Raises:
            ValueError: There are not two images, one cannot be read or has more than 8 bits per channel, the image processor
                makes them of different size, or no threshold fits.
        """
        if other is not None:
            inputs = (inputs, other)
        if isinstance(inputs, tuple):
            inputs = _as_pair(inputs)
        elif isinstance(inputs, list):
            inputs = [_as_pair(pair) for pair in inputs]
            if not inputs:
                return []
        elif not _has_pairs(inputs):
            raise ValueError(f"{TASK} compares two images and got one; call it with `pipe(image_a, image_b)`")
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        far: float | None = None,
        threshold: float | None = None,
        flip: bool | None = None,
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        choice: dict[str, Any] = {}
        if threshold is not None:
            _check_threshold(threshold, far)
            # What a call says replaces all that was said when the pipeline was made.
            choice = {"threshold": threshold, "far": None, "flip": flip}
        elif flip is not None:
            raise ValueError(
                "`flip` belongs to the stored thresholds, which hold for it alone; give `threshold` with it"
            )
        elif far is not None:
            choice = {"far": far, "threshold": None, "flip": None}
        return {} if timeout is None else {"timeout": timeout}, choice, choice

    def preprocess(self, pair: Any, timeout: float | None = None) -> dict[str, torch.Tensor]:
        """Two images, from wherever they are, as `pixel_values` of shape `(1, 2, num_channels, height, width)`."""
        pair = _as_pair(pair)
        images = [open_image(pair[field], timeout) for field in _FIELDS]
        if not isinstance(self.image_processor, HeadShareImageProcessor):
            # Others leave the conversion to pipelines.
            images = [image.convert("RGB") for image in images]
        first, second = (self.image_processor(image, return_tensors="pt")["pixel_values"] for image in images)
        _check_sizes(first, second, self.image_processor)
        return {"pixel_values": torch.cat([first, second])[None].to(self.dtype)}

    def _forward(self, model_inputs: dict[str, torch.Tensor], **choice: Any) -> dict[str, torch.Tensor]:
        pixels = model_inputs["pixel_values"].flatten(0, 1)
        views = [pixels, pixels.flip(-1)] if self._decision(**choice)["flip"] else [pixels]
        embeddings = [self.model(pixel_values=view).embeddings.float() for view in views]
        return {"embeddings": torch.stack(embeddings, dim=1).unflatten(0, (-1, 2))}

    def postprocess(self, model_outputs: dict[str, torch.Tensor], **choice: Any) -> dict[str, Any]:
        """From embeddings `(1, 2, num_views, embedding_size)` to the answer."""
        decision = self._decision(**choice)
        views = model_outputs["embeddings"][0]
        rows = add_flipped(views[:, 0], views[:, 1]) if decision["flip"] else views[:, 0]
        similarity = float(pair_similarities(rows[:1], rows[1:])[0])
        return {
            "similarity": similarity,
            "is_same": similarity >= decision["similarity"],
            "threshold": decision["similarity"],
            "far": decision["far"],
            "rule": decision["rule"],
        }

    def _decision(
        self, far: float | None = None, threshold: float | None = None, flip: bool | None = None
    ) -> dict[str, Any]:
        """The entry of `verification_thresholds` to decide by, or one like it for a given threshold."""
        stored = self.model.config.verification_thresholds or []
        if threshold is None:
            return _choose(stored, far)
        as_measured = bool(stored) and stored[0]["flip"]
        own_flip = as_measured if flip is None else flip
        return {"similarity": float(threshold), "far": None, "rule": None, "flip": own_flip}


def _as_image_processor(given: Any, name: str | None, place: dict[str, Any]) -> Any:
    """The one that was loaded, or that is in the folder that was given; why there is none, where there is none."""
    if given is None:
        raise _not_loaded(name, place)
    if not isinstance(given, str | os.PathLike):
        return given
    # `pipeline` reads what is given as text alone. Commit and `subfolder` of the network are not of this folder.
    return load_image_processor(os.fspath(given), trust_remote_code=place.get("trust_remote_code"))


def _not_loaded(name: str | None, place: dict[str, Any]) -> ValueError:
    """The error of a pipeline without an image processor; that of reading the network's own comes first."""
    remedy = (
        "load the one that the model was trained with by `AutoImageProcessor.from_pretrained`, whose error says why it "
        "cannot be loaded, and give what it returns"
    )
    if name is None:
        return ValueError(
            f"the task {TASK!r} needs an `image_processor`, and none was given, or none could be loaded from where it "
            f"was said to be; {remedy}"
        )
    load_image_processor(name, **place)
    return ValueError(
        f"the `image_processor` cannot be loaded from where it was said to be, or with these `model_kwargs`, although "
        f"{name} has one, and transformers does not tell why; {remedy}"
    )


def _check_sizes(first: torch.Tensor, second: torch.Tensor, processor: Any) -> None:
    """Refuses images `(1, num_channels, height, width)` that cannot be in one batch."""
    if first.shape != second.shape:
        sizes = " and ".join("{} x {}".format(*pixels.shape[-2:]) for pixels in (first, second))
        raise ValueError(
            f"the two images have different sizes as the image processor returns them, {sizes} pixels (height x "
            f"width), and cannot be in one batch: its `do_resize` is {getattr(processor, 'do_resize', None)}; have it "
            'bring all images to one size, with `do_resize=True` and `size={"height": ..., "width": ...}`, or give '
            "images of one size"
        )


def _as_pair(pair: Any) -> dict[str, Any]:
    if isinstance(pair, dict) and set(pair) == set(_FIELDS):
        return pair
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        return dict(zip(_FIELDS, pair, strict=True))
    found = f"the keys {', '.join(pair)}" if isinstance(pair, dict) else f"{type(pair).__name__} {pair!r}"
    raise ValueError(
        f"a pair of images is `(image_a, image_b)` or a dict with the keys image_a and image_b, and this is {found}"
    )


def _has_pairs(inputs: Any) -> bool:
    """Whether it is one pair as a dict, or a generator or data set of pairs."""
    if isinstance(inputs, dict):
        return bool(_as_pair(inputs))
    return not isinstance(inputs, str) and (hasattr(inputs, "__getitem__") or hasattr(inputs, "__next__"))


def _check_threshold(threshold: float, far: float | None) -> None:
    if far is not None:
        raise ValueError("`far` chooses a stored threshold and `threshold` replaces it; give one of them")
    if not -1 <= threshold <= 1:
        raise ValueError(f"`threshold` is {threshold}; it must be a cosine in [-1, 1]")


def _choose(stored: list[dict[str, Any]], far: float | None) -> dict[str, Any]:
    if not stored:
        raise ValueError(
            "the model has no stored threshold; give `threshold`, a cosine in [-1, 1], or measure some on a set of pairs "
            "with `python examples/run_verification.py --model FOLDER --pairs SET --store-thresholds --output RESULTS`"
        )
    if far is None:
        return min(stored, key=lambda entry: entry["far"])
    for entry in stored:
        if entry["far"] == far:
            return entry
    known = ", ".join(f"{entry['far']:g}" for entry in sorted(stored, key=lambda entry: entry["far"]))
    raise ValueError(f"no threshold is stored for the FAR {far:g}; stored: {known}. Choose one, or give `threshold`")


PIPELINE_REGISTRY.register_pipeline(TASK, FaceVerificationPipeline, pt_model=_NetworkWithPlace, type="image")
# It marks pipelines whose code is saved beside the weights; this one comes with the package.
del FaceVerificationPipeline._registered_impl
