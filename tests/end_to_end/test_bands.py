"""Three bands with errors and flags, of 13x15 pixels: every mode, on both placements."""

import json

import numpy as np
import pytest
from folder_support import pixels
from PIL import Image
from run_support import TINY, metrics_of, run_commands

import lensjax

fits = pytest.importorskip("astropy.io.fits")
pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("quick_compiles")]

BANDS = ("g", "r", "i")
SHAPE = (13, 15)
NETWORKS = {
    "dit": {"model.name": "dit"},
    "unet": {"model.name": "unet", "data.placement": "stream"},
}


def _flags(root, **changes) -> list[str]:
    settings = {
        **TINY,
        "data.name": "deeplense/folder",
        "data.folder": root,
        "data.planes": ",".join(f"{band}_sci" for band in BANDS),
        "data.bands": "channels",
        "data.variance_planes": "auto",
        "data.mask_planes": "auto",
        "data.augmentation": "flip_x",
        "data.scaling": "asinh",
        "loss.weighting": "inverse_variance",
        "model.num_classes": 0,
        "sample.guidance": 1.0,
        "evaluate.measures": "shapes,c2st,copies",
        **changes,
    }
    given = {name: str(value).replace(" ", "") for name, value in settings.items()}
    return [
        "--config=configs/smoke.py",
        *(f"--config.{name}={text}" for name, text in given.items()),
    ]


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Runs every mode for each network; gives the folder and what each command said."""
    folder = tmp_path_factory.mktemp("bands")
    root = folder / "files"
    root.mkdir()
    for index in range(24):
        hdus = [fits.PrimaryHDU()]
        for number, band in enumerate(BANDS):
            image = 100.0**number * pixels(100 * number + index, SHAPE)
            flags = np.zeros(SHAPE, np.int16)
            flags[index % 13, number] = 1
            image[flags > 0] = 1e9
            for name, plane in (("sci", image), ("err", 0.1 * (1 + image)), ("dq", flags)):
                content = plane.astype("i2" if name == "dq" else "f4")
                hdus.append(fits.ImageHDU(content, name=f"{band}_{name}"))
        fits.HDUList(hdus).writeto(root / f"{index}.fits")
    commands = {}
    for name, changes in NETWORKS.items():
        run = [*_flags(root, **changes), f"--workdir={folder / name}"]
        commands[f"{name}: train"] = run
        other = {"dit": "stream", "unet": "device"}[name]
        elsewhere = _flags(root, **{**changes, "data.placement": other})
        commands[f"{name}: elsewhere"] = [*elsewhere, f"--workdir={folder / name}_elsewhere"]
        for mode in ("sample", "evaluate"):
            commands[f"{name}: {mode}"] = [*run, f"--mode={mode}"]
        export = ["--config.export.source=generated", "--config.export.format=fits"]
        commands[f"{name}: export"] = [*run, "--mode=export", *export]
    return folder, run_commands(folder, commands, TFDS_DATA_DIR=str(folder / "sets"))


def test_every_command_ends_well(walk):
    for name, (code, output) in walk[1].items():
        assert code == 0, f"{name}: {output}"
        assert "Traceback" not in output


@pytest.mark.parametrize("name", NETWORKS)
def test_both_placements_learn_the_same(walk, name):
    folder, _ = walk
    runs = (metrics_of(folder / run) for run in (name, f"{name}_elsewhere"))
    one, other = ([line["loss"] for line in lines] for lines in runs)
    np.testing.assert_allclose(one, other, rtol=1e-5)  # two programs round differently


@pytest.mark.parametrize("name", NETWORKS)
def test_bands_have_scales_and_names(walk, name):
    folder, _ = walk
    dataset = json.loads((folder / name / "dataset.json").read_text())
    assert dataset["band_names"] == [f"{band}_sci" for band in BANDS]
    spread, softening = (dataset["scaling"][key] for key in ("spread", "softening"))
    assert len(spread) == 3
    # The bands differ by factors of 100, and flagged pixels of 1e9 do not count.
    np.testing.assert_allclose(np.divide(softening[1:], softening[:-1]), 100, rtol=0.5)
    assert softening[0] < 1


@pytest.mark.parametrize("name", NETWORKS)
def test_generated_images_are_written_by_band(walk, name):
    folder, _ = walk
    images = np.load(folder / name / "generated" / "images.npy")
    assert images.shape[1:] == (*SHAPE, 3)
    paths = sorted((folder / name / "export").rglob("*.fits"))
    assert len(paths) == len(images)
    with fits.open(paths[0]) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == [f"{band}_sci" for band in BANDS]
        np.testing.assert_array_equal(hdus[2].data, images[0, ..., 1])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_report_measures_bands_and_the_grid_shows_them(walk, name):
    folder, _ = walk
    metrics = json.loads((folder / name / "evaluation" / "metrics.json").read_text())
    assert metrics["protocol"]["bands"] == [f"{band}_sci" for band in BANDS]
    assert 0 < metrics["protocol"]["share_of_masked_pixels_filled"] < 0.02
    text = json.dumps(metrics["measures"]["shapes"])
    assert "r_sci" in text
    assert "colour" in text
    with Image.open(folder / name / "evaluation" / "grid.png") as grid:
        assert grid.height > 6 * 100


def test_planes_come_back_from_the_set(walk):
    folder, _ = walk
    images, _, variance, mask = lensjax.load_data(
        "folder",
        "train",
        str(folder / "sets"),
        str(folder / "files"),
        with_planes=True,
        planes=tuple(f"{band}_sci" for band in BANDS),
        bands="channels",
        variance_planes=("auto",),
        mask_planes=("auto",),
    )
    assert variance is not None
    assert mask is not None
    assert images.shape == variance.shape == mask.shape
    np.testing.assert_array_equal(images[mask], 1e9)
    np.testing.assert_allclose(variance, (0.1 * (1 + images)) ** 2, 1e-5)
