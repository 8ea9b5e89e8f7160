"""Rows of a table in lenstronomy's words: rendered by lenstronomy, and by its formulas in numpy."""

import itertools
import json

import numpy as np
import pytest
from lenstronomy_support import FIELDS, REFERENCE

import lensjax
from lensjax.data import lenstronomy as conversion
from lensjax.data.raytracing import Lens
from lensjax.data.surveys import SURVEYS
from lensjax.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_compiles")
CLASS_NAMES = ("axion", "cdm", "no_sub")
MODELS = {"I": "model_i", "II": "model_ii", "III": "model_iii"}
CASES = sorted(name.removesuffix("/image") for name in REFERENCE if name.endswith("ss1/image"))


def _turned(x, y, e1, e2):
    """Axis ratio, and positions along the axes of an ellipse with the given components."""
    size, angle = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    return (1 - size) / (1 + size), angle, u, v


def _deflection(model, x, y, **k):
    if model == "SHEAR":
        return k["gamma1"] * x + k["gamma2"] * y, k["gamma2"] * x - k["gamma1"] * y
    x, y = x - k["center_x"], y - k["center_y"]
    if model == "POINT_MASS":
        return (k["theta_E"] ** 2 * part / (x**2 + y**2) for part in (x, y))
    assert model == "SIE"
    q, angle, u, v = _turned(x, y, k["e1"], k["e2"])
    f, psi = np.sqrt(1 - q**2), np.sqrt(q**2 * u**2 + v**2)
    scale = k["theta_E"] * np.sqrt(q) / f
    along, across = scale * np.arctan(f * u / psi), scale * np.arctanh(f * v / psi)
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * along - sine * across, sine * along + cosine * across


def _render(arguments):
    """What lenstronomy documents that its image model does with these arguments, in numpy."""
    from scipy.ndimage import gaussian_filter

    pixels, psf = arguments["kwargs_pixel"], arguments["kwargs_psf"]
    column, row = np.meshgrid(np.arange(pixels["nx"]), np.arange(pixels["ny"]))
    (xx, xy), (yx, yy) = pixels["transform_pix2angle"]
    x = pixels["ra_at_xy_0"] + xx * column + xy * row
    y = pixels["dec_at_xy_0"] + yx * column + yy * row
    models = zip(arguments["lens_model_list"], arguments["kwargs_lens"], strict=True)
    deflections = [tuple(_deflection(model, x, y, **k)) for model, k in models]
    assert arguments["source_model_list"] == ["SERSIC_ELLIPSE"]
    (k,) = arguments["kwargs_source"]
    q, _, u, v = _turned(
        x - sum(one[0] for one in deflections) - k["center_x"],
        y - sum(one[1] for one in deflections) - k["center_y"],
        k["e1"],
        k["e2"],
    )
    radius = np.sqrt(q * u**2 + v**2 / q) / k["R_sersic"]
    b_n = 1.9992 * k["n_sersic"] - 0.3271
    brightness = k["amp"] * np.exp(-b_n * (radius ** (1 / k["n_sersic"]) - 1))
    assert arguments["kwargs_numerics"] == {"supersampling_factor": 1}
    assert psf["psf_type"] == "GAUSSIAN"
    sigma = psf["fwhm"] / (2 * np.sqrt(2 * np.log(2))) / psf["pixel_size"]
    area = abs(xx * yy - xy * yx)
    return gaussian_filter(brightness * area, sigma, mode="nearest", truncate=psf["truncation"])


@pytest.mark.parametrize("case", CASES)
def test_the_arguments_of_a_reference_lens_give_lenstronomys_image(case):
    """Lenses of the reference file, whose images lenstronomy itself computed."""
    expected = REFERENCE[f"{case}/image"]
    survey = SURVEYS[MODELS[case.split("/")[0]]]
    no_points = np.zeros((len(expected), 0))
    stored = {field: REFERENCE.get(f"{case}/{name}", no_points) for field, name in FIELDS.items()}
    for index, image in enumerate(expected):
        lens = Lens(
            **{field: value[index] if value.ndim else value for field, value in stored.items()}
        )
        found = _render(conversion.lens_arguments(lens) | conversion.image_arguments(survey))
        assert np.max(np.abs(found - image)) <= 1e-9 * image.max()


@pytest.mark.parametrize(
    ("model", "class_name"),
    [
        *(("model_ii", class_name) for class_name in CLASS_NAMES),
        ("model_i", "no_sub"),
        ("model_iii", "cdm"),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in itertools.product(("model_i", "model_iii"), CLASS_NAMES)
            if case not in (("model_i", "no_sub"), ("model_iii", "cdm"))
        ),
    ],
)
def test_a_row_gives_its_image(model, class_name):
    images, table = lensjax.simulate(model, class_name, 4, seed=2)
    for image, row in zip(images[..., 0], table, strict=True):
        found = _render(lensjax.to_lenstronomy(row))
        assert np.max(np.abs(found - image)) <= 1e-5 * image.max()


@pytest.mark.parametrize("class_name", ["cdm", pytest.param("axion", marks=pytest.mark.nightly)])
def test_a_row_of_a_conserved_set_has_its_own_main_halo(class_name):
    images, table = lensjax.simulate("model_ii_conserved", class_name, 3)
    for image, row in zip(images[..., 0], table, strict=True):
        found = _render(lensjax.to_lenstronomy(row))
        assert np.max(np.abs(found - image)) <= 1e-5 * image.max()


@pytest.mark.parametrize("class_name", CLASS_NAMES)
@pytest.mark.parametrize("model", MODELS.values())
def test_lenstronomy_renders_a_row_as_its_image(model, class_name):
    pytest.importorskip("lenstronomy")
    from lenstronomy.Data.pixel_grid import PixelGrid
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    images, table = lensjax.simulate(model, class_name, 8, seed=1)
    for image, row in zip(images[..., 0], table, strict=True):
        arguments = lensjax.to_lenstronomy(row)
        image_model = ImageModel(
            PixelGrid(**arguments["kwargs_pixel"]),
            PSF(**arguments["kwargs_psf"]),
            LensModel(arguments["lens_model_list"]),
            LightModel(arguments["source_model_list"]),
            kwargs_numerics=arguments["kwargs_numerics"],
        )
        found = image_model.image(arguments["kwargs_lens"], arguments["kwargs_source"])
        assert np.max(np.abs(found - image)) <= 1e-5 * found.max()


def test_a_row_of_another_table_does_as_well():
    table_module = pytest.importorskip("astropy.table")
    _, table = lensjax.simulate("model_ii", "cdm", 2)
    plain = conversion.to_lenstronomy(table[1])
    for row in (
        table_module.Table(table)[1],
        {name: table[1][name].item() for name in table.dtype.fields or ()},
    ):
        assert repr(conversion.to_lenstronomy(row)) == repr(plain)


def test_the_numbers_are_pythons_own():
    _, (row,) = lensjax.simulate("model_ii", "axion", 1)
    arguments = lensjax.to_lenstronomy(row)
    for name in ("lens_model_list", "kwargs_lens", "source_model_list", "kwargs_source"):
        assert json.loads(json.dumps(arguments[name])) == arguments[name]


def test_a_row_of_another_set_is_refused_with_the_sets_that_go():
    row = {"data_set": "my_lenses", "class_name": "cdm"}
    with pytest.raises(DataError, match=r"data_set: got 'my_lenses'; .* deeplense/model_ii,"):
        lensjax.to_lenstronomy(row)
