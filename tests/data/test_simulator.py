"""The simulator against lenstronomy, public DeepLense files and closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lenstronomy_support import DATA, FIELDS, REFERENCE

from lensjax import prng
from lensjax.data import raytracing, simulator
from lensjax.data.surveys import SURVEYS

pytestmark = pytest.mark.usefixtures("quick_compiles")
SURVEY_OF_MODEL = {"I": "model_i", "II": "model_ii", "III": "model_iii"}
CASES = sorted(name.removesuffix("/image") for name in REFERENCE if name.endswith("/image"))


def reference_lenses(case: str) -> raytracing.Lens:
    no_points = np.zeros((len(REFERENCE[f"{case}/image"]), 0))
    stored = {field: REFERENCE.get(f"{case}/{name}", no_points) for field, name in FIELDS.items()}
    return raytracing.Lens(**{field: jnp.asarray(value) for field, value in stored.items()})


render = jax.jit(simulator.render, static_argnames=("survey", "supersampling", "fine_psf"))


def kolmogorov_smirnov(sample) -> float:
    """Distance from the uniform distribution times sqrt(n); 1.95 is exceeded once in 1,000."""
    ordered = np.sort(np.asarray(sample, np.float64).ravel())
    n = len(ordered)
    upper = np.max(np.arange(1, n + 1) / n - ordered)
    lower = np.max(ordered - np.arange(n) / n)
    return max(upper, lower) * math.sqrt(n)


@functools.cache
def draw(class_name: str, num: int = 4000, *, conserved: bool = False) -> simulator.Draw:
    survey = SURVEYS["model_ii"]
    keys = prng.keys(prng.key(3, "test"), jnp.arange(num))
    sample = jax.jit(
        jax.vmap(lambda key: simulator.sample_lens(key, survey, class_name, conserved=conserved))
    )
    return jax.tree.map(np.asarray, sample(keys))


@pytest.mark.parametrize(
    ("case", "double", "tolerance"),
    [
        *((case, True, 1e-11) for case in CASES),
        *((f"{model}/axion/ss1", False, 2e-5) for model in SURVEY_OF_MODEL),
    ],
)
def test_matches_lenstronomy(case, double, tolerance):
    model, _, supersampling = case.split("/")
    survey = SURVEYS[SURVEY_OF_MODEL[model]]
    expected = REFERENCE[f"{case}/image"]
    with jax.enable_x64(double):
        render_one = functools.partial(
            simulator.render, survey=survey, supersampling=int(supersampling[2:])
        )
        images = jax.jit(jax.vmap(render_one))(reference_lenses(case))
        assert images.dtype == (jnp.float64 if double else jnp.float32)
    errors = np.max(np.abs(np.asarray(images, np.float64) - expected), axis=(1, 2))
    assert np.all(errors <= tolerance * expected.max(axis=(1, 2)))


def polish(residual, start: np.ndarray, steps: int = 12) -> jnp.ndarray:
    """Gauss-Newton with more steps than it takes to reach rounding."""

    def step(_, parameters):
        change, *_ = jnp.linalg.lstsq(jax.jacfwd(residual)(parameters), -residual(parameters))
        return parameters + change

    return jax.jit(lambda first: jax.lax.fori_loop(0, steps, step, first))(jnp.asarray(start))


def normalized(lens: raytracing.Lens) -> jnp.ndarray:
    image = raytracing.render(lens, SURVEYS["model_iii"])
    return (image / jnp.max(image)).ravel()


def no_sub_image(parameters):
    return normalized(simulator.smooth_lens(SURVEYS["model_iii"], *parameters))


def axion_image(parameters):
    source_x, source_y, log10_mass, angle = parameters
    mass, x, y = simulator.vortex_points(log10_mass, angle)
    theta_e = simulator.ARCSEC_PER_SQRT_MASS * jnp.sqrt(mass)
    lens = simulator.smooth_lens(SURVEYS["model_iii"], source_x, source_y)
    return normalized(lens._replace(point_theta_e=theta_e, point_x=x, point_y=y))


def check_public_file(name, image_of, candidates):
    published = np.load(DATA / "public_samples" / name).ravel()
    image_of = jax.jit(image_of)
    with jax.enable_x64(True):
        images = np.asarray(jax.lax.map(image_of, jnp.asarray(candidates)))
        start = candidates[np.argmin(np.mean((images - published) ** 2, axis=1))]
        fitted = np.asarray(polish(lambda parameters: image_of(parameters) - published, start))
        assert np.max(np.abs(image_of(jnp.asarray(fitted)) - published)) <= 1e-9
    single = image_of(jnp.asarray(fitted, jnp.float32))
    assert single.dtype == jnp.float32
    assert np.max(np.abs(np.asarray(single, np.float64) - published)) <= 1e-5
    return fitted


def test_public_no_sub_file_is_reproduced():
    grid = np.linspace(-0.35, 0.35, 15)
    candidates = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    check_public_file("model_iii_no_sub.npy", no_sub_image, candidates)


def test_public_axion_file_is_reproduced_from_its_stated_parameters():
    stated = (-0.0656, 0.0750, math.log10(1.4395e-24))
    candidates = np.array([(*stated, angle) for angle in np.linspace(0, math.pi, 60)])
    fitted = check_public_file("model_iii_axion.npy", axion_image, candidates)
    np.testing.assert_allclose(fitted[:3], stated, atol=1e-4)


def test_instruments_have_the_published_numbers():
    model_ii, model_iii = SURVEYS["model_ii"], SURVEYS["model_iii"]
    assert model_ii.background_rms == pytest.approx(0.0058691, rel=1e-4)
    assert model_iii.background_rms == pytest.approx(0.0059200, rel=1e-4)
    assert model_ii.source_amplitude == pytest.approx(53.24524, rel=1e-6)
    assert model_iii.source_amplitude == pytest.approx(323.803, rel=1e-5)


@pytest.mark.parametrize(("model", "zero_point"), [("model_ii", 24.0), ("model_iii", 25.96)])
def test_the_source_has_magnitude_20_at_the_surveys_zero_point(model, zero_point):
    survey = SURVEYS[model]
    assert survey.zero_point == zero_point
    no_lens = simulator.smooth_lens(survey, 0.0, 0.0)._replace(deflection_factor=0.0)
    with jax.enable_x64(True):
        flux = float(jnp.sum(render(no_lens, survey, supersampling=8)))
    assert zero_point - 2.5 * math.log10(flux) == pytest.approx(20, abs=1e-3)


def test_model_i_has_no_magnitudes():
    assert SURVEYS["model_i"].zero_point is None


def noisy_images(model: str, num: int):
    """A clean image's middle, and many noisy ones made of it."""
    survey = SURVEYS[model]
    clean = render(simulator.smooth_lens(survey, 0.1, -0.05), survey)
    middle = survey.num_pixels // 2
    half = min(middle, 16)
    clean = clean[middle - half : middle + half, middle - half : middle + half]
    keys = prng.keys(prng.key(1, "noise"), jnp.arange(num))
    add = jax.jit(jax.vmap(lambda key: simulator.add_noise(key, clean, survey)))
    noisy, exposure = add(keys)
    return survey, np.asarray(clean, np.float64), np.asarray(noisy, np.float64), exposure


def check_standard_scores(scores: np.ndarray, clean: np.ndarray):
    """Mean 0 and variance 1, in faint pixels and in bright ones."""
    bright = clean > np.quantile(clean, 0.9)
    for chosen in (scores[:, bright], scores[:, ~bright]):
        assert abs(chosen.mean()) < 4.5 / math.sqrt(chosen.size)
        fourth_moment = np.mean(chosen**4)  # a Poisson count's tail is not a normal one's
        assert abs(np.mean(chosen**2) - 1) < 4.5 * math.sqrt((fourth_moment - 1) / chosen.size)


@pytest.mark.parametrize("model", ["model_ii", "model_iii"])
def test_noise_has_the_instruments_mean_and_variance(model):
    survey, clean, noisy, exposure = noisy_images(model, 256)
    np.testing.assert_array_equal(exposure, survey.exposure_time_s)
    deviation = np.sqrt(survey.background_rms**2 + clean / survey.exposure_time_s)
    check_standard_scores((noisy - clean) / deviation, clean)


def test_model_i_counts_have_the_mean_and_variance_of_a_poisson_with_a_noisy_rate():
    _, clean, counts, exposure = noisy_images("model_i", 64)
    assert np.all(counts >= 0)
    np.testing.assert_array_equal(counts, np.round(counts))
    log10_exposure = np.log10(np.asarray(exposure))
    assert kolmogorov_smirnov((log10_exposure - 3) / 0.5) < 1.95
    # The rate is a normal variable cut at 0: its first two moments are closed forms.
    t = np.asarray(exposure, np.float64)[:, None, None]
    mu, sigma = t * clean, np.sqrt(t * clean + (0.01 * t) ** 2)
    ratio = mu / sigma
    cdf = np.vectorize(math.erfc)(-ratio / math.sqrt(2)) / 2
    density = np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    mean = mu * cdf + sigma * density
    square = (mu**2 + sigma**2) * cdf + mu * sigma * density
    check_standard_scores((counts - mean) / np.sqrt(mean + square - mean**2), clean)


@pytest.mark.parametrize("class_name", simulator.CLASS_NAMES)
def test_source_positions_are_uniform(class_name):
    lens = draw(class_name).lens
    limit = simulator.SOURCE_POSITION_LIMIT
    for position in (lens.source_x, lens.source_y):
        assert kolmogorov_smirnov((position + limit) / (2 * limit)) < 1.95
    assert abs(np.corrcoef(lens.source_x, lens.source_y)[0, 1]) < 0.06


def test_subhaloes_follow_the_mass_function_and_the_position_priors():
    drawn = jax.tree.map(lambda leaf: leaf[:1000] if leaf.ndim else leaf, draw("cdm"))
    assert drawn.point_mass.shape == (1000, 25)
    mass = drawn.point_mass.astype(np.float64)
    assert mass.min() >= 1e6 * (1 - 1e-5)
    assert mass.max() <= 1e10 * (1 + 1e-5)
    # A density that falls as m^-0.9 has the integral m^0.1.
    low, high = 1e6**0.1, 1e10**0.1
    assert kolmogorov_smirnov((mass**0.1 - low) / (high - low)) < 1.95
    x, y = drawn.lens.point_x, drawn.lens.point_y
    assert kolmogorov_smirnov((np.hypot(x, y) - 0.25) / 1.75) < 1.95
    assert kolmogorov_smirnov(np.arctan2(x, y) / (2 * np.pi) % 1) < 1.95
    assert np.all(np.isnan(drawn.log10_axion_mass))
    np.testing.assert_allclose(drawn.lens.point_theta_e, 1.2814905676e-6 * np.sqrt(mass), rtol=1e-6)


def test_vortex_is_a_line_through_the_centre():
    drawn = draw("axion")
    assert kolmogorov_smirnov((drawn.log10_axion_mass + 24) / 2) < 1.95
    assert kolmogorov_smirnov(drawn.vortex_angle / (2 * np.pi)) < 1.95
    np.testing.assert_array_equal(drawn.point_mass, np.float32(3e8))
    x, y = drawn.lens.point_x.astype(np.float64), drawn.lens.point_y.astype(np.float64)
    half_length = 0.03 * 10 ** (-22 - drawn.log10_axion_mass.astype(np.float64))
    assert half_length.min() >= 0.03 * (1 - 1e-6)
    assert half_length.max() <= 3 * (1 + 1e-6)
    along = np.linspace(-1, 1, 100) * half_length[:, None]
    np.testing.assert_allclose(x, along * np.cos(drawn.vortex_angle)[:, None], atol=5e-6)
    np.testing.assert_allclose(y, along * np.sin(drawn.vortex_angle)[:, None], atol=5e-6)


def test_no_sub_has_no_structure():
    drawn = draw("no_sub")
    assert drawn.point_mass.shape == (4000, 0)
    assert np.all(np.isnan(drawn.log10_axion_mass))
    assert np.all(np.isnan(drawn.vortex_angle))


@pytest.mark.parametrize("class_name", ["axion", "cdm"])
def test_conserved_lens_has_the_smooth_lens_mass_inside_the_ring(class_name):
    """Gauss: the mean radial deflection along the ring measures the mass inside.

    The definition takes the halo as round; the ellipse differs by 1e-4 of the mass.
    """
    survey = SURVEYS["model_ii"]
    theta_e = simulator.ARCSEC_PER_SQRT_MASS * 1e6
    ring = survey.deflection_factor * theta_e
    angle = 2 * np.pi * np.arange(4000) / 4000
    with jax.enable_x64(True):
        x, y = ring * jnp.cos(angle)[None, :], ring * jnp.sin(angle)[None, :]
        unit_x, unit_y = raytracing.ellipsoid_deflection(x, y, 0.0, 0.0)
        smooth = jnp.mean(unit_x * x + unit_y * y)  # of a halo with an Einstein radius of 1
        lens = jax.tree.map(jnp.asarray, draw(class_name, 80, conserved=True).lens)

        def radial(theta, point_x, point_y):
            alpha_x, alpha_y = raytracing.points_deflection(x, y, theta, point_x, point_y)
            return jnp.mean(alpha_x * x + alpha_y * y)

        points = [
            jnp.asarray(field, jnp.float64)
            for field in (lens.point_theta_e, lens.point_x, lens.point_y)
        ]
        total = np.asarray(lens.theta_e * smooth + jax.vmap(radial)(*points))
        expected = theta_e * float(smooth)
    # The sum along the circle is only exact for points away from it.
    distance = np.abs(np.hypot(lens.point_x, lens.point_y) - ring).min(axis=1)
    chosen = distance > 0.004
    assert chosen.sum() > 20
    np.testing.assert_allclose(total[chosen] / expected, 1, atol=5e-6)
    assert np.ptp(lens.theta_e) > 0.01


def test_supersampling_with_a_fine_psf_converges():
    survey = SURVEYS["model_ii"]
    lens = simulator.smooth_lens(survey, 0.08, 0.11)
    with jax.enable_x64(True):
        exact = np.asarray(render(lens, survey, supersampling=16, fine_psf=True))
        errors = [
            np.max(np.abs(render(lens, survey, supersampling=s, fine_psf=True) - exact))
            for s in (1, 3, 6)
        ]
    errors = np.array(errors) / exact.max()
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.01
    assert errors[2] < 0.003


def test_half_a_turn_of_everything_turns_the_image():
    survey = SURVEYS["model_ii"]
    lens = jax.tree.map(
        lambda value: jnp.asarray(value[0] if value.ndim else value), draw("cdm").lens
    )
    moved = ("source_x", "source_y", "point_x", "point_y")
    turned = lens._replace(**{field: -getattr(lens, field) for field in moved})
    image = render(lens, survey)
    np.testing.assert_allclose(
        render(turned, survey), image[::-1, ::-1], atol=1e-5 * float(image.max())
    )


@pytest.mark.parametrize("class_name", simulator.CLASS_NAMES)
@jax.debug_key_reuse(False)  # the same key must give the same image
def test_image_depends_on_its_key_alone(class_name):
    survey = SURVEYS["model_ii"]
    keys = prng.keys(prng.key(0, "test"), jnp.arange(4))
    images, draws, exposures = simulator.simulate(keys, survey, class_name)
    assert images.shape == (4, 64, 64)
    assert images.dtype == jnp.float32
    assert np.all(np.isnan(exposures))
    peak = float(images.max())
    turned, _, _ = simulator.simulate(keys[::-1], survey, class_name)
    np.testing.assert_array_equal(turned[::-1], images)
    lens = jax.tree.map(lambda field: field[2], draws.lens)
    np.testing.assert_allclose(render(lens, survey), images[2], atol=1e-5 * peak)
    if class_name == "axion":
        single, _, _ = simulator.simulate(keys[2:3], survey, class_name)
        np.testing.assert_allclose(single[0], images[2], atol=1e-5 * peak)


def test_unknown_class_is_refused():
    with pytest.raises(ValueError, match=r"'vortex'; allowed: axion, cdm, no_sub"):
        simulator.sample_lens(prng.key(0, "x"), SURVEYS["model_i"], "vortex")
