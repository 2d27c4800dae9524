"""The plots of a comparison: what is on them, many methods, and data that is refused."""

import sys

import numpy as np
import pytest
from PIL import Image

from headshare_hf.evaluation import (
    Calibration,
    plot_comparison,
    plot_reliability,
    plot_similarities,
    summarize,
)


VALUES = {"plain": {1: 0.70, 2: 0.72}, "kd": {1: 0.75, 2: 0.76, 3: 0.74}, "late": {1: 0.8}}
CALIBRATION = Calibration(0.03, (0, 0.5, 1), (1, 3), (0.4, 0.9), (0.3, 0.9))
EMPTY_BIN = Calibration(0.1, (0, 0.5, 1), (0, 4), (None, 0.9), (None, 0.8))
SIMILARITIES = {
    "kd": {"cka": 0.5, "head_similarity": -0.25},
    "simkd": {"cka": 0.75, "head_similarity": None, "more": 12.0},
}


def check_image(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 250
        assert np.asarray(image.convert("L")).std() > 5


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_comparison_has_a_row_a_method(tmp_path, drawn):
    summaries = summarize(VALUES)
    path = plot_comparison(summaries, tmp_path / "deep" / "comparison.png", "kd", "Three methods")
    assert path == tmp_path / "deep" / "comparison.png"
    check_image(path)
    (axes,) = drawn[0].axes
    assert names(axes) == ["plain", "kd", "late"] and axes.yaxis_inverted()
    baseline, *intervals = axes.lines
    assert list(baseline.get_xdata()) == pytest.approx([75, 75])
    expected = [
        [[100 * summaries[name].low, 100 * summaries[name].high], [row, row]]
        for row, name in enumerate(("plain", "kd"))
    ]
    np.testing.assert_allclose([line.get_data() for line in intervals], expected)
    dots, ticks = axes.collections[::2], axes.collections[1::2]
    np.testing.assert_allclose(np.concatenate([dot.get_offsets() for dot in dots]), [(71, 0), (75, 1), (80, 2)])
    places = [[x for x, _ in tick.get_offsets()] for tick in ticks]
    assert places == [pytest.approx([70, 72]), pytest.approx([75, 76, 74]), pytest.approx([80])]
    assert texts(axes)[:3] == ["71.00", "75.00", "80.00"]
    note = "1 to 3 seeds (ticks), mean (dot), 95 % t interval (line)\ndashed: mean of kd"
    assert texts(axes)[3] == note
    assert axes.get_title(loc="left") == "Three methods"


def test_intervals_of_two_levels_and_one_seed_are_told(tmp_path, drawn):
    one = {"kd": {1: 0.5}}
    plot_comparison({**summarize(one), "th_kd": summarize(one, 0.9)["kd"]}, tmp_path / "plot.png", "kd", "")
    assert texts(drawn[0].axes[0])[-1].startswith("1 seed (ticks), mean (dot), 90 or 95 % t interval")


def test_reliability_has_a_panel_a_method_and_a_dot_a_bin(tmp_path, drawn):
    found = {"kd": CALIBRATION, "th_kd": EMPTY_BIN}
    check_image(plot_reliability(found, tmp_path / "reliability.png"))
    first, second = drawn[0].axes
    np.testing.assert_allclose(first.collections[0].get_offsets(), [(40, 30), (90, 90)])
    np.testing.assert_allclose(second.collections[0].get_offsets(), [(90, 80)])
    small, large = first.collections[0].get_sizes()
    assert large > 2 * small
    assert texts(first) == ["ECE 3.00"] and texts(second) == ["ECE 10.00"]
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["kd", "th_kd"]
    plot_reliability(found, tmp_path / "reliability.png", "bins of all seeds together")
    titles = [figure.get_suptitle() for figure in drawn]
    assert titles == ["Calibration", "Calibration: bins of all seeds together"]


def test_calibrations_may_come_from_json(tmp_path):
    fields = {
        name: list(value) if isinstance(value, tuple) else value for name, value in CALIBRATION._asdict().items()
    }
    check_image(plot_reliability({"kd": Calibration(**fields)}, tmp_path / "reliability.png"))


def test_similarities_have_a_panel_a_measure(tmp_path, drawn):
    check_image(plot_similarities(SIMILARITIES, tmp_path / "similarities.png"))
    panels = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in panels] == ["cka", "head similarity", "more"]
    widths = [[bar.get_width() for bar in axes.patches] for axes in panels]
    assert widths == [[0.5, 0.75], [-0.25, 0], [0, 12]]
    assert [texts(axes) for axes in panels] == [["0.50", "0.75"], ["-0.25", "-"], ["-", "12.00"]]
    assert names(panels[0]) == ["kd", "simkd"] and panels[0].yaxis_inverted()


def test_fifteen_methods_fit(tmp_path, drawn):
    many = {
        f"a method number {index}": {seed: 0.5 + 0.01 * index + 0.003 * seed for seed in (1, 2, 3)}
        for index in range(15)
    }
    plot_comparison(summarize(many), tmp_path / "a.png", "a method number 0", "Fifteen methods")
    plot_reliability(dict.fromkeys(many, CALIBRATION), tmp_path / "b.png")
    plot_similarities({name: {f"measure {index}": 0.3 for index in range(6)} for name in many}, tmp_path / "c.png")
    for figure in drawn:
        box, size = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= size[0] and box.y1 <= size[1]


@pytest.mark.parametrize(
    "plot, data, message",
    [
        (lambda data, path: plot_comparison(data, path, "kd", ""), {}, "`summaries` is empty"),
        (
            lambda data, path: plot_comparison(data, path, "crd", ""),
            summarize(VALUES),
            "'crd' is not among the methods",
        ),
        (
            lambda data, path: plot_comparison(data, path, "kd", ""),
            summarize({"kd": {1: 70.0}}),
            r"summaries\['kd'\] has 70.0; accuracies are fractions",
        ),
        (plot_reliability, {}, "`calibrations` is empty"),
        (plot_similarities, {}, "`values` is empty"),
        (plot_similarities, {"kd": {}}, "`measures` is empty"),
        (plot_similarities, {"kd": {"cka": float("nan")}}, "cka of 'kd' is nan"),
    ],
)
def test_wrong_data_is_refused(plot, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plot(data, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_pyplot_is_not_touched(tmp_path, monkeypatch):
    # An import of it fails from here on.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot_comparison(summarize(VALUES), tmp_path / "a.png", "kd", "")
    plot_reliability({"kd": CALIBRATION}, tmp_path / "b.png")
    plot_similarities(SIMILARITIES, tmp_path / "c.png")
    assert len(list(tmp_path.iterdir())) == 3
