"""Plots of verification: that they are drawn, for tiny sets too, and that what is on them is right."""

from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

from headshare_hf.evaluation import Roc, plot_det, plot_roc, plot_similarity_histogram


@pytest.fixture
def pairs():
    same = np.arange(600) % 2 == 0
    return np.clip(np.random.default_rng(0).normal(0.05, 0.12, 600) + 0.4 * same, -1, 1), same


def check_image(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 400
        assert np.asarray(image.convert("L")).std() > 5


def test_roc_is_the_curve(tmp_path, drawn, pairs):
    roc = Roc.from_scores(*pairs)
    path = plot_roc({"a": roc, "b": roc}, tmp_path / "deep" / "roc.png")
    check_image(path)
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == "log" and axes.get_xlim() == pytest.approx((0.5 / 300, 1))
    assert axes.get_title(loc="right") == "300 genuine, 300 impostor pairs"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"{n} (AUC {roc.auc:.4f})" for n in "ab"]
    far, tar = axes.lines[0].get_data()
    assert axes.lines[0].get_drawstyle() == "steps-post"
    for target in (0.5 / 300, 0.01, 0.1, 0.9):
        drawn_tar = tar[np.searchsorted(far, target, side="right") - 1]
        assert drawn_tar == pytest.approx(100 * roc.tar_at_far(target, "at_most"))


def test_det_has_axes_of_normal_deviates(tmp_path, drawn, pairs):
    roc = Roc.from_scores(*pairs)
    check_image(plot_det({"a": roc}, tmp_path / "det.png"))
    (axes,) = drawn[0].axes
    x, y = axes.lines[0].get_data()
    far, tar, _ = roc.points()
    inside = (far > 0) & (far < 1) & (tar > 0) & (tar < 1)
    normal = NormalDist()
    assert [normal.cdf(value) for value in x[inside]] == pytest.approx(far[inside])
    assert [normal.cdf(value) for value in y[inside]] == pytest.approx(1 - tar[inside])
    assert np.isfinite(x).all() and np.isfinite(y).all()
    ticks = dict(zip(axes.get_xticks(), (label.get_text() for label in axes.get_xticklabels()), strict=True))
    assert ticks[normal.inv_cdf(0.01)] == "1" and ticks[normal.inv_cdf(0.5)] == "50"
    assert axes.get_legend().get_texts()[0].get_text() == f"a (EER {100 * roc.eer:.2f} %)"


def test_histogram_counts_each_kind_as_a_whole(tmp_path, drawn, pairs):
    scores, same = pairs
    check_image(plot_similarity_histogram(scores, same, tmp_path / "histogram.png", threshold=0.25))
    (axes,) = drawn[0].axes
    heights = [sum(bar.get_height() for bar in container) for container in axes.containers]
    assert heights == pytest.approx([100, 100])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == ["one person (300)", "threshold 0.250", "two people (300)"]
    assert axes.lines[0].get_xdata()[0] == 0.25


@pytest.mark.parametrize("scores", [[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
def test_one_pair_of_each_kind(scores, tmp_path):
    roc = Roc.from_scores(np.array(scores), np.array([True, False]))
    check_image(plot_roc({"tiny": roc}, tmp_path / "roc.png"))
    check_image(plot_det({"tiny": roc}, tmp_path / "det.png"))
    check_image(plot_similarity_histogram(scores, [True, False], tmp_path / "histogram.png"))
    check_image(plot_similarity_histogram(scores[:1], [False], tmp_path / "one.png"))


def test_sets_of_different_size(tmp_path, drawn, pairs):
    curves = {"all": Roc.from_scores(*pairs), "part": Roc.from_scores(pairs[0][:20], pairs[1][:20])}
    for plot in (plot_roc, plot_det):
        check_image(plot(curves, tmp_path / "plot.png"))
    assert [figure.axes[0].get_title(loc="right") for figure in drawn] == ["sets of different size"] * 2
    assert drawn[0].axes[0].get_xlim()[0] == pytest.approx(0.5 / 300)


def test_nothing_to_draw(tmp_path):
    for plot in (plot_roc, plot_det):
        with pytest.raises(ValueError, match="`curves` is empty; there is nothing to draw"):
            plot({}, tmp_path / "plot.png")
    for scores, same in (([], []), ([0.1], [True, False]), ([np.nan], [True])):
        with pytest.raises(ValueError, match="must be one finite number and one bool for each pair"):
            plot_similarity_histogram(scores, same, tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())
