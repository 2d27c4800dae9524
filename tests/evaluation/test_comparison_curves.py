"""Curves over the epochs: what is on them, many methods, and data that is refused."""

import numpy as np
import pytest
from PIL import Image

from headshare_hf.evaluation import plot_curves_with_bands, plot_losses_with_bands


CURVES = {"kd": [[(1, 0.2), (2, 0.4)], [(2, 0.6), (1, 0.3)]], "th_kd": [[(1, 0.25), (2, 0.5)]]}


def check_image(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 250
        assert np.asarray(image.convert("L")).std() > 5


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_bands_are_the_range_and_lines_the_mean(tmp_path, drawn):
    check_image(plot_curves_with_bands(CURVES, tmp_path / "curves.png"))
    (axes,) = drawn[0].axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(1, 25), (2, 50)])
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [(1, 25), (2, 50)])
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(6).tolist()}
    assert corners == {(1, 20), (1, 30), (2, 40), (2, 60)}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["kd (50.00)", "th_kd (50.00)"]
    assert texts(axes) == ["1 to 2 seeds, mean (line) and range (band); last mean in brackets"]


@pytest.mark.parametrize("last, floor", [(0.7, 59), (0.004, 0)])
def test_the_axis_leaves_out_the_first_steep_epochs_and_says_so(last, floor, tmp_path, drawn):
    plot_curves_with_bands({"kd": [[(1, 0.0), (4, last - 0.1 * (last > 0.1)), (8, last)]]}, tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    assert axes.get_ylim()[0] == floor and axes.get_ylim()[1] > 100 * last
    assert (f"starts at {floor}" in axes.get_ylabel()) == (floor > 0)


def test_losses_have_a_logarithmic_axis_where_they_can(tmp_path, drawn):
    losses = {"kd": [[(1, 20.0), (2, 10.0)], [(1, 40.0), (2, 20.0)]], "vid": [[(1, 3.0), (2, 0.5)]]}
    check_image(plot_losses_with_bands(losses, tmp_path / "losses.png"))
    (axes,) = drawn[0].axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(1, 30), (2, 15)])
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "training loss"
    assert axes.get_title(loc="left") == "Loss during training"
    plot_losses_with_bands({"vid": [[(1, 3.0), (2, -0.5)]]}, tmp_path / "losses.png")
    assert drawn[1].axes[0].get_yscale() == "linear"


def test_fifteen_methods_fit(tmp_path, drawn):
    plot_curves_with_bands({f"a method number {index}": CURVES["kd"] for index in range(15)}, tmp_path / "a.png")
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}
    box, size = drawn[0].get_tightbbox(), drawn[0].get_size_inches()
    assert len(styles) == 15 and box.x0 >= 0 and box.y0 >= 0 and box.x1 <= size[0] and box.y1 <= size[1]


@pytest.mark.parametrize(
    "plot, data, message",
    [
        (plot_curves_with_bands, {}, "`curves` is empty"),
        (plot_curves_with_bands, {"kd": []}, r"`curves\['kd'\]` is empty"),
        (plot_curves_with_bands, {"kd": [[]]}, r"curves\['kd'\]\[0\] has no values"),
        (plot_curves_with_bands, {"kd": [[(1, 0.5)], [(1, 50)]]}, r"curves\['kd'\]\[1\] has 50"),
        (
            plot_curves_with_bands,
            {"kd": [[(1, 0.5)], [(1, 0.5), (2, 0.6)]]},
            r"curves\['kd'\]\[1\] was evaluated after other epochs than curves\['kd'\]\[0\]",
        ),
        (plot_losses_with_bands, {"kd": [[]]}, r"curves\['kd'\]\[0\] has no values"),
        (
            plot_losses_with_bands,
            {"kd": [[(1, float("inf"))]]},
            r"curves\['kd'\]\[0\] has the loss inf; look at that run",
        ),
    ],
)
def test_wrong_data_is_refused(plot, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plot(data, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
