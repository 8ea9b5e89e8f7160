"""The instrument's noise that training puts on noise-free images, against its closed form."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lensjax import prng
from lensjax.data.augmentation import make_observe_fn
from lensjax.data.surveys import SURVEYS

pytestmark = pytest.mark.usefixtures("quick_compiles")
MANY = 2_000
RAMP = np.linspace(0.0, 4.0, 12, dtype=np.float32).reshape(3, 4, 1)


@functools.partial(jax.jit, static_argnums=0)
def observe(model: str, image: Any, share: Any, magnitudes: Any) -> Any:
    keys = prng.keys(prng.key(0, "augmentation", 0), jnp.arange(MANY))
    one = make_observe_fn(SURVEYS[model], share, magnitudes)
    return jax.vmap(one, in_axes=(0, None))(keys, image)


def observed(share, magnitudes, image=RAMP, model="model_ii") -> np.ndarray:
    """Many observations of one image, `[MANY, H, W, 1]`."""
    found = observe(model, image, share, magnitudes)
    assert found.dtype == np.float32
    assert found.shape == (MANY, *image.shape)
    return np.asarray(found, np.float64)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_share_of_the_images_is_noisy_and_the_others_are_as_they_were(share):
    found = observed(share, (20.0, 23.0))
    changed = np.any(found != RAMP, axis=(1, 2, 3))
    assert np.all(np.all(found != RAMP, axis=(1, 2, 3)) == changed)
    assert changed.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / MANY))


@pytest.mark.parametrize(
    ("model", "magnitude"), [("model_ii", 20.0), ("model_ii", 22.5), ("model_iii", 21.0)]
)
def test_noise_of_a_magnitude_is_the_closed_form(model, magnitude):
    """Gaussian; `sigma^2 = f / t + rms^2` for the flux f of a fainter source."""
    survey = SURVEYS[model]
    flux = RAMP.astype(np.float64) * 100 ** (-(magnitude - 20) / 5)
    sigma = np.sqrt(flux / survey.exposure_time_s + survey.background_rms**2)
    normal = (observed(1.0, (magnitude, magnitude), model=model) - flux) / sigma
    assert scipy.stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    pixels = normal.reshape(MANY, -1)
    np.testing.assert_allclose(pixels.mean(axis=0), 0, atol=4 / np.sqrt(MANY))
    np.testing.assert_allclose(pixels.var(axis=0), 1, atol=4 * np.sqrt(2 / MANY))
    correlation = np.corrcoef(pixels.T) - np.eye(12)
    assert np.max(np.abs(correlation)) < 4.5 / np.sqrt(MANY)


def test_magnitudes_are_uniform_between_the_two():
    image = np.full((16, 16, 1), 1e4, np.float32)  # so bright that its mean tells the magnitude
    found = observed(1.0, (20.5, 22.0), image)
    magnitudes = 20 - 2.5 * np.log10(found.mean(axis=(1, 2, 3)) / 1e4)
    assert scipy.stats.kstest((magnitudes - 20.5) / 1.5, "uniform").pvalue > 1e-3


def test_choice_magnitude_and_noise_are_independent():
    """With the same key, another share changes which images are noisy and nothing else."""
    image = np.full((1, 2, 1), 1e4, np.float32)
    everything, some = (observed(share, (20.0, 23.0), image) for share in (1.0, 0.5))
    chosen = np.any(some != 1e4, axis=(1, 2, 3))
    np.testing.assert_array_equal(some[chosen], everything[chosen])
    drawn = [
        chosen,
        everything.mean(axis=(1, 2, 3)),
        everything[:, 0, 0, 0] - everything[:, 0, 1, 0],
    ]
    correlation = np.corrcoef(np.stack(drawn)) - np.eye(3)
    assert np.max(np.abs(correlation)) < 4.5 / np.sqrt(MANY)
