"""What an evaluation of a model is told, checked before anything is read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .thresholds import check_can_store


BOOTSTRAP_UNITS = ("pairs", "people")


@dataclass(frozen=True)
class VerificationOptions:
    """
    Options of [`run_verification`].

    Args:
        output (`str` or `Path`): Folder of the results.
        model (`str`, *optional*): Hub id or folder of a model.
        revision (`str`, *optional*): Branch, tag or commit of a model on the Hub.
        features (`str`, *optional*):
            Stored features of the images of one IJB protocol in the place of a model: a `.npy` or `.safetensors` file, a
            row an image. Nothing in it says whether a row holds one embedding, so that `flip` has to.
        pairs (`Sequence[str]`, *optional*): Sets of pairs, see [`load_verification_set`].
        ijbb (`str`, *optional*): Folder of IJB-B, with `meta/` and `loose_crop/`.
        ijbc (`str`, *optional*): Folder of IJB-C.
        identification (`bool`, *optional*, defaults to `False`): Also the 1:N protocol of IJB.
        flip (`bool`, *optional*):
            Add the embedding of the mirrored image. Defaults to `True` for a model. Of stored features it has to be given:
            with `True`, the right half of a row belongs to the mirrored image; with `False`, a row is one embedding.
        norm (`bool`, *optional*, defaults to `True`): IJB: keep the length of features as a weight.
        detector_score (`bool`, *optional*, defaults to `True`): IJB: weight images by the score of the face detector.
        batch_size (`int`, *optional*, defaults to 256): Images at a time in every process.
        workers (`int`, *optional*, defaults to 0): Processes that decode images, for every process.
        bootstrap (`int`, *optional*, defaults to 0): Replicates for confidence intervals; 0 for none.
        bootstrap_over (`str`, *optional*, defaults to `"pairs"`):
            What is drawn of a set of pairs: `"pairs"`, or `"people"` where it names them. Of IJB, templates are drawn.
        seed (`int`, *optional*, defaults to 0): Of the bootstrap.
        cache (`str` or `Path`, *optional*): Folder of the embeddings; defaults to `embeddings` in `output`.
        store_thresholds (`bool`, *optional*, defaults to `False`):
            Write the thresholds that the one set of pairs gives into the `config.json` of the model.

    Raises:
        ValueError: Options contradict each other, or one has no effect; says which.
    """

    output: Path
    model: str | None = None
    revision: str | None = None
    features: str | None = None
    pairs: Sequence[str] = ()
    ijbb: str | None = None
    ijbc: str | None = None
    identification: bool = False
    flip: bool | None = None
    norm: bool = True
    detector_score: bool = True
    batch_size: int = 256
    workers: int = 0
    bootstrap: int = 0
    bootstrap_over: str = "pairs"
    seed: int = 0
    cache: Path | None = None
    store_thresholds: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", Path(self.output))
        object.__setattr__(self, "pairs", tuple(self.pairs))
        self._check_source()
        object.__setattr__(self, "flip", self.flip is None or self.flip)
        self._check_effect()
        self._check_numbers()
        if self.store_thresholds:
            if len(self.pairs) != 1:
                raise ValueError(
                    f"thresholds to store come from one set of pairs, and there are {len(self.pairs)}; give one"
                )
            check_can_store(str(self.model))

    @property
    def cache_folder(self) -> Path:
        """Where embeddings are kept, one folder a set."""
        return self.output / "embeddings" if self.cache is None else Path(self.cache)

    def ijb(self) -> list[tuple[str, str]]:
        """Name and folder of the protocols asked for."""
        return [(name, folder) for name, folder in (("ijbb", self.ijbb), ("ijbc", self.ijbc)) if folder is not None]

    def switches(self) -> dict[str, bool]:
        """Those of the IJB protocols."""
        return {"flip": bool(self.flip), "norm": self.norm, "detector_score": self.detector_score}

    def describe(self) -> dict[str, Any]:
        """What the numbers depend on; places of one machine are left out."""
        places = ("output", "cache", "model", "features", "pairs", "ijbb", "ijbc", "workers", "store_thresholds")
        return {name: value for name, value in asdict(self).items() if name not in places}

    def _check_source(self) -> None:
        if (self.model is None) == (self.features is None):
            raise ValueError("give either a model or stored features")
        if not self.pairs and not self.ijb():
            raise ValueError("there is nothing to evaluate on: give --pairs, --ijbb or --ijbc")
        if self.features is not None and (self.pairs or len(self.ijb()) != 1):
            raise ValueError("stored features are those of the images of one protocol: give either --ijbb or --ijbc")
        if self.features is not None and self.revision is not None:
            raise ValueError("`revision` has no effect on stored features; leave it out")
        if self.features is not None and self.flip is None:
            raise ValueError(
                f"nothing in {self.features} says whether its rows hold mirrored images too; give --flip if the right half "
                "of each row is the mirrored image's, or --no-flip if a row is one embedding"
            )

    def _check_effect(self) -> None:
        changed = [name for name in ("norm", "detector_score") if not getattr(self, name)]
        changed += ["identification"] if self.identification else []
        if changed and not self.ijb():
            raise ValueError(f"`{changed[0]}` has no effect on sets of pairs; give --ijbb or --ijbc, or leave it out")
        if self.bootstrap_over not in BOOTSTRAP_UNITS:
            raise ValueError(f"`bootstrap_over` is {self.bootstrap_over!r}; allowed: {', '.join(BOOTSTRAP_UNITS)}")
        if self.bootstrap_over != "pairs" and not (self.pairs and self.bootstrap):
            raise ValueError("`bootstrap_over` has no effect without --pairs and --bootstrap; leave it out")

    def _check_numbers(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise ValueError(
                f"`batch_size` is {self.batch_size} and `workers` {self.workers}; at least 1 and 0 are allowed"
            )
        if self.bootstrap == 1 or self.bootstrap < 0:
            raise ValueError(f"`bootstrap` is {self.bootstrap}; an interval needs at least 2 replicates, 0 is none")
