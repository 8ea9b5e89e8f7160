"""Pictures of lenses, with one brightness scale for each band, and curves of a training."""

import functools
import io
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lensjax.data.dataset import band_labels
from lensjax.files.atomic import write_bytes
from lensjax.run.composites import Stretch, composite_bands, fit_stretch, lupton_rgb

# Brightness is the square root of flux: a linear scale would hide faint speckle.
_GAMMA = 0.5
_COLOUR_MAP = "inferno"
_COMPOSITE = "colour"
MOST_BANDS = 6  # of a class in a picture
_MOST_LINES = 600  # of a picture: matplotlib's canvas ends at 65,536 pixels


class Row(NamedTuple):
    """Images of one class and one kind.

    Attributes:
      name: the class.
      kind: what the images are, such as `real`; may be empty.
      images: flux `[n, H, W, C]`.
    """

    name: str
    kind: str
    images: np.ndarray


class _Line(NamedTuple):
    """A line of a picture: a label, and a function that draws each of its images.

    Attributes:
      label: stands before the line.
      images: `[n, H, W]`, or `[n, H, W, 3]` for red, green and blue.
      style_of: keywords of `imshow` for an image, and the image as it takes it.
    """

    label: str
    images: np.ndarray
    style_of: Callable[[np.ndarray], dict[str, Any]]


def lens_grid(
    generated: Sequence[np.ndarray],
    class_names: Sequence[str],
    real: Sequence[np.ndarray] | None = None,
    bands: Sequence[str] = (),
) -> np.ndarray:
    """Draws each class as a row of real images, where there are any, above generated ones.

    See `flux_rows` for images of several bands.

    Args:
      generated: for each class, flux `[n, H, W, C]`.
      class_names: the names of the rows.
      real: for each class, the same; they set the scale of each band.
      bands: the names of the C bands; () for `band 1` and so on.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """
    kinds = {"real": real, "generated": generated} if real else {"generated": generated}
    rows = [
        Row(name, kind, images[index])
        for index, name in enumerate(class_names)
        for kind, images in kinds.items()
    ]
    return flux_rows(rows, real or generated, bands)


def flux_rows(
    rows: Sequence[Row], reference: Sequence[np.ndarray], bands: Sequence[str] = ()
) -> np.ndarray:
    """Draws named rows of images with one brightness scale for each band.

    Images of several bands have a row for each band of each class. Three bands or more have a
    colour composite above them, whose red, green and blue are the last, the middle and the first
    band: bands should be listed from blue to red. See `composites.lupton_rgb`. Of more than
    `MOST_BANDS` bands, as many are drawn, evenly spaced.

    Args:
      rows: the images; those of a class follow each other.
      reference: flux `[n, H, W, C]` each; white is the brightest pixel of a band.
      bands: the names of the C bands; () for `band 1` and so on.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """

    def composite_style(bands: Sequence[int]) -> Callable[[np.ndarray], dict[str, Any]]:
        stretch = fit_stretch([images[..., bands] for images in reference])
        return lambda picture: _in_colour(picture, stretch)

    def band_style(band: int) -> Callable[[np.ndarray], dict[str, Any]]:
        return functools.partial(_in_one_band, limits=(0.0, _brightest(reference, band)))

    return _draw(_lines(rows, bands, composite_style, band_style))


def contact_sheet(
    images: Sequence[np.ndarray], class_names: Sequence[str], bands: Sequence[str] = ()
) -> np.ndarray:
    """Draws the first images of each class, each with a brightness scale of its own.

    That shows what a file holds, whatever its range; pixels without a measurement are green. Rows
    of several bands are those of `flux_rows`.

    Args:
      images: for each class, `[n, H, W, C]`.
      class_names: the names of the rows.
      bands: the names of the C bands; () for `band 1` and so on.

    Returns:
      The picture, uint8 `[height, width, 3]`.
    """

    def own_style(picture: np.ndarray) -> dict[str, Any]:
        if not np.isfinite(picture).any():  # this band has no measurement
            return _in_one_band(picture, (0.0, 1.0))
        low, high = np.nanpercentile(picture, (0.5, 99.9))
        return _in_one_band(picture, (low, high if high > low else low + 1))

    def own_colours(picture: np.ndarray) -> dict[str, Any]:
        return _in_colour(picture, fit_stretch([picture]))

    rows = [Row(name, "", flux) for name, flux in zip(class_names, images, strict=True)]
    return _draw(_lines(rows, bands, lambda _: own_colours, lambda _: own_style))


def _lines(
    rows: Sequence[Row],
    bands: Sequence[str],
    composite_style: Callable[[Sequence[int]], Callable[[np.ndarray], dict[str, Any]]],
    band_style: Callable[[int], Callable[[np.ndarray], dict[str, Any]]],
) -> list[_Line]:
    """The lines of a picture: for each class a composite where possible, then band by band.

    Args:
      rows: the images.
      bands: the names of the bands, () for none.
      composite_style: makes the style of composites of three bands.
      band_style: makes the style of a band.
    """
    num_bands = rows[0].images.shape[-1]
    names = band_labels(num_bands, bands)
    parts: list[tuple[str, Any, Callable[[np.ndarray], dict[str, Any]]]] = []
    composite = composite_bands(num_bands)
    if composite:
        parts.append((_COMPOSITE, list(composite), composite_style(composite)))
    drawn = np.linspace(0, num_bands - 1, min(num_bands, MOST_BANDS)).round().astype(int)
    parts += [(names[band] if num_bands > 1 else "", int(band), band_style(band)) for band in drawn]
    by_class = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row.name)]
    return [
        _Line("\n".join(filter(None, (row.name, part, row.kind))), row.images[..., chosen], style)
        for of_class in by_class
        for part, chosen, style in parts
        for row in of_class
    ]


def _brightest(images: Sequence[np.ndarray], band: int) -> float:
    """The brightest pixel of a band, at least 0; 1 where no pixel was measured."""
    planes = [flux[..., band] for flux in images]
    peaks = [float(plane[np.isfinite(plane)].max(initial=-np.inf)) for plane in planes]
    brightest = max(peaks, default=-np.inf)
    return max(0.0, brightest) if np.isfinite(brightest) else 1.0


def _in_one_band(picture: np.ndarray, limits: tuple[float, float]) -> dict[str, Any]:
    """Draws a band `[H, W]`, black and white at the limits."""
    import matplotlib
    from matplotlib.colors import PowerNorm

    return {
        "X": np.ma.masked_invalid(picture),
        "norm": PowerNorm(_GAMMA, *limits, clip=True),
        "cmap": matplotlib.colormaps[_COLOUR_MAP].with_extremes(bad="green"),
    }


def _in_colour(picture: np.ndarray, stretch: Stretch) -> dict[str, Any]:
    return {"X": lupton_rgb(picture, stretch)}


def _draw(lines: Sequence[_Line]) -> np.ndarray:
    """Draws the lines of a picture, as many as the canvas can have."""
    from matplotlib.figure import Figure

    lines = lines[:_MOST_LINES]
    columns = max(len(line.images) for line in lines)
    width, height = columns + 1.2, len(lines) * 1.02 + 0.1
    figure = Figure(figsize=(width, height), dpi=100)
    # One axes for all: an axes for each image takes longer than everything else.
    axes = figure.add_axes((1.2 / width, 0.01, 0.995 - 1.2 / width, 0.98))
    for number, line in enumerate(lines):
        text = axes.text(-0.1, number + 0.5, line.label, ha="right", va="center")
        text.set_parse_math(False)  # a class may be called $a$
        for column, picture in enumerate(line.images):
            up, right = 0.97 * np.array(picture.shape[:2]) / max(picture.shape[:2]) / 2
            x, y = column + 0.5, number + 0.5
            axes.imshow(
                **line.style_of(picture),
                origin="lower",
                extent=(x - right, x + right, y + up, y - up),  # y grows downwards
            )
    axes.set(xlim=(0, columns), ylim=(len(lines), 0), aspect="auto")
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
