"""Pictures: where each image lies, and one brightness scale for all."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from lensjax.run import figures
from lensjax.run.figures import contact_sheet, lens_grid, save_png, training_curves

NAMES = ("axion", "cdm", "no_sub")
SIDE = 16


def _flat(level: float, num: int = 2) -> np.ndarray:
    return np.full((num, SIDE, SIDE, 1), level, np.float32)


def _panels(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Returns the colour at the middle of each panel, uint8 `[rows, columns, 3]`."""
    height, width = picture.shape[:2]
    left = width * 1.2 / (columns + 1.2)
    across = left + (np.arange(columns) + 0.5) * (0.995 * width - left) / columns
    down = height * (0.01 + (np.arange(rows) + 0.5) * 0.98 / rows)
    return picture[down.astype(int)[:, None], across.astype(int)[None, :]]


def _colour(share: float) -> np.ndarray:
    """Returns the colour of a flux, as a share of the brightest real one."""
    map_to_colour = matplotlib.colormaps["inferno"]
    return np.round(np.array(map_to_colour(min(1.0, share) ** 0.5)[:3]) * 255)


def _close(colours: np.ndarray, share: float) -> bool:
    return bool(np.all(np.abs(colours.astype(float) - _colour(share)) <= 4))


def test_rows_are_real_above_generated_class_by_class():
    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 1.0]  # in the order of the rows
    real = [_flat(level) for level in levels[::2]]
    generated = [_flat(level) for level in levels[1::2]]
    real[0][0] = 1.0  # the brightest real pixel is 1
    panels = _panels(lens_grid(generated, NAMES, real), rows=6, columns=2)
    for row, level in enumerate(levels):
        assert _close(panels[row, 1], level), (row, level)
    assert _close(panels[0, 0], 1.0)


def test_without_real_images_each_class_is_one_row():
    panels = _panels(lens_grid([_flat(0.25), _flat(0.5), _flat(1.0)], NAMES), rows=3, columns=2)
    for row, level in enumerate((0.25, 0.5, 1.0)):
        assert _close(panels[row], level)


@pytest.mark.parametrize("columns", [1, 3, 8])
def test_the_size_follows_from_rows_and_columns(columns):
    images = [_flat(1.0, columns)] * 3
    picture = lens_grid(images, NAMES, images)
    assert picture.dtype == np.uint8
    assert picture.shape == (round((6 * 1.02 + 0.1) * 100), round((columns + 1.2) * 100), 3)
    # Every panel is drawn and nothing is drawn over its neighbours.
    assert _close(_panels(picture, 6, columns), 1.0)


def test_the_scale_is_that_of_the_real_images_whatever_is_generated():
    """A generated image that is far too bright or dark must look so, and change nothing else."""
    real = [_flat(0.5), _flat(1.0)]
    names = NAMES[:2]
    for level in (0.0, 0.01, 1.0, 1e6):
        panels = _panels(lens_grid([_flat(level)] * 2, names, real), rows=4, columns=2)
        assert _close(panels[0], 0.5)
        assert _close(panels[2], 1.0)
        assert _close(panels[1], level)
    twice = [2 * images for images in real]
    one = lens_grid([_flat(0.3)] * 2, names, real)
    assert np.array_equal(one, lens_grid([_flat(0.6)] * 2, names, twice))


def test_negative_flux_is_drawn_as_black():
    panels = _panels(lens_grid([_flat(-1.0)], ["a"], [_flat(1.0)]), rows=2, columns=2)
    assert _close(panels[1], 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["one pixel", "all of the generated"])
def test_values_that_are_not_finite_are_drawn_and_leave_the_rest(bad, where):
    real, generated = _flat(1.0), _flat(0.5)
    if where == "one pixel":
        generated[0, 0, 0] = bad
    else:
        generated[:] = bad
    picture = lens_grid([generated], ["a"], [real])
    panels = _panels(picture, rows=2, columns=2)
    assert _close(panels[0], 1.0)
    if where == "one pixel":
        assert _close(panels[1], 0.5)


def test_the_lowest_row_of_an_image_is_at_the_bottom():
    image = _flat(0.0, 1)
    image[0, 0] = 1.0  # row 0 lies at the lowest y
    picture = lens_grid([image], ["a"], [image]).astype(int).sum(axis=-1)
    upper = picture[: picture.shape[0] // 2, 150:200].mean(axis=1)
    bright = np.flatnonzero((upper > 300) & (upper < 765))
    assert bright.size
    assert bright.min() > upper.size / 2


def test_classes_may_have_fewer_images_or_none():
    real = [_flat(1.0, 3), _flat(1.0, 1), _flat(1.0, 0)]
    panels = _panels(lens_grid([_flat(1.0, 3)] * 3, NAMES, real), rows=6, columns=3)
    white = np.array([255, 255, 255])
    assert _close(panels[0], 1.0)
    assert _close(panels[2, 0], 1.0)
    assert np.array_equal(panels[2, 1], white)
    assert np.array_equal(panels[4, 0], white)


def test_each_band_has_a_row_and_a_scale_of_its_own_that_real_and_generated_share():
    def pair(first: float, second: float) -> np.ndarray:
        return np.concatenate([_flat(first), _flat(second)], axis=-1)

    real, generated = [pair(1.0, 50.0), pair(0.5, 100.0)], [pair(0.2, 60.0), pair(0.1, 2.0)]
    panels = _panels(lens_grid(generated, NAMES[:2], real, ("g", "r")), rows=8, columns=2)
    # Class by class, band by band, real above generated.
    for row, share in enumerate((1.0, 0.2, 0.5, 0.6, 0.5, 0.1, 1.0, 0.02)):
        assert _close(panels[row], share), row


def _labels(monkeypatch, draw) -> list[str]:
    from matplotlib.figure import Figure

    seen: list[str] = []
    render = figures.pixels_of

    def look(figure: Figure):
        seen.extend(text.get_text() for axis in figure.axes for text in axis.texts)
        return render(figure)

    monkeypatch.setattr(figures, "pixels_of", look)
    draw()
    return seen


@pytest.mark.parametrize(
    ("num", "bands", "parts"),
    [
        (1, ("F814W",), []),
        (2, (), ["band 1", "band 2"]),
        (3, ("g", "r", "i"), ["colour", "g", "r", "i"]),
        (4, tuple("griz"), ["colour", *"griz"]),
        (11, (), ["colour", *(f"band {n}" for n in (1, 3, 5, 7, 9, 11))]),
    ],
)
def test_rows_are_named_after_class_band_and_kind(monkeypatch, num, bands, parts):
    images = [np.random.default_rng(0).random((1, 8, 8, num), np.float32)]
    expected = [f"a\n{part}\n{kind}" for part in parts for kind in ("real", "generated")]
    drawn = _labels(monkeypatch, lambda: lens_grid(images, ("a",), images, bands))
    assert drawn == (expected or ["a\nreal", "a\ngenerated"])
    drawn = _labels(monkeypatch, lambda: contact_sheet(images, ("a",), bands))
    assert drawn[-max(1, len(parts)) :] == ([f"a\n{part}" for part in parts] or ["a"])


@pytest.mark.parametrize("draw", ["grid", "sheet"])
def test_bands_without_a_measurement_are_green(draw):
    image = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    image[..., 1] = np.nan
    images = [image, image]
    if draw == "sheet":
        panels = _panels(contact_sheet(images, ("a", "b"), ("g", "r", "i")), rows=8, columns=1)
    else:
        panels = _panels(lens_grid(images, ("a", "b")), rows=8, columns=1)
    green = np.array([0, 128, 0])
    assert [bool((panel == green).all()) for panel in panels] == [True, False, True, False] * 2


def test_a_canvas_is_never_longer_than_matplotlib_can_draw(monkeypatch):
    monkeypatch.setattr(figures, "_MOST_LINES", 4)
    image = np.ones((1, 8, 8, 3), np.float32)
    assert lens_grid([image] * 3, NAMES).shape[0] == round((4 * 1.02 + 0.1) * 100)


def test_a_png_is_whole_holds_the_picture_and_leaves_nothing_else(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    for _ in range(2):  # the second time over the first
        save_png(tmp_path / "new" / "a.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def _curves(monkeypatch, metrics):
    """Returns the lines that are drawn: for each panel a dict from label to points."""
    from matplotlib.figure import Figure

    drawn = {}
    render = figures.pixels_of

    def look(figure: Figure):
        for axis in figure.axes:
            lines = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
            drawn[axis.get_title()] = lines
        return render(figure)

    monkeypatch.setattr(figures, "pixels_of", look)
    picture = training_curves(metrics)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    return drawn


def _line(step: int, loss: float | None, validated: bool = False) -> dict:
    values = {"step": step, "loss": loss, "learning_rate": 0.1 * step}
    if validated:
        values |= {"validation/test_loss": 2.0 * step, "validation/train_loss": 1.0 * step}
        for split, level in (("test", 3.0), ("train", 4.0)):
            for place in range(10):
                values[f"validation/{split}_loss_bin_{place}"] = level + place + step
    return values


def test_curves_show_what_the_metrics_hold(monkeypatch):
    metrics = [_line(1, 0.5), _line(2, None, True), _line(3, 0.25), _line(4, 0.125, True)]
    drawn = _curves(monkeypatch, metrics)
    (loss,) = drawn["training loss"].values()
    np.testing.assert_allclose(loss, [(1, 0.5), (3, 0.25), (4, 0.125)])  # null is left out
    (rate,) = drawn["learning rate"].values()
    np.testing.assert_allclose(rate, [(step, 0.1 * step) for step in (1, 2, 3, 4)])
    validation = drawn["denoising loss (a growing gap means memorising)"]
    np.testing.assert_allclose(validation["test"], [(2, 4), (4, 8)])
    np.testing.assert_allclose(validation["train"], [(2, 2), (4, 4)])
    bins = drawn["the same by t at step 4 (0 data, 1 noise)"]
    expected = [((place + 0.5) / 10, 3 + place + 4) for place in range(10)]
    np.testing.assert_allclose(bins["test"], expected)
    np.testing.assert_allclose(bins["train"], [(t, value + 1) for t, value in expected])


@pytest.mark.parametrize("metrics", [[], [_line(1, 0.5)], [_line(1, None)]])
def test_curves_without_a_validation_can_be_drawn(monkeypatch, metrics):
    assert len(_curves(monkeypatch, metrics)) == 4
