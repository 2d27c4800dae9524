"""The plots: files that are images, numbers that are on them, and data that is refused."""

import sys

import numpy as np
import pytest
from PIL import Image

from headshare_hf.evaluation import plot_accuracy_bars, plot_head_similarity, plot_training_curves


CURVES = {"kd": [(1, 0.2), (2, 0.4), (3, 0.45)], "th_kd": [(1, 0.25), (2, 0.42), (3, 0.5)]}
HISTORY = [
    {
        "epoch": epoch,
        "cosine_mean": 0.3 * epoch,
        "cosine_min": 0.1 * epoch,
        "cosine_std": 0.05,
        "bias_distance": 2 / epoch,
    }
    for epoch in (1.0, 2.0, 3.0)
]


def check_image(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 400
        assert np.asarray(image.convert("L")).std() > 5


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_bars_show_mean_and_standard_error_in_per_cent(tmp_path, drawn):
    values = [0.70, 0.72, 0.77]
    path = plot_accuracy_bars({"kd": values, "sh_kd": [0.75, 0.75, 0.78]}, tmp_path / "deep" / "bars.png")
    assert path == tmp_path / "deep" / "bars.png"
    check_image(path)
    (axes,) = drawn[0].axes
    error = np.std(values, ddof=1) / np.sqrt(3)
    assert texts(axes) == [f"{73:.2f} ± {100 * error:.2f}", "76.00 ± 1.00"]
    assert axes.get_title(loc="right") == "3 seeds, mean ± standard error"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["kd", "sh_kd"]
    tops = [bar.get_y() + bar.get_height() for bar in axes.patches]
    assert tops == pytest.approx([73, 76])


def test_bars_of_one_seed_have_no_error(tmp_path, drawn):
    check_image(plot_accuracy_bars({"plain": [0.5], "a method with a long name": [0.9]}, str(tmp_path / "bars.png")))
    (axes,) = drawn[0].axes
    assert texts(axes) == ["50.00", "90.00"] and not axes.containers[1:]
    assert axes.get_title(loc="right") == "1 seed"


def test_different_numbers_of_seeds_are_told(tmp_path, drawn):
    plot_accuracy_bars({"plain": [0.5], "kd": [0.4, 0.6]}, tmp_path / "bars.png")
    assert drawn[0].axes[0].get_title(loc="right") == "1 to 2 seeds, mean ± standard error"


@pytest.mark.parametrize(
    "values, floor", [([0.98, 0.985], 95), ([0.1, 0.9], 0), ([0.0, 0.0], 0), ([1.0, 1.0], 95), ([0.72, 0.75], 65)]
)
def test_every_bar_can_be_seen_and_a_cut_axis_says_so(values, floor, tmp_path, drawn):
    plot_accuracy_bars({str(index): [value] for index, value in enumerate(values)}, tmp_path / "bars.png")
    (axes,) = drawn[0].axes
    assert axes.get_ylim()[0] == floor
    assert (f"starts at {floor}" in axes.get_ylabel()) == (floor > 0)
    assert axes.get_ylim()[1] > 100 * max(values)


def test_curves_have_a_line_and_the_last_value_a_run(tmp_path, drawn):
    check_image(plot_training_curves({**CURVES, "late": [(5, 0.3), (4, 0.1)]}, tmp_path / "curves.png"))
    (axes,) = drawn[0].axes
    assert [line.get_label() for line in axes.lines] == ["kd (45.00)", "th_kd (50.00)", "late (30.00)"]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(1, 20), (2, 40), (3, 45)])
    np.testing.assert_allclose(axes.lines[2].get_xdata(), [4, 5])


def test_many_curves_can_be_told_apart(tmp_path, drawn):
    plot_training_curves({f"run {i}": [(1, 0.1), (2, 0.2)] for i in range(12)}, tmp_path / "curves.png")
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}
    assert len(styles) == 12


def test_heads_have_two_panels(tmp_path, drawn):
    check_image(plot_head_similarity(HISTORY[::-1], tmp_path / "heads.png"))
    upper, lower = drawn[0].axes
    np.testing.assert_allclose(upper.lines[0].get_xydata(), [(1, 0.3), (2, 0.6), (3, 0.9)])
    np.testing.assert_allclose(upper.lines[1].get_ydata(), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(lower.lines[0].get_ydata(), [2, 1, 2 / 3])


def test_heads_without_bias_have_one_panel(tmp_path, drawn):
    keys = ("epoch", "cosine_mean", "cosine_min")
    check_image(plot_head_similarity([{key: entry[key] for key in keys} for entry in HISTORY], tmp_path / "heads.png"))
    assert len(drawn[0].axes) == 1


@pytest.mark.parametrize(
    "plot, data, message",
    [
        (plot_accuracy_bars, {}, "`results` is empty"),
        (plot_accuracy_bars, {"kd": []}, r"results\['kd'\] has no values"),
        (plot_accuracy_bars, {"kd": [73.2]}, r"results\['kd'\] has 73.2; accuracies are fractions"),
        (plot_accuracy_bars, {"kd": [float("nan")]}, r"results\['kd'\] has nan"),
        (plot_training_curves, {}, "`curves` is empty"),
        (plot_training_curves, {"kd": []}, r"curves\['kd'\] has no values"),
        (plot_training_curves, {"kd": [(1, 45.0)]}, r"curves\['kd'\] has 45.0"),
        (plot_head_similarity, [], "`history` is empty"),
        (plot_head_similarity, [{"epoch": 1, "cosine_mean": 0.1}], r"history\[0\] has no 'cosine_min'"),
        (plot_head_similarity, [HISTORY[0], {**CURVES}], r"history\[1\] has no 'epoch'"),
        (
            plot_head_similarity,
            [HISTORY[0], {"epoch": 2, "cosine_mean": 0.1, "cosine_min": 0.1}],
            r"history\[1\] has no 'bias_distance'",
        ),
    ],
)
def test_wrong_data_is_refused(plot, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plot(data, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_pyplot_is_not_touched(tmp_path, monkeypatch):
    # An import of it fails from here on.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot_accuracy_bars({"kd": [0.5, 0.6]}, tmp_path / "bars.png")
    plot_training_curves(CURVES, tmp_path / "curves.png")
    plot_head_similarity(HISTORY, tmp_path / "heads.png")
    assert len(list(tmp_path.iterdir())) == 3
