"""The two sides of the benchmark of IJB-C, each in the same four parts."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.metrics
import sklearn.preprocessing
from insightface_functions import take

from headshare_hf.data import IjbProtocol
from headshare_hf.evaluation import IJB_FARS, Roc, pool_templates, score_pairs


PARTS = ("reading", "pooling", "pair scores", "TAR at FAR")
GROUPS = {**{part: (part,) for part in PARTS}, "pooling to TAR": PARTS[1:], "all with reading": PARTS}


class Times:
    """Seconds of the parts of one run."""

    def __init__(self) -> None:
        self._seconds: dict[str, tuple[float, float]] = {}

    def run(self, part: str, function: Callable[[], Any]) -> Any:
        """The result of a function, measured."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        self._seconds[part] = time.perf_counter() - wall, time.process_time() - cpu
        return result

    def wall(self, parts: Sequence[str]) -> float:
        """Of some parts together."""
        return sum(self._seconds[part][0] for part in parts)

    def cpu(self, parts: Sequence[str]) -> float:
        """Likewise, of the processor."""
        return sum(self._seconds[part][1] for part in parts)


class Side:
    """
    One way to evaluate stored features of the images and their mirror images; keeps what it found.

    Args:
        folder (`Path`): Has the protocol, and `features.npy`.
    """

    name: str
    templates: np.ndarray
    scores: np.ndarray
    tars: dict[str, list[float]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.features = np.load(folder / "features.npy", mmap_mode="r")

    def run(self) -> Times:
        """All parts."""
        times = Times()
        files = times.run(PARTS[0], self.read)
        self.templates, rows = times.run(PARTS[1], lambda: self.pool(files))
        self.scores = times.run(PARTS[2], lambda: self.score(files, rows))
        self.tars = times.run(PARTS[3], lambda: self.roc(files))
        return times

    def size(self) -> str:
        """In words."""
        return f"{len(self.features):,} images, {len(self.templates):,} templates, {len(self.scores):,} pairs"

    def read(self) -> Any:
        """The tables."""
        raise NotImplementedError

    def pool(self, files: Any) -> tuple[np.ndarray, np.ndarray]:
        """Features of templates, and their numbers."""
        raise NotImplementedError

    def score(self, files: Any, ids: np.ndarray) -> np.ndarray:
        """Of all pairs."""
        raise NotImplementedError

    def roc(self, files: Any) -> dict[str, list[float]]:
        """TAR at [`IJB_FARS`] by both rules, and the area."""
        raise NotImplementedError


class Package(Side):
    """This package."""

    name = "this package"

    def read(self) -> IjbProtocol:
        return IjbProtocol.read(self.folder)

    def pool(self, files: IjbProtocol) -> tuple[np.ndarray, np.ndarray]:
        return pool_templates(self.features, files, progress=False), files.template_ids

    def score(self, files: IjbProtocol, ids: np.ndarray) -> np.ndarray:
        return score_pairs(self.templates, files.pair_first, files.pair_second, progress=False)

    def roc(self, files: IjbProtocol) -> dict[str, list[float]]:
        roc = Roc.from_scores(self.scores, files.is_same)
        tars = {
            name: [roc.tar_at_far(far, rule) for far in IJB_FARS]
            for name, rule in (("nearest", "nearest"), ("at most", "at_most"))
        }
        return {**tars, "auc": [roc.auc]}


class Loops(Side):
    """Evaluation as it is usually written."""

    name = "loops and scikit-learn"

    def read(self) -> tuple[pd.DataFrame, np.ndarray]:
        meta = self.folder / "meta"
        images = pd.read_csv(meta / "ijbc_face_tid_mid.txt", sep=" ", header=None)
        images["score"] = pd.read_csv(meta / "ijbc_name_5pts_score.txt", sep=" ", header=None)[11]
        return images, pd.read_csv(meta / "ijbc_template_pair_label.txt", sep=" ", header=None).to_numpy()

    def weighted(self, images: pd.DataFrame) -> np.ndarray:
        """Image and mirror image added, times the detector's score."""
        half = self.features.shape[1] // 2
        values = self.features[:, :half] + self.features[:, half:]
        return values * images["score"].to_numpy(np.float32)[:, None]

    def pool(self, files: tuple[pd.DataFrame, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        images = files[0]
        values, templates, media = self.weighted(images), images[1].to_numpy(), images[2].to_numpy()
        ids = np.unique(templates)
        pooled = np.zeros((len(ids), values.shape[1]))
        for row, template in enumerate(ids):
            inside = np.flatnonzero(templates == template)
            for medium in np.unique(media[inside]):
                pooled[row] += values[inside[media[inside] == medium]].mean(axis=0)
        return sklearn.preprocessing.normalize(pooled), ids

    def score(self, files: tuple[pd.DataFrame, np.ndarray], ids: np.ndarray, block: int = 100_000) -> np.ndarray:
        pairs, row = files[1], np.zeros(ids.max() + 1, dtype=np.int64)
        row[ids] = np.arange(len(ids))
        scores = np.zeros(len(pairs))
        for start in range(0, len(pairs), block):
            first, second = row[pairs[start : start + block, :2]].T
            scores[start : start + block] = np.sum(self.templates[first] * self.templates[second], axis=1)
        return scores

    def roc(self, files: tuple[pd.DataFrame, np.ndarray]) -> dict[str, list[float]]:
        fars, tars, _ = sklearn.metrics.roc_curve(files[1][:, 2], self.scores)
        area = float(sklearn.metrics.auc(fars, tars))
        # From the end, so that of points at the same distance that of larger FAR, and of larger TAR, is first.
        fars, tars = fars[::-1], tars[::-1]
        nearest = [float(tars[np.argmin(np.abs(fars - far))]) for far in IJB_FARS]
        at_most = [float(tars[fars <= far].max()) for far in IJB_FARS]
        return {"nearest": nearest, "at most": at_most, "auc": [area]}


class Insightface(Loops):
    """Insightface's own pooling and scores; its table of the ROC is no function, and is as in [`Loops`]."""

    name = "insightface"

    def __init__(self, folder: Path, checkout: Path) -> None:
        super().__init__(folder)
        names = ["image2template_feature", "verification"]
        self._pool, self._score = take(checkout, "eval_ijbc.py", names, {"np": np, "sklearn": sklearn})

    def pool(self, files: tuple[pd.DataFrame, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        images = files[0]
        return self._pool(self.weighted(images), images[1].to_numpy(), images[2].to_numpy())

    def score(self, files: tuple[pd.DataFrame, np.ndarray], ids: np.ndarray) -> np.ndarray:
        return self._score(self.templates, ids, *files[1][:, :2].T)
