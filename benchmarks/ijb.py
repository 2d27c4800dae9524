"""
IJB-C at its full size, from files to the table of results: time and memory of every part, beside a version with loops.

    python benchmarks/ijb.py                # everything: about two minutes on two cores, 3 GB of disk
    python benchmarks/ijb.py --scale 0.02   # seconds

The protocol is synthetic, of the published size and in the published formats; features are random but overlap as real
ones do. The other version does what evaluation scripts commonly do: a loop over templates and media, scalar products of
the pairs in blocks, and `roc_curve` of scikit-learn. Both run one after the other in the same process, and their TARs
must be equal. Peak memory is read from /proc, on Linux, above what was there before each part.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.preprocessing import normalize

from headshare_hf.data import IjbIdentification, IjbProtocol
from headshare_hf.evaluation import IJB_FARS, Roc, TemplateBootstrap, evaluate_identification, evaluate_ijb
from headshare_hf.evaluation.ijb_templates import pool_templates, score_pairs


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ijb_files import ProtocolSize, write_protocol  # noqa: E402


@dataclass
class Parts:
    """Seconds and peak MB of each part of one version."""

    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measures what runs inside."""
        Path("/proc/self/clear_refs").write_text("5")
        before, start = _status("VmRSS"), time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.megabytes[name] = max(0.0, _status("VmHWM") - before)

    def run(self, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The result of a function, measured."""
        with self.measured(name):
            return function(*arguments, **options)


def ours(folder: Path, features: np.ndarray, parts: Parts) -> dict[str, list[float]]:
    """The evaluation of this package, part by part."""
    protocol = parts.run("read", IjbProtocol.read, folder)
    templates = parts.run("pool", pool_templates, features, protocol)
    scores = parts.run("score", score_pairs, templates, protocol.pair_first, protocol.pair_second)
    with parts.measured("roc"):
        roc = Roc.from_scores(scores, protocol.is_same)
        tars = {rule: [roc.tar_at_far(far, rule) for far in IJB_FARS] for rule in ("nearest", "at_most")}
        tars["auc"] = [roc.auc]
    return tars


def plain(folder: Path, features: np.ndarray, parts: Parts) -> dict[str, list[float]]:
    """The same, with loops."""
    images, pairs = parts.run("read", read_with_pandas, folder / "meta")
    templates, ids = parts.run("pool", pool_with_loops, features, images)
    scores = parts.run("score", score_in_blocks, templates, ids, pairs)
    return parts.run("roc", roc_of_scikit_learn, scores, pairs[:, 2])


def read_with_pandas(meta: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Columns name, template and media of the images, with the detector's score; and the pairs with their labels."""
    images = pd.read_csv(meta / "ijbc_face_tid_mid.txt", sep=" ", header=None)
    images["score"] = pd.read_csv(meta / "ijbc_name_5pts_score.txt", sep=" ", header=None)[11]
    return images, pd.read_csv(meta / "ijbc_template_pair_label.txt", sep=" ", header=None).to_numpy()


def pool_with_loops(features: np.ndarray, images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """A loop over templates with a loop over media."""
    half = features.shape[1] // 2
    values = features[:, :half] + features[:, half:]
    values = values * images["score"].to_numpy(np.float32)[:, None]
    templates, media = images[1].to_numpy(), images[2].to_numpy()
    ids = np.unique(templates)
    pooled = np.zeros((len(ids), half))
    for row, template in enumerate(ids):
        inside = np.flatnonzero(templates == template)
        for medium in np.unique(media[inside]):
            pooled[row] += values[inside[media[inside] == medium]].mean(axis=0)
    return normalize(pooled), ids


def score_in_blocks(templates: np.ndarray, ids: np.ndarray, pairs: np.ndarray, block: int = 100_000) -> np.ndarray:
    """One scalar product a pair."""
    row = np.zeros(ids.max() + 1, dtype=np.int64)
    row[ids] = np.arange(len(ids))
    scores = np.zeros(len(pairs))
    for start in range(0, len(pairs), block):
        part = pairs[start : start + block]
        scores[start : start + block] = (templates[row[part[:, 0]]] * templates[row[part[:, 1]]]).sum(axis=1)
    return scores


def roc_of_scikit_learn(scores: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """TAR by both rules, and the area."""
    fars, tars, _ = roc_curve(labels, scores)
    # From the end, so that of points at the same distance that of larger FAR, and of larger TAR, is first.
    fars, tars = fars[::-1], tars[::-1]
    nearest = [float(tars[np.argmin(np.abs(fars - far))]) for far in IJB_FARS]
    at_most = [float(tars[fars <= far].max()) for far in IJB_FARS]
    return {"nearest": nearest, "at_most": at_most, "auc": [roc_auc_score(labels, scores)]}


def further(folder: Path, features: np.ndarray) -> None:
    """What the plain version has no counterpart of."""
    parts = Parts()
    protocol = IjbProtocol.read(folder)
    result = parts.run("evaluate_ijb, no intervals", evaluate_ijb, features, protocol, num_resamples=0)
    with parts.measured("200 bootstrap draws"):
        bootstrap = TemplateBootstrap(
            protocol.pair_first, protocol.pair_second, protocol.is_same, protocol.num_templates, 200, seed=0
        )
        draws = bootstrap.tar_at_most(result.scores, IJB_FARS)
    files = parts.run("read 1:N files", IjbIdentification.read, protocol)
    rates = parts.run("1:N evaluation", evaluate_identification, features, protocol, files)
    for name, seconds in parts.seconds.items():
        print(f"{name:28s} {seconds:8.2f} s {parts.megabytes[name]:8.0f} MB")
    for far, values in zip(IJB_FARS, draws.T, strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        print(f"TAR at FAR {far:g} (at_most): {result.roc.tar_at_far(far, 'at_most'):.5f} [{low:.5f}, {high:.5f}]")
    print("1:N:", {name: {key: round(value, 5) for key, value in part.items()} for name, part in rates.items()})


def _status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def _table(mine: Parts, other: Parts) -> None:
    print(f"{'part':8s} {'this package':>22s} {'loops':>22s} {'ratio':>8s}")
    for name, seconds in mine.seconds.items():
        row = (
            f"{seconds:8.2f} s {mine.megabytes[name]:8.0f} MB",
            f"{other.seconds[name]:8.2f} s {other.megabytes[name]:8.0f} MB",
        )
        print(f"{name:8s} {row[0]:>22s} {row[1]:>22s} {other.seconds[name] / seconds:7.1f}x")
    total, loops = sum(mine.seconds.values()), sum(other.seconds.values())
    print(f"{'whole':8s} {total:19.2f} s   {loops:19.2f} s   {loops / total:7.1f}x")


def _compare(folder: Path, size: ProtocolSize) -> None:
    features = np.load(folder / "features.npy", mmap_mode="r")
    print(f"{size.images} images, {size.templates} templates, {size.pairs} pairs, {size.genuine} of them genuine")
    mine, other = Parts(), Parts()
    found, expected = ours(folder, features, mine), plain(folder, features, other)
    _table(mine, other)
    for rule in ("nearest", "at_most"):
        difference = np.abs(np.subtract(found[rule], expected[rule])).max()
        print(f"TAR {rule:8s} {[round(tar, 6) for tar in found[rule]]}  largest difference {difference}")
    print(f"AUC {found['auc'][0]:.12f}  difference {abs(found['auc'][0] - expected['auc'][0]):.1e}")
    if any(found[rule] != expected[rule] for rule in ("nearest", "at_most")):
        raise SystemExit("the TARs differ")
    further(folder, features)


def main() -> None:
    """Writes the protocol where there is none, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the templates")
    parser.add_argument("--folder", type=Path, help="where to write the files and keep them; temporary otherwise")
    arguments = parser.parse_args()
    size = ProtocolSize() if arguments.scale == 1 else ProtocolSize().scaled(arguments.scale)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "features.npy").exists():
            write_protocol(folder, size)
        _compare(folder, size)


if __name__ == "__main__":
    main()
