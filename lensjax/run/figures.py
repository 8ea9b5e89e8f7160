"""Pictures of lenses, with one brightness scale for everything in a picture."""

import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.files.atomic import write_bytes

# Brightness is the square root of flux: a linear scale would hide faint speckle.
_GAMMA = 0.5
_COLOUR_MAP = "inferno"


def lens_grid(
    generated: Sequence[np.ndarray],
    class_names: Sequence[str],
    real: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Draws each class as a row of real images, where there are any, above generated ones.

    Args:
      generated: for each class, flux `[n, H, W, C]`; the first channel is drawn.
      class_names: the names of the rows.
      real: for each class, the same; their brightest pixel sets the scale.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    kinds = {"real": real, "generated": generated} if real else {"generated": generated}
    rows = [
        (f"{name}\n{kind}", images[index])
        for index, name in enumerate(class_names)
        for kind, images in kinds.items()
    ]
    brightest = max(float(np.nanmax(images)) for images in real or generated if len(images))
    return flux_rows(rows, brightest)


def flux_rows(rows: Sequence[tuple[str, np.ndarray]], brightest: float) -> np.ndarray:
    """Draws named rows of images with one brightness scale.

    Args:
      rows: names and flux `[n, H, W, C]`; the first channel is drawn.
      brightest: the flux that is white.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.colors import PowerNorm

    norm = PowerNorm(_GAMMA, vmin=0.0, vmax=brightest, clip=True)
    return _draw_rows(rows, lambda picture: norm)


def contact_sheet(images: Sequence[np.ndarray], class_names: Sequence[str]) -> np.ndarray:
    """Draws the first images of each class, each with a brightness scale of its own.

    That shows what a file holds, whatever its range; pixels without a measurement are green.

    Args:
      images: for each class, `[n, H, W, C]`; the first channel is drawn.
      class_names: the names of the rows.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.colors import PowerNorm

    def own_norm(picture: np.ndarray) -> Any:
        if not np.isfinite(picture).any():  # the first channel has no measurement
            return PowerNorm(_GAMMA, vmin=0.0, vmax=1.0)
        low, high = np.nanpercentile(picture, (0.5, 99.9))
        return PowerNorm(_GAMMA, vmin=low, vmax=high if high > low else low + 1, clip=True)

    return _draw_rows(list(zip(class_names, images, strict=True)), own_norm)


def _draw_rows(
    rows: Sequence[tuple[str, np.ndarray]], norm_of: Callable[[np.ndarray], Any]
) -> np.ndarray:
    """Draws named rows of images `[n, H, W, C]` and returns the picture."""
    import matplotlib
    from matplotlib.figure import Figure

    colours = matplotlib.colormaps[_COLOUR_MAP].with_extremes(bad="green")
    columns = max(len(images) for _, images in rows)
    width, height = columns + 1.2, len(rows) * 1.02 + 0.1
    figure = Figure(figsize=(width, height), dpi=100)
    # One axes for all: an axes for each image takes longer than everything else.
    axes = figure.add_axes((1.2 / width, 0.01, 0.995 - 1.2 / width, 0.98))
    for row, (label, images) in enumerate(rows):
        text = axes.text(-0.1, row + 0.5, label, ha="right", va="center")
        text.set_parse_math(False)  # a class may be called $a$
        for column, picture in enumerate(images[..., 0]):
            up, right = 0.97 * np.array(picture.shape) / max(picture.shape) / 2
            x, y = column + 0.5, row + 0.5
            axes.imshow(
                np.ma.masked_invalid(picture),
                norm=norm_of(picture),
                cmap=colours,
                origin="lower",
                extent=(x - right, x + right, y + up, y - up),  # y grows downwards
            )
    axes.set(xlim=(0, columns), ylim=(len(rows), 0), aspect="auto")
    axes.set_axis_off()
    return pixels_of(figure)


def pixels_of(figure: Any) -> np.ndarray:
    """A figure of matplotlib as a picture, uint8 `[height, width, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _curve(metrics: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and finite values of one metric."""
    points = [(line["step"], line[name]) for line in metrics if line.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Draws loss, learning rate, and the results of validations.

    Args:
      metrics: the lines of `metrics.jsonl` of any task.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), dpi=100, layout="constrained")
    (loss, rate), lower = figure.subplots(2, 2)
    loss.plot(*_curve(metrics, "loss"), color="0.4", linewidth=0.8)
    loss.set(title="training loss", xlabel="step", yscale="log")
    rate.plot(*_curve(metrics, "learning_rate"), color="0.4")
    rate.set(title="learning rate", xlabel="step")
    if any("validation/loss" in line for line in metrics):
        _held_back_curves(metrics, *lower)
    else:
        _denoising_curves(metrics, *lower)
    for axis in (loss, rate, *lower):
        axis.grid(alpha=0.3)
        if len(axis.get_lines()) > 1:
            axis.legend()
    return pixels_of(figure)


def _held_back_curves(metrics: Sequence[Mapping[str, Any]], left: Any, right: Any) -> None:
    """Draws loss and accuracy on the images of the training split that are not trained on."""
    for axis, name in ((left, "loss"), (right, "accuracy")):
        steps, values = _curve(metrics, f"validation/{name}")
        axis.plot(steps, values, color="tab:red", marker="o" if len(steps) < 30 else "")
        axis.set(title=f"{name} on the validation part", xlabel="step")
    left.set_yscale("log")
    right.set_visible(bool(right.get_lines()[0].get_xdata().size))


def _denoising_curves(metrics: Sequence[Mapping[str, Any]], left: Any, right: Any) -> None:
    """Draws the validation losses of both splits over the steps, and the newest over t."""
    colours = {"test": "tab:red", "train": "tab:blue"}
    for split, colour in colours.items():
        steps, losses = _curve(metrics, f"validation/{split}_loss")
        marker = "o" if len(steps) < 30 else ""
        left.plot(steps, losses, color=colour, marker=marker, markersize=3, label=split)
    left.set(title="denoising loss (a growing gap means memorising)", xlabel="step", yscale="log")
    newest = [line for line in metrics if "validation/test_loss_bin_0" in line]
    for split, colour in colours.items() if newest else ():
        prefix = f"validation/{split}_loss_bin_"
        losses = [value for name, value in newest[-1].items() if name.startswith(prefix)]
        centres = (np.arange(len(losses)) + 0.5) / len(losses)
        right.plot(centres, losses, color=colour, marker="o", markersize=3, label=split)
    title = f"the same by t at step {newest[-1]['step']}" if newest else "the same by t"
    right.set(title=f"{title} (0 data, 1 noise)", xlabel="t", yscale="log")


def png_bytes(picture: np.ndarray) -> bytes:
    """A picture, uint8 `[height, width, 3]`, as the content of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return buffer.getvalue()


def save_png(path: pathlib.Path, picture: np.ndarray) -> None:
    """Writes a picture, uint8 `[height, width, 3]`, so that the file is complete or absent."""
    write_bytes(path, png_bytes(picture))
