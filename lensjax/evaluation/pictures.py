"""Pictures of the report: the worst images with their fits, histograms, profiles."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lensjax.run.figures import pixels_of

_COLOURS = {"real": "0.35", "generated": "tab:red"}
_RESIDUAL_SHARE = 0.05  # of the image's peak; the end of the colour scale of residuals


class Curves(NamedTuple):
    """One quantity of every image as a function of another.

    Attributes:
      title: heading above the panel.
      x: `[K]`.
      x_label: name and unit of `x`.
      real: `[N, K]`.
      generated: `[M, K]`.
    """

    title: str
    x: np.ndarray
    x_label: str
    real: np.ndarray
    generated: np.ndarray


def worst_fits(images: np.ndarray, fits: np.ndarray, ratios: np.ndarray, count: int) -> np.ndarray:
    """Draws the images that are least like their fits: image, fit and residual.

    Args:
      images: flux `[N, H, W]`.
      fits: flux `[N, H, W]`.
      ratios: RMS(image - fit) / RMS(image), `[N]`.
      count: number of images that are drawn, at most.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    worst = np.argsort(-ratios)[:count]
    figure = Figure(figsize=(1.25 * len(worst) + 0.9, 3.9), dpi=100)
    axes = figure.subplots(
        3, len(worst), squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04}
    )
    figure.subplots_adjust(left=0.9 / (1.25 * len(worst) + 0.9), right=0.99, top=0.93, bottom=0.01)
    for column, place in enumerate(worst):
        peak = max(float(fits[place].max()), float(images[place].max()))
        norm = PowerNorm(0.5, vmin=0.0, vmax=peak, clip=True)
        limit = _RESIDUAL_SHARE * peak
        for axis, picture in zip(axes[:2, column], (images[place], fits[place]), strict=True):
            axis.imshow(picture, norm=norm, cmap="inferno", origin="lower")
        left = images[place] - fits[place]
        axes[2, column].imshow(left, vmin=-limit, vmax=limit, cmap="RdBu_r", origin="lower")
        axes[0, column].set_title(f"{ratios[place]:.3f}", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    labels = ("image", "fit", f"residual\n+-{_RESIDUAL_SHARE:.0%} of peak")
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    return pixels_of(figure)


def _bins(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """The edges of bins; more bins for more values."""
    values = values.astype(np.float64)
    values = values[values > 0] if logarithmic else values
    low, high = (values.min(), values.max()) if len(values) else (0.1, 1.0)
    if high <= low:
        low, high = (low / 2, 2 * high) if logarithmic else (low - 0.5, high + 0.5)
    num_edges = int(np.clip(len(values) / 12, 10, 40)) + 1
    return np.geomspace(low, high, num_edges) if logarithmic else np.linspace(low, high, num_edges)


def histograms(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], logarithmic: Sequence[str] = ()
) -> np.ndarray:
    """Draws the distribution of each quantity in real and generated images.

    Args:
      panels: real values `[N]` and generated values `[M]` by title.
      logarithmic: titles of panels with a logarithmic axis.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, (real, generated)) in zip(axes.flat, panels.items(), strict=False):
        bins = _bins(np.concatenate([real, generated]), title in logarithmic)
        if title in logarithmic:
            axis.set_xscale("log")
        for name, values in (("real", real), ("generated", generated)):
            weights = np.full(len(values), 1 / len(values))
            style = {"histtype": "step", "color": _COLOURS[name], "label": name}
            axis.hist(values, bins, weights=weights, **style)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
    axes.flat[0].legend(fontsize=7)
    return pixels_of(figure)


def curves(panels: Sequence[Curves]) -> np.ndarray:
    """Draws median and 16 to 84 % of each curve, real and generated.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 3.1), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for name, values in (("real", panel.real), ("generated", panel.generated)):
            low, middle, high = np.percentile(values, (16, 50, 84), axis=0)
            axis.fill_between(panel.x, low, high, color=_COLOURS[name], alpha=0.2, linewidth=0)
            axis.plot(panel.x, middle, color=_COLOURS[name], label=name, linewidth=1.2)
        axis.set(yscale="log", xlabel=panel.x_label)
        axis.set_title(panel.title, fontsize=9)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return pixels_of(figure)
