"""A whole evaluation: from a model to tables and curves on any number of sets, resumable, in one process or several."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from ..data import VerificationSet, load_verification_set
from ..data.ijb import IjbIdentification, IjbProtocol
from ..data.ijb_images import IjbImages
from .extraction import extract_embeddings
from .face_model import FaceModel, StoredFeatures, load_face_model, load_features
from .identification import evaluate_identification
from .ijb import evaluate_ijb
from .processes import PRECISIONS, create_accelerator, on_main_process
from .records import PAIR_FARS, ijb_record, pairs_record
from .result_files import read_earlier_sets, write_results
from .roc import Roc
from .run_options import VerificationOptions
from .thresholds import check_can_calibrate, store_thresholds
from .verification import check_can_verify, one_view, verify_pairs


class _Run:
    """A model and a set after the other; the record of both grows in the main process."""

    def __init__(self, options: VerificationOptions) -> None:
        self.options = options
        self.accelerator = create_accelerator()
        self.source = _load_source(options)
        self.record: dict[str, Any] = {
            "model": self._describe_source(),
            "options": options.describe(),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "sets": {},
        }
        on_main_process(self.accelerator, self._go_on)

    def _describe_source(self) -> dict[str, Any]:
        described = self.source.describe()
        if isinstance(self.source, StoredFeatures):
            return described
        # `accelerate launch --mixed_precision` and the configuration of accelerate have a say in it.
        return {**described, "precision": PRECISIONS[self.accelerator.mixed_precision]}

    def _go_on(self) -> None:
        switches = self.options.switches()
        # Without templates the others have no effect.
        effective = switches if self.options.ijb() else {"flip": switches["flip"]}
        self.record["sets"] = read_earlier_sets(self.options.output, self.record["model"], effective)

    def embed(self, name: str, make_dataset: Callable[[Any], Any]) -> Any:
        """Embeddings of a set, in the main process; the other processes get `None`."""
        if isinstance(self.source, StoredFeatures):
            return self.source.values
        return extract_embeddings(
            self.source.model,
            make_dataset(self.source.processor),
            batch_size=self.options.batch_size,
            flip=bool(self.options.flip),
            name=name,
            folder=self.options.cache_folder / name,
            processor=self.source.processor,
            accelerator=self.accelerator,
            num_workers=self.options.workers,
        )

    def add(self, name: str, evaluate: Callable[[], tuple[dict[str, Any], Roc]]) -> None:
        """Evaluates one set and writes what is known so far, in the main process."""

        def finish() -> None:
            self.record["sets"][name], roc = evaluate()
            write_results(self.options.output, self.record, name, roc)

        on_main_process(self.accelerator, finish)


@dataclass(frozen=True)
class _Templates:
    """A protocol and, if it is asked for, its 1:N part."""

    protocol: IjbProtocol
    identification: IjbIdentification | None


def run_verification(options: VerificationOptions) -> dict[str, Any] | None:
    """
    Evaluates a model on sets of pairs and on IJB-B and IJB-C. Writes to `options.output`, anew after each set:
    `results.json` (fractions), `results.md` (tables, per cent), and for each set `SET/roc.png` and `SET/det.png`. Sets
    that an earlier call has evaluated into the same folder stay, where model and switches are the same.

    Args:
        options ([`VerificationOptions`]): What to evaluate, and how.

    Returns:
        `dict`: The content of `results.json`, of which `options` are those of the last call, and every set has its own;
        `None` in every process but the main one.

    Raises:
        FileNotFoundError, OSError, ValueError: A file, the model or a set does not fit, or the folder has results of
            another model or of other switches. All of it is read before anything is embedded, and embeddings that were
            made are kept.
    """
    sets = _load_sets(options)
    run = _Run(options)
    for name, found in sets.items():
        if isinstance(found, VerificationSet):
            _add_pairs(run, found)
        else:
            _add_templates(run, name, found)
    return run.record if run.accelerator.is_main_process else None


def _load_sets(options: VerificationOptions) -> dict[str, VerificationSet | _Templates]:
    sets: dict[str, VerificationSet | _Templates] = {}
    for path in options.pairs:
        pairs = load_verification_set(path)
        if pairs.name in sets:
            raise ValueError(f"two sets are called {pairs.name}; rename the file or folder of one of them")
        _check_pairs(pairs, options)
        sets[pairs.name] = pairs
    for name, folder in options.ijb():
        protocol = IjbProtocol.read(folder)
        if protocol.name != name:
            raise ValueError(f"{folder} holds {protocol.name}; give it with --{protocol.name}")
        sets[name] = _Templates(protocol, IjbIdentification.read(protocol) if options.identification else None)
    return sets


def _check_pairs(pairs: VerificationSet, options: VerificationOptions) -> None:
    check_can_verify(pairs)
    if options.bootstrap_over == "people" and pairs.names is None:
        raise ValueError(f"{pairs.name} does not say who is on its images; draw pairs instead of people")
    if options.store_thresholds:
        check_can_calibrate(pairs)


def _load_source(options: VerificationOptions) -> FaceModel | StoredFeatures:
    if options.features is not None:
        return load_features(options.features)
    # The options were checked to have the one or the other.
    return load_face_model(str(options.model), options.revision)


def _add_pairs(run: _Run, pairs: VerificationSet) -> None:
    options, embeddings = run.options, run.embed(pairs.name, pairs.dataset)

    def evaluate() -> tuple[dict[str, Any], Roc]:
        rows = one_view(embeddings, bool(options.flip))
        result = verify_pairs(rows[pairs.index_a], rows[pairs.index_b], pairs.is_same, pairs.folds, PAIR_FARS)
        return pairs_record(pairs, result, options, rows.shape[1]), result.roc

    def store() -> None:
        store_thresholds(str(options.model), run.record["sets"][pairs.name]["thresholds"])

    run.add(pairs.name, evaluate)
    # Results are written by now, whatever becomes of the thresholds.
    if options.store_thresholds:
        on_main_process(run.accelerator, store)


def _add_templates(run: _Run, name: str, templates: _Templates) -> None:
    options, protocol, identification = run.options, templates.protocol, templates.identification
    features = run.embed(name, lambda processor: IjbImages(protocol, processor))

    def evaluate() -> tuple[dict[str, Any], Roc]:
        how: dict[str, Any] = {**options.switches(), "num_resamples": options.bootstrap, "seed": options.seed}
        result, rates = evaluate_ijb(features, protocol, **how), None
        if identification is not None:
            rates = evaluate_identification(features, protocol, identification, **how)
        size = features.shape[1] // 2 if options.flip else features.shape[1]
        return ijb_record(protocol, result, rates, options, size), result.roc

    run.add(name, evaluate)
