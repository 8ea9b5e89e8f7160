"""The short evaluation beside each sample grid."""

import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import prng
from lensjax.data.simulator import simulate
from lensjax.data.surveys import SURVEYS
from lensjax.training.light_scores import light_scores

NAMES = ("cdm", "no_sub")


def real(class_name, seed=0):
    keys = prng.keys(prng.key(seed, "test"), jnp.arange(8))
    return np.asarray(simulate(keys, SURVEYS["model_ii"], class_name)[0])[..., None]


REAL = [real(name) for name in NAMES]


def test_fresh_images_of_the_simulator_score_as_they_should():
    scores = light_scores([real(name, seed=1) for name in NAMES], REAL, NAMES, "deeplense/model_ii")
    assert scores["score/no_sub_ratio"] < 1e-5
    assert 0.03 < scores["score/cdm_ratio"] < 0.15
    assert scores["score/no_sub_negative"] == 0
    assert scores["score/no_sub_flux"] == pytest.approx(1, abs=0.3)


def test_known_faults_show():
    faulty = [2 * REAL[0], REAL[1] - 0.01]
    scores = light_scores(faulty, REAL, NAMES, "deeplense/model_ii")
    assert scores["score/cdm_flux"] == pytest.approx(2)
    assert scores["score/cdm_peak"] == pytest.approx(2)
    assert scores["score/no_sub_negative"] > 0.5
    assert scores["score/no_sub_ratio"] > 0.02


@pytest.mark.parametrize("data", ["deeplense/folder", "deeplense/model_ii_noisy"])
def test_sets_without_an_exact_model_have_no_ratio(data):
    scores = light_scores(REAL, REAL, NAMES, data)
    assert set(scores) == {f"score/{n}_{q}" for n in NAMES for q in ("flux", "peak", "negative")}
    assert scores["score/cdm_flux"] == 1


def test_images_that_cannot_be_fitted_are_left_out():
    broken = [np.full_like(REAL[0], np.nan), REAL[1][:, :32, :32]]
    scores = light_scores(broken, [REAL[0], REAL[1][:, :32, :32]], NAMES, "deeplense/model_ii")
    assert not any(name.endswith("_ratio") for name in scores)
    assert np.isnan(scores["score/cdm_flux"])


def test_a_class_without_real_images_has_no_scores():
    empty = np.empty((0, 64, 64, 1), np.float32)
    assert light_scores([REAL[0]], [empty], ("cdm",), "deeplense/model_ii") == {}
