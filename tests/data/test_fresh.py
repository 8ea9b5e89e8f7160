"""Fresh lenses: image n is a function of seed and n, from the priors of the set, never twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from pipeline_support import batch_at, single_device
from run_support import (
    MINI_SET,
    SIDE,
    captured_log,
    metrics_of,
    signal_at,
    states_differ,
    tiny_config,
    tiny_split,
)

from lensjax.config import from_config_dict, to_dict
from lensjax.data import fresh
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.deeplense import simulate_chunks
from lensjax.data.fresh import FreshFeed, draw_fresh
from lensjax.data.simulator import CLASS_NAMES
from lensjax.errors import ConfigError
from lensjax.metrics.lensing import fit_smooth
from lensjax.run import writers
from lensjax.training import generator_watch
from lensjax.training.loop import train

SET = "deeplense/model_ii"
SOURCE = SIMULATED_SETS[SET]
draw = jax.jit(draw_fresh, static_argnums=0)


def drawn(*numbers, seed=0, source=SOURCE):
    images, labels = draw(source, seed, jnp.asarray(numbers, jnp.uint32))
    return np.asarray(images), np.asarray(labels)


def test_an_image_is_a_function_of_seed_and_number_alone():
    images, labels = drawn(0, 1, 2, 3, 70, 5)
    again, same = drawn(70, 3, 2**32 - 1, 4, 4, 4)  # the last number that there is
    np.testing.assert_allclose(again[:2], images[[4, 3]], atol=1e-7)
    assert same[:2].tolist() == labels[[4, 3]].tolist()
    assert np.isfinite(again).all()
    others, _ = drawn(0, 1, 2, 3, 70, 5, seed=1)
    assert np.abs(others - images).max(axis=(1, 2, 3)).min() > 0.01


def test_classes_are_even_and_do_not_go_with_the_place_in_a_batch(monkeypatch):
    """Stratified times go with the place: a class would never be seen at most of them."""
    monkeypatch.setattr(fresh, "simulate", lambda keys, *_, **__: (jnp.zeros((1, 1, 1)), 0, 0))
    _, labels = draw_fresh(SOURCE, 0, jnp.arange(24_000, dtype=jnp.uint32))
    table = np.stack([np.bincount(place, minlength=3) for place in labels.reshape(-1, 24).T])
    assert scipy.stats.chisquare(table.sum(axis=0)).pvalue > 1e-3
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_batches_go_on_where_the_last_one_ended():
    feeds = {size: FreshFeed(SET, 7, single_device(size)) for size in (3, 6)}
    small = [batch_at(feeds[3], 3, step) for step in (2, 3)]
    large = batch_at(feeds[6], 6, 1)
    for leaf in ("image", "label"):
        parts = np.concatenate([np.asarray(getattr(batch, leaf)) for batch in small])
        np.testing.assert_allclose(parts, getattr(large, leaf), atol=1e-7)
    assert feeds[3].arguments(5) == ()


def test_sources_are_uniform_and_no_image_is_in_the_set():
    images, labels = drawn(*range(240))
    assert len(np.unique(images.reshape(240, -1), axis=0)) == 240
    fit = fit_smooth(images[labels == CLASS_NAMES.index("no_sub")][..., 0], SOURCE.survey)
    assert np.median(fit.ratio) < 1e-5
    for position in (fit.source_x, fit.source_y):
        assert scipy.stats.kstest(position, scipy.stats.uniform(-0.35, 0.7).cdf).pvalue > 1e-3
    for split in ("train", "test"):
        (_, chunk), *_ = simulate_chunks(SOURCE, split, range(1))
        known = np.concatenate([part for part, _ in chunk])[..., 0].reshape(-1, 1, 4096)
        distance = np.abs(known - images.reshape(1, 240, 4096)).max(axis=-1)
        assert distance.min() > 1e-4


def test_noise_and_conserved_mass_are_those_of_the_set():
    plain, labels = drawn(*range(6))
    noisy, _ = drawn(*range(6), source=SIMULATED_SETS["deeplense/model_ii_noisy"])
    rms = (noisy - plain)[:, :4].std()
    assert rms == pytest.approx(SOURCE.survey.background_rms, rel=0.2)
    conserved, _ = drawn(*range(6), source=SIMULATED_SETS["deeplense/model_ii_conserved"])
    different = [np.abs(a - b).max() > 1e-3 for a, b in zip(conserved, plain, strict=True)]
    assert different == [CLASS_NAMES[label] != "no_sub" for label in labels]
    assert len(set(labels)) > 1


@pytest.mark.parametrize(
    ("section", "fields", "words"),
    [
        ("data", {"name": "deeplense/folder", "folder": "x"}, "False for deeplense/folder"),
        ("data", {"exclude_source_disc": (0.1, 0.1, 0.1)}, "False with data.exclude_source_disc"),
    ],
)
def test_where_nothing_fresh_can_be_drawn_it_is_refused(section, fields, words):
    values = to_dict(tiny_config())
    values["data"]["fresh"] = True
    values[section] |= fields
    with pytest.raises(ConfigError, match=f"data.fresh: got True; allowed: {words}"):
        from_config_dict(values)


def test_a_classifier_has_no_share_of_labels():
    values = to_dict(tiny_config(model={"name": "cnn"}))
    values["data"]["fresh"] = True
    values["classify"]["label_share"] = 0.5
    with pytest.raises(ConfigError, match=r"classify\.label_share: got 0\.5; .*data\.fresh"):
        from_config_dict(values)


@pytest.mark.usefixtures("quick_compiles")
def test_a_run_in_parts_is_the_run_in_one(tmp_path, monkeypatch):
    survey = dataclasses.replace(SOURCE.survey, num_pixels=SIDE)
    small = dataclasses.replace(SIMULATED_SETS[MINI_SET], survey=survey)
    monkeypatch.setitem(fresh.SIMULATED_SETS, MINI_SET, small)
    blank = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(generator_watch.Samples, "draw", lambda self, params: (blank, {}))
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)

    def config(num_steps, **data):
        return tiny_config(data={"fresh": True, **data}, train={"num_steps": num_steps})

    with captured_log() as log:
        whole = train(config(12), tmp_path / "whole", tiny_split())
    assert "data.fresh: the lenses of each step are simulated in it" in log
    assert not any(line.startswith("data.placement") for line in log)
    losses = [line["loss"] for line in metrics_of(tmp_path / "whole")]
    of_the_set = train(tiny_config(train={"num_steps": 12}), tmp_path / "set", tiny_split())
    assert states_differ(of_the_set, whole)
    with monkeypatch.context() as patch:
        patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
        signal_at(5)
        train(config(12), tmp_path / "parts", tiny_split())
    parts = train(config(12), tmp_path / "parts", tiny_split())
    assert states_differ(parts, whole) == []
    assert [line["loss"] for line in metrics_of(tmp_path / "parts")] == losses
