"""Log densities: closed forms of Gaussian data, tiny networks by hand, and what is refused."""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_support import PATHS
from run_support import CLASS_NAMES, tiny_config
from scipy.stats import multivariate_normal
from support import random_like, smooth_gaussian

from lensjax import prng
from lensjax.data.scaling import Scaling
from lensjax.diffusion import paths
from lensjax.errors import RequestError
from lensjax.inference import likelihood
from lensjax.inference.generator import LensGenerator
from lensjax.models import build_model
from lensjax.run.networks import make_apply_fn, make_init_fn

pytestmark = pytest.mark.usefixtures("quick_compiles")
FLOW = paths.FlowPath()
GAUSSIAN = smooth_gaussian(4)
PIXELS = GAUSSIAN.side**2
NUM = 12
LABELS = np.arange(NUM) % 2
IMAGES = GAUSSIAN.draw(3, LABELS)

each_prediction = pytest.mark.parametrize("prediction", paths.PREDICTIONS)


def posterior(path: paths.Path, prediction: str, gaussian: Any = GAUSSIAN) -> Any:
    """`(x_t, t, labels) -> Estimate`: exact, as a network with this prediction would say it."""
    variances, directions = (jnp.asarray(part, jnp.float32) for part in gaussian.modes)
    means = jnp.asarray(gaussian.means, jnp.float32)

    def denoise(x_t, t, labels):
        alpha, sigma = path.alpha(t), path.sigma(t)
        away = (x_t.reshape(len(x_t), -1) - alpha * means[labels]) @ directions
        modes = away / (alpha**2 * variances + sigma**2)[None]
        x0 = means[labels] + (alpha * variances[None] * modes) @ directions.T
        eps = sigma * modes @ directions.T
        x0, eps = x0.reshape(x_t.shape), eps.reshape(x_t.shape)
        return paths.estimate(path, prediction, paths.target(path, prediction, x0, eps, t), x_t, t)

    return denoise


@functools.cache
def _jitted(name: str, prediction: str, num_probes: int) -> Any:
    path = paths.usable(PATHS[name], prediction)

    @jax.jit
    def run(images, times, key):
        probes = None
        if num_probes:
            keys = prng.keys(key, jnp.arange(NUM))
            probes = likelihood.draw_probes(keys, num_probes, images.shape[1:])
        denoise = posterior(path, prediction)
        labels = jnp.asarray(LABELS)
        return likelihood.log_density(
            path, lambda x_t, t: denoise(x_t, t, labels), images, times, probes
        )

    return run


def computed(
    prediction: str,
    steps: int,
    t_min: float | None = None,
    name: str = "flow",
    num_probes: int = 0,
) -> np.ndarray:
    """Log densities `[K, NUM]` of IMAGES; the exact divergence without probes."""
    times = likelihood.time_grid(paths.usable(PATHS[name], prediction), steps, t_min)
    if not num_probes:  # intervals of no length change nothing, and nothing is compiled again
        times = np.pad(times, (0, 100 - steps), mode="edge")
    images = GAUSSIAN.images(jnp.asarray(IMAGES, jnp.float32))
    run = _jitted(name, prediction, num_probes)
    return np.asarray(run(images, jnp.asarray(times), prng.key(0, "test")), np.float64)


def closed_form(smoothing: float = 0.0) -> np.ndarray:
    """Log densities of IMAGES, with Gaussian noise of this standard deviation in the data."""
    covariance = GAUSSIAN.covariance + smoothing**2 * np.eye(PIXELS)
    return np.array(
        [
            multivariate_normal(GAUSSIAN.means[label], covariance).logpdf(image)
            for label, image in zip(LABELS, IMAGES, strict=True)
        ]
    )


def factors(path: paths.Path, t: float) -> tuple[float, float]:
    """alpha and sigma at a time."""
    time = jnp.float32(t)
    return float(path.alpha(time)), float(path.sigma(time))


def from_prior(path: paths.Path, t_min: float) -> np.ndarray:
    """Log densities of images that start as `N(0, sigma^2)` at the last usable time.

    Along each mode the distance from the mean over the standard deviation stays as it is. Where
    alpha is not yet 0, this is not quite the density of the data.
    """
    (first, low), (last, high) = (factors(path, t) for t in (t_min, path.interval[1]))
    variances, directions = GAUSSIAN.modes
    means = GAUSSIAN.means[LABELS] @ directions
    growth = np.sqrt((last**2 * variances + high**2) / (first**2 * variances + low**2))
    noise = last * means + growth * first * (IMAGES @ directions - means)
    normal = -0.5 * np.sum((noise / high) ** 2 + np.log(2 * np.pi * high**2), axis=1)
    return normal + np.sum(np.log(growth)) + PIXELS * np.log(first)


# Every path and every prediction; `test_paths.py` has each pair of them.
PAIRS = [
    ("flow", "velocity"),
    ("flow", "x0"),
    ("linear", "score"),
    ("cosine", "v"),
    ("linear table", "eps"),
    ("cosine table", "x0"),
    ("edm", "x0"),
]
each_pair = pytest.mark.parametrize(("name", "prediction"), PAIRS)


@each_pair
def test_gaussian_data_have_the_closed_form_density(name, prediction):
    """With 100 steps, densities of -24 to -13 nats are wrong by 0.0005 at most."""
    path = paths.usable(PATHS[name], prediction)
    found = computed(prediction, 100, name=name)
    assert found.shape == (1, NUM)
    t_min = max(1e-3, path.interval[0])
    np.testing.assert_allclose(found[0], from_prior(path, t_min), atol=7e-4)
    (alpha, sigma), (last, high) = (factors(path, t) for t in (t_min, path.interval[1]))
    # The prior leaves out what is left of an image at the last time.
    left_out = last / high * 3 * math.sqrt(PIXELS)
    np.testing.assert_allclose(found[0], closed_form(sigma / alpha), atol=7e-4 + left_out)


@pytest.mark.parametrize(
    ("prediction", "t_min"),
    [("velocity", 0.0), *itertools.product(("velocity", "x0"), (1e-4, 0.1, 0.5))],
)
def test_gaussian_data_have_the_closed_form_density_from_any_time(prediction, t_min):
    found = computed(prediction, 100, t_min)
    np.testing.assert_allclose(found[0], closed_form(t_min / (1 - t_min)), atol=7e-4)


@pytest.mark.parametrize("prediction", ["velocity", "x0"])
def test_defaults_give_the_density_of_the_data_themselves(prediction):
    default = likelihood.Integration()
    found = computed(prediction, default.steps, default.t_min)
    np.testing.assert_allclose(found[0], closed_form(), atol=7e-4)


@each_pair
def test_order_of_convergence_is_two(name, prediction):
    steps, path = np.array([8, 16, 32]), paths.usable(PATHS[name], prediction)
    t_min = max(1e-3, path.interval[0])
    exact = from_prior(path, t_min)
    errors = [np.abs(computed(prediction, int(n), t_min, name)[0] - exact) for n in steps]
    slope, _ = np.polyfit(np.log(steps), np.log(np.mean(errors, axis=1)), 1)
    assert -slope == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("variance", [1e-4, 1e-3, 1e-2, 1.0, 10.0, 100.0, 1e3])
def test_time_grid_serves_narrow_and_wide_data(variance):
    """One pixel at its standard deviation.

    Even times are wrong by 0.06 for the narrowest, their squares by 0.015 for the widest.
    """
    one = dataclasses.replace(
        GAUSSIAN, side=1, means=np.zeros((1, 1)), covariance=np.array([[variance]])
    )

    exact = posterior(FLOW, "velocity", one)

    def denoise(x_t, t):
        return exact(x_t, t, jnp.zeros(1, int))

    times = jnp.asarray(likelihood.time_grid(FLOW, 100, 1e-3))
    image = jnp.full((1, 1, 1, 1), math.sqrt(variance), jnp.float32)
    found = likelihood.log_density(FLOW, denoise, image, times, None)
    expected = multivariate_normal(0, variance + (1e-3 / 0.999) ** 2).logpdf(math.sqrt(variance))
    np.testing.assert_allclose(found, expected, atol=6e-4)


@pytest.mark.parametrize("steps", [1, 2, 100])
@pytest.mark.parametrize("t_min", [0.0, 1e-3, 0.3])
def test_time_grid_rises_from_t_min_to_noise(steps, t_min):
    grid = likelihood.time_grid(FLOW, steps, t_min)
    assert grid.dtype == np.float32
    assert grid.shape == (steps + 1,)
    np.testing.assert_array_equal(grid[[0, -1]], np.array([t_min, 1], np.float32))
    assert (np.diff(grid) > 0).all()


def test_hutchinson_is_unbiased_and_has_the_variance_of_its_closed_form():
    """The flow is linear, `J(t)` symmetric: the estimate is `p . A p` with A the integral of J."""
    num_probes, steps = 2000, 30
    rows = computed("x0", steps, 1e-3, num_probes=num_probes)
    assert rows.shape == (num_probes, NUM)
    error = rows.std(axis=0, ddof=1) / math.sqrt(num_probes)
    assert np.abs((rows.mean(axis=0) - computed("x0", steps, 1e-3)[0]) / error).max() < 4
    variances, directions = GAUSSIAN.modes
    end = 0.5 * np.log(0.999**2 * variances + 1e-6)  # minus log of the growth of each mode
    integral = (directions * -end) @ directions.T
    off_diagonal = np.sum(np.square(integral)) - np.sum(np.square(np.diag(integral)))
    np.testing.assert_allclose(rows.var(axis=0, ddof=1), 2 * off_diagonal, rtol=0.15)


def test_probes_are_functions_of_their_key_and_number_alone():
    @functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
    def drawn(first: int, last: int, num_probes: int, shape: tuple[int, ...]):
        keys = prng.keys(prng.key(0, "test"), jnp.arange(first, last))
        return likelihood.draw_probes(keys, num_probes, shape)

    probes = np.asarray(drawn(0, 5, 400, (8, 8, 1)))
    assert probes.shape == (400, 5, 8, 8, 1)
    assert probes.dtype == np.int8
    assert set(probes.ravel().tolist()) == {-1, 1}
    np.testing.assert_array_equal(drawn(1, 3, 2, (8, 8, 1)), probes[:2, 1:3])
    many = probes.reshape(2000, 64)
    covariance = many.T.astype(float) @ many / 2000
    assert np.abs(covariance - np.eye(64)).max() < 5 / math.sqrt(2000)
    assert np.abs(many.mean(axis=0)).max() < 4.5 / math.sqrt(2000)


# Networks: the pure function and the method of a generator.

SHAPE = (16, 16, 1)
LINEAR = Scaling("linear", 3.0, 4.0)
ASINH = Scaling("asinh", 0.4, 0.8, 0.5)
SQRT = Scaling("sqrt", 1.5, 1.25)
FAST: Any = {"steps": 2, "num_probes": 4}  # the same for most tests, so that it is compiled once
NETWORKS = [("dit", "x0"), pytest.param("unet", "velocity", marks=pytest.mark.nightly)]
FLUX = np.random.default_rng(0).gamma(2.0, 1.0, (7, *SHAPE)).astype(np.float32)


def make_generator(
    name: str = "unet",
    prediction: str = "velocity",
    scaling: Scaling = LINEAR,
    label_drop: float = 0.1,
    batch_size: int = 3,
    preconditioning: str = "none",
    path: Any = None,
) -> LensGenerator:
    """A tiny network of random weights, small enough that it does not fold space."""
    config = tiny_config(
        model={"name": name, "prediction": prediction, "preconditioning": preconditioning},
        path=path or {},
        loss={"label_drop": label_drop, "space": "x0"},
        sample={"batch_size": batch_size, "guidance": 2.0 if label_drop else 1.0},
    )
    params = jax.eval_shape(make_init_fn(build_model(config.model), SHAPE), jax.random.key(0))
    dataset = {
        "name": "test/set",
        "fingerprint": "0",
        "class_names": CLASS_NAMES,
        "image_shape": SHAPE,
        "flux_unit": "counts",
        "pixel_scale_arcsec": 0.1,
        "scaling": scaling.to_dict(),
    }
    return LensGenerator(config, dataset, random_like(params, scale=0.15), 12, "main")


@pytest.fixture(scope="module")
def generator() -> LensGenerator:
    return make_generator()


def by_hand(generator: LensGenerator, images, labels, times) -> np.ndarray:
    """Log densities `[N]` in the model's range, with the whole Jacobian at each middle."""
    config = generator.config
    apply_fn = make_apply_fn(build_model(config.model))

    def velocity(flat, t, label):
        x = flat.reshape(1, *SHAPE)
        output = apply_fn(generator.params, x, t[None], {"label": label[None]})
        if config.model.prediction == "x0":
            output = (x - output) / t
        return output.ravel(), output.ravel()

    both = jax.jit(jax.vmap(jax.jacrev(velocity, has_aux=True), (0, None, 0)))
    labels, times = jnp.asarray(labels), np.asarray(times)
    x, integral = (1 - times[0]) * images.reshape(len(images), -1), 0.0
    for t, t_next in itertools.pairwise(times):
        middle, length = (t + t_next) / 2, t_next - t
        x_middle = x + length / 2 * np.asarray(both(x, t, labels)[1])
        jacobians, slope = map(np.asarray, both(x_middle, middle, labels))
        integral += length * np.trace(jacobians.astype(np.float64), axis1=1, axis2=2)
        x = x + length * slope
    normal = multivariate_normal(np.zeros(256), np.eye(256)).logpdf(x)
    return normal + integral + 256 * math.log(1 - times[0])


@pytest.mark.parametrize(("name", "prediction"), NETWORKS)
def test_networks_agree_with_their_whole_jacobians(name, prediction):
    generator = make_generator(name, prediction, ASINH)
    images, labels, t_min = FLUX[:3], [2, 3, 0], 0.05
    exact = generator.log_prob(images, labels, steps=2, trace="exact", t_min=t_min)
    in_model = ((np.arcsinh(images / 0.5) - 0.4) / 0.8).astype(np.float32)
    expected = by_hand(generator, in_model, labels, likelihood.time_grid(FLOW, 2, t_min))
    expected += likelihood.log_volume(ASINH, images)
    np.testing.assert_allclose(exact.log_prob, expected, rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(exact.standard_error, 0)


@pytest.mark.nightly
def test_probes_are_unbiased_and_their_standard_error_is_that_of_the_mean(generator):
    """Over seeds the means scatter as the errors say: 84 values know that to 12 %."""
    results = [generator.log_prob(FLUX, seed=seed, **FAST) for seed in range(12)]
    values = np.array([result.log_prob for result in results])
    errors = np.array([result.standard_error for result in results])
    of_mean = np.sqrt(np.mean(np.square(errors), axis=0))
    scatter = np.mean(values.var(axis=0, ddof=1) / of_mean**2)
    assert math.sqrt(scatter) == pytest.approx(1, abs=0.35)
    exact = generator.log_prob(FLUX, trace="exact", **FAST)
    np.testing.assert_array_equal(exact.standard_error, 0)
    assert np.abs((values.mean(axis=0) - exact.log_prob) / of_mean).max() < 4 / math.sqrt(12)
    one = generator.log_prob(FLUX[:2], steps=2)
    assert np.isnan(one.standard_error).all()


def test_result_has_float64_nats_and_bits(generator):
    result = generator.log_prob(FLUX, **FAST)
    for field in (result.log_prob, result.bits_per_dim, result.standard_error):
        assert field.dtype == np.float64
        assert field.shape == (7,)
        assert np.isfinite(field).all()
    np.testing.assert_allclose(result.bits_per_dim, -result.log_prob / (256 * math.log(2)))
    assert result.note == ""


@pytest.mark.parametrize("trace", likelihood.TRACES)
@pytest.mark.parametrize("num", [1, 3, 4])
def test_image_i_does_not_depend_on_the_others_bit_for_bit(generator, trace, num):
    """Three images are computed at once, so that the numbers end within, at and after a chunk."""
    alone = generator.log_prob(FLUX[:num], trace=trace, **FAST)
    images = FLUX.copy()
    images[num:] = images[num:][::-1] + 1
    beside = generator.log_prob(images, trace=trace, **FAST)
    for one, other in zip(alone[:3], beside[:3], strict=True):
        np.testing.assert_array_equal(one, other[:num])


@pytest.mark.nightly
def test_another_chunk_shape_agrees_to_rounding(generator):
    other = make_generator(batch_size=5)
    one, again = (each.log_prob(FLUX, **FAST, seed=3) for each in (generator, other))
    np.testing.assert_allclose(one.log_prob, again.log_prob, rtol=1e-5)


@pytest.mark.parametrize(
    ("label", "same_as"),
    [
        (None, [3, 3, 3, 3]),
        (1, [1, 1, 1, 1]),
        ("no_sub", [2, 2, 2, 2]),
        (np.array([0, 1, 2, 3], np.uint8), [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_a_label_is_an_index_a_name_an_array_or_none_for_unconditional(generator, label, same_as):
    found = generator.log_prob(FLUX[:4], label, **FAST)
    np.testing.assert_array_equal(
        found.log_prob, generator.log_prob(FLUX[:4], same_as, **FAST).log_prob
    )
    others = generator.log_prob(FLUX[:4], np.roll(range(4), 1) if same_as[0] == 0 else 0, **FAST)
    assert (found.log_prob != others.log_prob).all()


def test_guidance_of_the_configuration_is_not_used():
    plain, guided = (make_generator() for _ in range(2))
    sample = dataclasses.replace(guided.config.sample, guidance=7.0)
    guided.config = dataclasses.replace(guided.config, sample=sample)
    one, other = (each.log_prob(FLUX[:2], "cdm", **FAST) for each in (plain, guided))
    np.testing.assert_array_equal(one.log_prob, other.log_prob)


@pytest.mark.parametrize("scaling", [LINEAR, ASINH, SQRT], ids=lambda scaling: scaling.kind)
def test_volume_is_the_sum_of_the_derivatives_of_the_scaling(scaling):
    slopes = jax.vmap(jax.grad(scaling.to_model))(jnp.asarray(FLUX.ravel())).reshape(FLUX.shape)
    expected = np.sum(np.log(np.asarray(slopes, np.float64)), axis=(1, 2, 3))
    np.testing.assert_allclose(likelihood.log_volume(scaling, FLUX), expected, rtol=1e-5)


@pytest.mark.parametrize("scaling", [LINEAR, ASINH, SQRT], ids=lambda scaling: scaling.kind)
def test_a_density_in_flux_integrates_to_one(scaling):
    """A normal pixel in the model's range; its square root is negative with probability 0.115."""
    if scaling.kind == "sqrt":
        flux = np.square(np.linspace(1e-4, 10, 200_001))  # dense where the density has its pole
    else:
        flux = np.linspace(-60, 90, 200_001)
    model = np.asarray(scaling.to_model(jnp.asarray(flux, jnp.float32)), np.float64)
    volume = likelihood.log_volume(scaling, flux[:, None, None, None])
    density = np.exp(-0.5 * model**2 + volume) / math.sqrt(2 * math.pi)
    lost = 0.5 * math.erfc(1.2 / math.sqrt(2)) if scaling.kind == "sqrt" else 0
    assert np.trapezoid(density, flux) == pytest.approx(1 - lost, abs=2e-3)


@pytest.mark.parametrize("scaling", [LINEAR, ASINH, SQRT], ids=lambda scaling: scaling.kind)
def test_space_is_flux_or_the_range_of_the_model(scaling):
    generator = make_generator(scaling=scaling)
    in_flux, in_model = (
        generator.log_prob(FLUX[:3], **FAST, space=space) for space in ("flux", "model")
    )
    difference = in_flux.log_prob - in_model.log_prob
    np.testing.assert_allclose(difference, likelihood.log_volume(scaling, FLUX[:3]), rtol=1e-9)
    np.testing.assert_array_equal(generator.log_prob(FLUX[:3], **FAST).log_prob, in_flux.log_prob)


def test_square_root_takes_dark_pixels_in_the_range_of_the_model_alone():
    generator = make_generator(scaling=SQRT)
    images = FLUX[:2].copy()
    images[1, 3, 4] = 0
    with pytest.raises(RequestError, match=r"got a pixel of 0; allowed .* space='model'"):
        generator.log_prob(images)
    assert np.isfinite(generator.log_prob(images, **FAST, space="model").log_prob).all()
    images[1, 3, 4] = -1
    for space in likelihood.SPACES:
        with pytest.raises(RequestError, match=r"got a pixel of -1; allowed with data.scaling"):
            generator.log_prob(images, space=space)
    counts = np.zeros((2, *SHAPE), np.int32)  # the noise lifts every pixel above 0
    assert np.isfinite(generator.log_prob(counts, **FAST).log_prob).all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, np.float64])
def test_integer_images_get_uniform_noise_and_a_note(generator, dtype):
    counts = np.floor(FLUX * 5).astype(dtype)
    flux, note = likelihood.dequantise(counts, 4)
    assert flux.dtype == np.float32
    assert note.startswith("7 of 7 images hold integers: uniform noise in [0, 1) was added")
    assert "bits_per_dim" in note
    noise = flux - counts.astype(np.float32)
    assert noise.min() >= 0
    assert noise.max() < 1
    assert abs(noise.mean() - 0.5) < 4.5 / math.sqrt(12 * noise.size)
    assert noise.var() == pytest.approx(1 / 12, rel=0.1)
    assert len({image.tobytes() for image in noise}) == 7

    result = generator.log_prob(counts, **FAST, seed=4)
    assert result.note == note
    np.testing.assert_array_equal(
        result.log_prob, generator.log_prob(flux, **FAST, seed=4).log_prob
    )
    first = generator.log_prob(counts[:2], **FAST, seed=4)
    np.testing.assert_array_equal(result.log_prob[:2], first.log_prob)
    other = generator.log_prob(counts[:2], **FAST, seed=5)
    assert (first.log_prob != other.log_prob).all()


def test_only_integer_images_get_noise():
    images = FLUX.copy()
    images[2] = np.floor(images[2] * 5)
    images[4] = 1.0  # one number alone says nothing
    flux, note = likelihood.dequantise(images, 0)
    changed = np.any(flux != images, axis=(1, 2, 3))
    assert changed.tolist() == [False, False, True, False, False, False, False]
    assert note.startswith("1 of 7 images hold integers")
    _, note = likelihood.dequantise(np.ones((2, *SHAPE), int), 0)
    assert note.startswith("2 of 2 images")


NOT_FINITE = np.where(np.arange(7).reshape(-1, 1, 1, 1) == 5, np.inf, FLUX)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"images": FLUX[..., 0]}, r"images: got shape \(7, 16, 16\); allowed: \[N, 16, 16, 1\]"),
        ({"images": FLUX[0]}, r"images: got shape \(16, 16, 1\)"),
        ({"images": FLUX[:, :8]}, r"images: got shape \(7, 8, 16, 1\)"),
        ({"images": FLUX[:0]}, "images: got 0 images; allowed: at least 1"),
        ({"images": FLUX > 1}, "images: got bool; allowed: real numbers"),
        ({"images": FLUX.astype(complex)}, "images: got complex128"),
        (
            {"images": NOT_FINITE},
            "1 of 7 have pixels .*, the first is number 5",
        ),
        ({"images": FLUX * np.nan}, "7 of 7 have pixels that are NaN"),
        ({"images": FLUX.astype(float) * 1e39}, "infinite in float32, the first is number 0"),
        ({"label": "halo"}, "label: got 'halo'; allowed: axion, cdm, no_sub"),
        ({"label": [0, 1]}, r"label: got shape \(2,\); allowed: \(7,\)"),
        ({"label": 4}, "label: got 4 to 4; allowed: 0 to 3"),
        ({"seed": -1}, "seed: got -1; allowed: .* 0 to 2147483647"),
        ({"seed": 1.5}, "seed: got 1.5"),
        ({"steps": 0}, "steps: got 0; allowed: an integer from 1 to 1000000"),
        ({"steps": True}, "steps: got True"),
        ({"num_probes": 0}, "num_probes: got 0; allowed: an integer from 1 to 10000"),
        ({"num_probes": 2.0}, "num_probes: got 2.0"),
        ({"trace": "skilling"}, "trace: got 'skilling'; allowed: hutchinson, exact"),
        ({"space": "counts"}, "space: got 'counts'; allowed: flux, model"),
        ({"t_min": -0.1}, "t_min: got -0.1; allowed: a time of at least 0 and below 1"),
        ({"t_min": 1.0}, "t_min: got 1.0"),
        ({"t_min": math.nan}, "t_min: got nan"),
        ({"t_min": "0"}, "t_min: got '0'"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_has_no_density_is_refused(generator, request_, words):
    with pytest.raises(RequestError, match=words):
        generator.log_prob(**{"images": FLUX} | request_)


def test_time_zero_takes_a_velocity_prediction(generator):
    assert np.isfinite(generator.log_prob(FLUX[:2], steps=2, t_min=0).log_prob).all()
    with pytest.raises(RequestError, match=r"t_min: got 0; allowed: .* 1e-3, .* predicts x0 "):
        make_generator(prediction="x0").log_prob(FLUX, t_min=0)


@pytest.mark.parametrize(
    ("prediction", "preconditioning", "path", "first"),
    [
        pytest.param(
            *("v", "none", {"name": "vp", "table_steps": 50}, 0.02), marks=pytest.mark.nightly
        ),
        ("x0", "edm", {"name": "edm"}, 1e-3),
    ],
    ids=["table of 50", "edm"],
)
def test_other_paths_start_at_their_first_usable_time(prediction, preconditioning, path, first):
    generator = make_generator(
        prediction=prediction, preconditioning=preconditioning, path=path, batch_size=2
    )
    default = generator.log_prob(FLUX[:2], "cdm", steps=2)
    assert np.isfinite(default.log_prob).all()
    explicit = generator.log_prob(FLUX[:2], "cdm", steps=2, t_min=first)
    np.testing.assert_array_equal(default.log_prob, explicit.log_prob)
    words = rf"t_min: got 0\.0005; allowed: a time of at least {first:g} and below 1"
    with pytest.raises(RequestError, match=words):
        generator.log_prob(FLUX[:2], "cdm", t_min=0.0005)


def test_no_unconditional_density_where_no_label_was_dropped():
    generator = make_generator(label_drop=0.0)
    with pytest.raises(RequestError, match="label: got None; allowed: a class, since with loss"):
        generator.log_prob(FLUX)
    assert np.isfinite(generator.log_prob(FLUX[:2], "cdm", **FAST).log_prob).all()
