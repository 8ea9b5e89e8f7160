"""Pictures of a classifier's scores: curves, confusion, reliability.

Class names are chosen by users: they are shown as written, and long names are cut in the middle.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.metrics.classification import Reliability, RocCurve
from lensjax.run.figures import pixels_of

_LONGEST_NAME = 36  # letters
_LETTER_INCHES = 0.08
_WIDEST_LETTER_INCHES = 0.15
_LEAST_RATE = 1e-4  # the least start of a logarithmic axis
_FLAT_NAME = 9  # letters of the longest name that fits under a column unturned
_CELL_INCHES = 0.82
_MARGIN_PIXELS = 12


def _short(name: str) -> str:
    half = (_LONGEST_NAME - 1) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _colours(count: int) -> list[Any]:
    import matplotlib

    ten = matplotlib.colormaps["tab10"]
    if count <= ten.N:
        return [ten(index) for index in range(count)]
    return [matplotlib.colormaps["turbo"](share) for share in np.linspace(0.05, 0.95, count)]


def _area(curves: Mapping[str, RocCurve], name: str) -> str:
    curve = curves.get(name)
    return "none" if curve is None or np.isnan(curve.auc) else f"{curve.auc:.4f}"


def _legend(figure: Any, lines: Sequence[Any], labels: Sequence[str], title: str) -> None:
    """Puts a legend beside the panels, with its text as written."""
    # A legend leaves out labels that begin with _, hence numbers first and the text afterwards.
    legend = figure.legend(
        lines,
        [str(index) for index in range(len(lines))],
        title=title,
        loc="outside right center",
        alignment="left",
        fontsize=9,
        title_fontsize=9,
    )
    legend.get_title().set_parse_math(False)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
        text.set_parse_math(False)


def _draw_curves(
    panel: Any, names: Sequence[str], curves: Mapping[str, RocCurve], look: dict[str, Any]
) -> list[Any]:
    """Draws the curves of all classes and returns their lines."""
    lines = []
    for name, colour in zip(names, _colours(len(names)), strict=True):
        x, y = curves[name][:2] if name in curves else ([], [])
        lines += panel.plot(x, y, color=colour, **look)
    return lines


def roc_picture(
    curves: Mapping[str, RocCurve], baseline: tuple[str, Mapping[str, RocCurve]] | None = None
) -> np.ndarray:
    """Draws the curve of each class against all others, over linear and logarithmic rates.

    Args:
      curves: by class name; a curve without points appears only in the legend.
      baseline: the name of another classifier and its curves by the same class names, dashed; its
        areas stand in brackets.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.figure import Figure

    names = list(curves)
    title = "area under the curve"
    labels = [f"{_short(name)}  {_area(curves, name)}" for name in names]
    if baseline is not None:
        title += f"\n(dashed: {_short(baseline[0])})"
        areas = [_area(baseline[1], name) for name in names]
        labels = [f"{label} ({area})" for label, area in zip(labels, areas, strict=True)]
    letters = max(len(text) for text in (*labels, *title.split("\n")))
    size = (8.6 + letters * _LETTER_INCHES, max(4.1, 0.9 + 0.21 * len(names)))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    linear, logarithmic = figure.subplots(1, 2, sharey=True)
    rates = np.concatenate([curve.false_positive_rate for curve in curves.values()])
    least = np.clip(rates[rates > 0].min(initial=0.1), _LEAST_RATE, 0.1)
    chance = np.geomspace(least, 1, 100)
    for panel in (linear, logarithmic):
        if baseline is not None:
            _draw_curves(panel, names, baseline[1], {"linestyle": "--", "linewidth": 1.0})
        lines = _draw_curves(panel, names, curves, {"linewidth": 1.4})
        panel.plot(chance, chance, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        panel.set(xlabel="false positive rate", ylim=(-0.01, 1.01))
        panel.grid(alpha=0.3)
    linear.set(ylabel="true positive rate", xlim=(-0.01, 1.01))
    logarithmic.set(xscale="log", xlim=(least, 1))
    _legend(figure, lines, labels, title)
    return pixels_of(figure)


def _without_margins(picture: np.ndarray) -> np.ndarray:
    """Cuts a white frame to a few pixels: the width of text is only known once it is drawn."""
    drawn = (picture < 255).any(axis=2)
    rows, columns = np.nonzero(drawn)
    top, left = (max(places.min() - _MARGIN_PIXELS, 0) for places in (rows, columns))
    bottom, right = (places.max() + _MARGIN_PIXELS + 1 for places in (rows, columns))
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _write_cells(axis: Any, confusion: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        below = "-" if np.isnan(share) else f"{share:.1%}"
        colour = "white" if share > 0.5 else "black"
        text = f"{confusion[row, column]:,}\n{below}"
        axis.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)


def confusion_picture(confusion: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Draws the numbers of images by true and predicted class, with their shares of the row.

    Args:
      confusion: number of images by true class (rows) and predicted class (columns), `[K, K]`.
      class_names: the K names.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.figure import Figure

    names, count = [_short(name) for name in class_names], len(class_names)
    total = confusion.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, confusion / np.maximum(total, 1), np.nan)
    longest = max(len(name) for name in names)
    room = 0.8 + longest * _WIDEST_LETTER_INCHES
    side = count * _CELL_INCHES
    width, height = side + 2 * room, side + room + 0.5
    figure = Figure(figsize=(width, height), dpi=100)
    axis = figure.add_axes((room / width, room / height, side / width, side / height))
    axis.imshow(np.nan_to_num(shares), vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto")
    _write_cells(axis, confusion, shares)
    turn: dict[str, Any] = (
        {"rotation": 35, "rotation_mode": "anchor", "ha": "right", "va": "top"}
        if longest > _FLAT_NAME
        else {}
    )
    axis.set_xticks(range(count), names, **turn)
    axis.set_yticks(range(count), names)
    for text in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        text.set_parse_math(False)
    axis.xaxis.set_label_position("top")
    axis.set(xlabel="taken for", ylabel="true class")
    axis.tick_params(length=0)
    return _without_margins(pixels_of(figure))


def reliability_picture(reliability: Reliability) -> np.ndarray:
    """Draws accuracy against stated probability, above the number of images of each bin.

    Points lie at the mean probability of their bin, with binomial standard errors; on the dotted
    line the accuracy equals the stated probability.

    Args:
      reliability: the result of `lensjax.metrics.classification.reliability`.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.figure import Figure

    edges = np.linspace(0, 1, len(reliability.num_images) + 1)
    filled = reliability.num_images > 0
    confidence, accuracy, num_images = (values[filled] for values in reliability)
    smooth = (accuracy * num_images + 1) / (num_images + 2)  # a share of 0 or 1 has an error too
    error = np.sqrt(smooth * (1 - smooth) / num_images)
    figure = Figure(figsize=(4.6, 5.4), dpi=100, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="0.4", linewidth=1.0, linestyle=":")
    upper.stairs(np.where(filled, reliability.accuracy, 0), edges, fill=True, alpha=0.2)
    inside = np.minimum(error, [accuracy, 1 - accuracy])
    upper.errorbar(confidence, accuracy, inside, fmt="o", color="C0", markersize=4, capsize=2)
    upper.set(ylabel="share of correct predictions", xlim=(0, 1.02), ylim=(0, 1.03))
    upper.set_title(f"expected calibration error {reliability.ece:.4f}", fontsize=10)
    lower.stairs(reliability.num_images, edges, color="0.4", fill=True)
    lower.set(xlabel="probability of the most probable class", ylabel="images", yscale="log")
    lower.set_ylim(0.5, 3 * num_images.max())
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    return pixels_of(figure)
