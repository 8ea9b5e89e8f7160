"""The data cards: the committed files are what the code renders, and what they say is so."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_support import ROOT, run_python

from lensjax import prng
from lensjax.data import cards, raytracing, simulator
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.surveys import SURVEYS

CARDS = cards.render_cards()
SOURCES = {f"{one.name}.md": one for one in SIMULATED_SETS.values() if not one.mini}


@pytest.mark.parametrize("name", CARDS)
def test_the_committed_card_is_what_the_code_renders(name):
    path = ROOT / "docs" / "data" / name
    assert path.read_text(encoding="utf-8") == CARDS[name], (
        "run python -m lensjax.data.cards docs/data"
    )


def test_each_set_has_a_card_that_names_its_small_version():
    text = "".join(CARDS.values())
    for name in SIMULATED_SETS:
        assert f"| `{name}` |" in text
    assert set(CARDS) == set(SOURCES)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_the_numbers_of_its_set(name):
    text, source = CARDS[name], SOURCES[name]
    survey = source.survey
    side = survey.num_pixels
    wanted = [
        f"{side} x {side} x 1",
        f"{survey.pixel_scale_arcsec:g} arcsec",
        f"FWHM {survey.psf_fwhm_arcsec:g} arcsec",
        "90,000 (30,000 a class)",
        "600 (200 a class)",
        "acts as 0.593 m" if survey.name == "model_i" else "acts as 0.376 m",
        "rotation by 180 degrees",
        "89 %",
        "arXiv:1909.07346",
    ]
    if survey.zero_point is not None:
        wanted.append(f"| zero point | {survey.zero_point:g} (magnitude of one count/s)")
    if source.noisy:
        wanted.append(f"{survey.background_rms:.4g}")
    for words in wanted:
        assert words in text
    assert ("Poisson" in text) == (name == "model_i_noisy.md")
    assert ("under-sampled" in text) == (survey.name == "model_iii")
    assert ("70 %" in text) == source.conserved
    for label, class_name in enumerate(simulator.CLASS_NAMES):
        assert f"| {label} | `{class_name}` |" in text


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_whole_markdown(name):
    text = CARDS[name]
    assert not re.search(r"[{}]|None(?!: a)|nan|  ", text)
    assert text.count("`") % 2 == 0
    for line in text.splitlines():
        assert line == line.rstrip()
        if line.startswith("|"):
            assert line.endswith("|")


@pytest.mark.parametrize(
    ("model", "radius", "effective"),
    [("model_i", 3, 0.087), ("model_ii", 3, 0.160), ("model_iii", 2, 0.063)],
)
def test_the_kernel_is_the_one_that_blurs_the_images(model, radius, effective):
    survey = SURVEYS[model]
    assert cards.psf_kernel(survey) == (radius, pytest.approx(effective, abs=5e-4))
    row = raytracing._image_matrix(survey, 1, False)[survey.num_pixels // 2]
    (touched,) = np.nonzero(row)
    assert len(touched) == 2 * radius + 1
    variance = np.sum(row * (touched.mean() - np.arange(len(row))) ** 2)
    fwhm = np.sqrt(variance) * survey.pixel_scale_arcsec / raytracing.SIGMA_PER_FWHM
    assert fwhm == pytest.approx(cards.psf_kernel(survey)[1], rel=1e-12)


@pytest.mark.parametrize(("model", "num"), [("model_i", 24), ("model_ii", 64), ("model_iii", 64)])
def test_the_error_of_one_sample_a_pixel_is_what_the_cards_say(model, num):
    survey = SURVEYS[model]

    def errors(key, class_name):
        lens = simulator.sample_lens(key, survey, class_name).lens
        once = raytracing.render(lens, survey)
        many = raytracing.render(lens, survey, supersampling=4, fine_psf=True)
        return jnp.max(jnp.abs(once - many)) / jnp.max(many)

    def median(class_name):
        keys = prng.keys(prng.key(0, "sampling", simulator.CLASS_NAMES.index(class_name)), numbers)
        return 100 * float(np.median(jax.lax.map(lambda key: errors(key, class_name), keys)))

    numbers = jnp.arange(num)
    low, high = cards.SAMPLING_ERROR_PERCENT[model]
    assert median("no_sub") == pytest.approx(low, abs=1.5)  # axion lies between the two
    assert median("cdm") == pytest.approx(high, abs=2)


def test_the_command_writes_all_cards(tmp_path):
    done = run_python("-m", "lensjax.data.cards", tmp_path / "cards")
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_text() for path in (tmp_path / "cards").iterdir()}
    assert written == CARDS
    assert run_python("-m", "lensjax.data.cards").returncode == 1
