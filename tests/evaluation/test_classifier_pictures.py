"""Pictures of a classifier's scores: what is drawn, and that it can be read."""

import itertools

import numpy as np
import pytest

from lensjax.evaluation import classifier_pictures
from lensjax.evaluation.classifier_pictures import (
    confusion_picture,
    reliability_picture,
    roc_picture,
)
from lensjax.metrics.classification import Reliability, reliability, roc_curves
from lensjax.run import figures

SHORT = ("axion", "cdm", "no_sub")
LONG = (
    "$a$",
    "_warm_dark_matter_3_keV",
    "$\\frac$",
    "W" * 30,
    "cold_dark_matter_with_truncated_NFW_subhaloes",
    "x",
    "no_sub",
    "a_b^c%d",
)
NAMES = pytest.mark.parametrize("names", [SHORT[:2], SHORT, LONG], ids=["two", "three", "eight"])


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, laid out as in the picture."""
    found: list = []

    def look(figure):
        found.append(figure)
        return figures.pixels_of(figure)

    monkeypatch.setattr(classifier_pictures, "pixels_of", look)
    return found


def drawn_classes(num_classes: int, strength: float, count: int = 300):
    random = np.random.default_rng(num_classes)
    labels = random.integers(num_classes, size=count)
    powers = np.exp(
        random.normal(size=(count, num_classes)) + strength * np.eye(num_classes)[labels]
    )
    return labels, powers / powers.sum(axis=1, keepdims=True)


def curves_of(names, strength: float = 2.0):
    return dict(zip(names, roc_curves(*drawn_classes(len(names), strength)), strict=True))


def check_picture(picture: np.ndarray) -> None:
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.flags.c_contiguous
    assert max(picture.shape) < 2500


def boxes(figure, texts):
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer) for text in texts if text.get_text()]


def check_inside(figure, texts) -> None:
    """Texts that leave the figure are cut off."""
    width, height = figure.canvas.get_width_height()
    for box in boxes(figure, texts):
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def check_apart(figure, texts) -> None:
    for one, other in itertools.combinations(boxes(figure, texts), 2):
        assert not one.shrunk(0.98, 0.9).overlaps(other.shrunk(0.98, 0.9))


def legend_of(figure) -> tuple[str, list[str]]:
    (legend,) = figure.legends
    texts = [*legend.get_texts(), legend.get_title()]
    assert not any(text.get_parse_math() for text in texts)
    check_inside(figure, texts)
    check_apart(figure, texts)
    return legend.get_title().get_text(), [text.get_text() for text in legend.get_texts()]


@NAMES
def test_curves_and_areas_of_every_class_are_there(drawn, names):
    curves = curves_of(names)
    check_picture(roc_picture(curves))
    (figure,) = drawn
    title, labels = legend_of(figure)
    assert title == "area under the curve"
    for label, (name, curve) in zip(labels, curves.items(), strict=True):
        assert label.startswith(name[:17])
        assert label.endswith(f"  {curve.auc:.4f}")
    assert [axis.get_xscale() for axis in figure.axes] == ["linear", "log"]
    for axis in figure.axes:
        lines = [line for line in axis.get_lines() if line.get_linestyle() == "-"]
        assert len({line.get_color() for line in lines}) == len(names)
        for line, curve in zip(lines, curves.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), curve.false_positive_rate)
            np.testing.assert_array_equal(line.get_ydata(), curve.true_positive_rate)
        assert not axis.get_window_extent().overlaps(figure.legends[0].get_window_extent())


@NAMES
def test_a_baseline_is_dashed_in_the_same_colours_with_its_areas(drawn, names):
    curves, weaker = curves_of(names), curves_of(names, 0.5)
    check_picture(roc_picture(curves, ("the ring's radius $alone$", weaker)))
    title, labels = legend_of(drawn[0])
    assert title == "area under the curve\n(dashed: the ring's radius $alone$)"
    for label, name in zip(labels, names, strict=True):
        assert label.endswith(f"  {curves[name].auc:.4f} ({weaker[name].auc:.4f})")
    for axis in drawn[0].axes:
        solid, dashed = (
            [line for line in axis.get_lines() if line.get_linestyle() == style]
            for style in ("-", "--")
        )
        assert [one.get_color() for one in solid] == [one.get_color() for one in dashed]
        for line, name in zip(dashed, names, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), weaker[name].true_positive_rate)


def test_a_class_without_images_or_without_a_baseline_is_named(drawn):
    labels, values = drawn_classes(3, 2.0)
    kept = labels != 1
    curves = dict(zip(SHORT, roc_curves(labels[kept], values[kept]), strict=True))
    roc_picture(curves, ("b", {"axion": curves["axion"]}))
    area = f"{curves['axion'].auc:.4f}"
    _, found = legend_of(drawn[0])
    assert found == [
        f"axion  {area} ({area})",
        "cdm  none (none)",
        f"no_sub  {curves['no_sub'].auc:.4f} (none)",
    ]


def test_perfect_curves_can_be_drawn():
    labels = np.arange(30) % 3
    check_picture(roc_picture(dict(zip(SHORT, roc_curves(labels, np.eye(3)[labels]), strict=True))))


def test_many_classes_have_colours_of_their_own(drawn):
    names = [f"class {index}" for index in range(14)]
    check_picture(roc_picture(curves_of(names)))
    legend_of(drawn[0])
    lines = drawn[0].axes[0].get_lines()[:-1]
    assert len({line.get_color() for line in lines}) == 14


@NAMES
def test_cells_hold_counts_and_shares_of_rows(drawn, names):
    size = len(names)
    confusion = np.random.default_rng(0).integers(2000, size=(size, size))
    confusion[0] = 0
    confusion[0, 0] = 1_234_567
    confusion[-1] = 0
    check_picture(confusion_picture(confusion, names))
    (axis,) = drawn[0].axes
    for text, (row, column) in zip(axis.texts, np.ndindex(size, size), strict=True):
        assert text.get_position() == (column, row)
        total = confusion[row].sum()
        share = f"{confusion[row, column] / total:.1%}" if total else "-"
        assert text.get_text() == f"{confusion[row, column]:,}\n{share}"
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(axis.images[0].get_array(), shares)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("taken for", "true class")
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first class lies at the top


@NAMES
def test_names_of_rows_and_columns_can_be_read(drawn, names):
    confusion_picture(100 * np.eye(len(names), dtype=int), names)
    (figure,) = drawn
    (axis,) = figure.axes
    rows, columns = axis.get_yticklabels(), axis.get_xticklabels()
    for texts in (rows, columns):
        assert not any(text.get_parse_math() for text in texts)
        for text, name in zip(texts, names, strict=True):
            assert text.get_text() == (name if len(name) <= 36 else f"{name[:17]}…{name[-17:]}")
    around = [axis.xaxis.label, axis.yaxis.label]
    check_inside(figure, [*rows, *columns, *axis.texts, *around])
    check_apart(figure, [*rows, *axis.texts, *around])
    if names != LONG:  # turned names lie beside each other, their boxes do not
        check_apart(figure, [*columns, *rows])


def test_white_margins_are_cut_and_nothing_else():
    picture = np.full((100, 120, 3), 255, np.uint8)
    picture[40:50, 60:75] = 0
    cut = classifier_pictures._without_margins(picture)
    assert cut.shape == (10 + 24, 15 + 24, 3)
    assert (cut == 0).sum() == 10 * 15 * 3
    picture[0, 0] = picture[-1, -1] = 0
    np.testing.assert_array_equal(classifier_pictures._without_margins(picture), picture)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_reliability_shows_bins_and_error(drawn, num_bins):
    labels, values = drawn_classes(3, 2.0)
    found = reliability(labels, values, num_bins)
    check_picture(reliability_picture(found))
    (figure,) = drawn
    upper, lower = figure.axes
    assert upper.get_title() == f"expected calibration error {found.ece:.4f}"
    filled = found.num_images > 0
    points = upper.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(points, np.stack([found.confidence, found.accuracy], 1)[filled])
    bars, edges, _ = lower.patches[0].get_data()
    np.testing.assert_array_equal(bars, found.num_images)
    np.testing.assert_allclose(edges, np.linspace(0, 1, num_bins + 1))
    texts = [upper.yaxis.label, lower.yaxis.label, lower.xaxis.label, upper.title]
    check_inside(figure, texts)
    check_apart(figure, texts)


def test_one_image_and_perfect_bins_can_be_drawn():
    nothing = np.full(14, np.nan)
    one = Reliability(np.append(nothing, 1.0), np.append(nothing, 1.0), np.arange(15) // 14)
    check_picture(reliability_picture(one))
