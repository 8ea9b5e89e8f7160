"""Batches as a function of the step, against a plain list of permutations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline_support import all_examples, permutation, single_device, split_of, steps_of, whole

from lensjax.data.augmentation import make_augment_fn
from lensjax.data.feed import DeviceFeed
from lensjax.data.pipeline import (
    batch_indices,
    epoch_of,
    epoch_order,
    make_batch_fn,
    pixel_weights,
    to_batch,
)
from lensjax.data.scaling import Scaling
from lensjax.interfaces import Batch

SIZES = (7, 12)
CASES = [(n, batch) for n in SIZES for batch in (1, 2, 3, 5, n - 1, n)]


@functools.partial(jax.jit, static_argnames="batch_size")
def indices_of(order, step, batch_size):
    return batch_indices(order, step, whole(batch_size))


@pytest.mark.parametrize(("num", "batch_size"), CASES)
def test_batches_are_the_permutations_cut_in_pieces(num, batch_size):
    stream = all_examples(3, num)
    for step in steps_of(num, batch_size):
        epoch = step * batch_size // num
        assert epoch_of(step, batch_size, num) == epoch
        order = epoch_order(3, epoch, batch_size, num)
        assert 0 <= int(order.first_place) < batch_size
        found = indices_of(order, jnp.int32(step), batch_size=batch_size)
        expected = stream[step * batch_size : (step + 1) * batch_size]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("num", SIZES)
def test_an_epoch_has_each_example_once_and_an_order_of_its_own(num):
    orders = [tuple(permutation(seed, epoch, num)) for seed in (0, 1) for epoch in range(3)]
    assert all(sorted(order) == list(range(num)) for order in orders)
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize(("num", "batch_size"), [(1000, 160), (90_000, 160), (1000, 1000)])
def test_late_steps_do_not_overflow(num, batch_size):
    step = 2**31 - 2
    epoch = epoch_of(step, batch_size, num)
    place = step * batch_size - epoch * num
    assert 0 <= place < num
    order = epoch_order(0, epoch, batch_size, num)
    pair = np.concatenate([permutation(0, number, num) for number in (epoch, epoch + 1)])
    found = indices_of(order, jnp.int32(step), batch_size)
    np.testing.assert_array_equal(found, pair[place : place + batch_size])


def test_batch_is_in_the_range_of_the_model():
    split = split_of(8)
    feed = DeviceFeed(split, 0, single_device(8))
    scaling = Scaling("linear", 3.0, 7.0)
    augment_fn = make_augment_fn("none", 0, split.info.image_shape)
    batch_fn = make_batch_fn(feed.batch, scaling, augment_fn, 0, masked=False)
    batch = batch_fn(jnp.int32(0), whole(8), *feed.arguments(0))
    expected = (split.images[permutation(0, 0, 8)] - 3) / 7
    np.testing.assert_allclose(batch.image, expected, rtol=1e-6)
    assert batch.measured is None


def test_pixels_without_a_measurement_become_the_mean_and_are_marked():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    image[0, 1, 2] = np.nan
    batch = to_batch(Scaling("linear", 3.0, 7.0), jnp.asarray(image), jnp.zeros(1, jnp.int32))
    expected = (image - 3) / 7
    np.testing.assert_array_equal(batch.measured, ~np.isnan(image))
    np.testing.assert_allclose(batch.image, np.where(np.isnan(image), 0, expected), rtol=1e-6)


def test_weights_are_the_median_variance_over_the_own_one_up_to_ten():
    variance = np.random.default_rng(0).gamma(0.3, 1.0, (3, 9, 8, 2)).astype(np.float32)
    measured = np.random.default_rng(1).random(variance.shape) > 0.2
    variance[0, 0, 0], variance[1, 2, 3] = np.inf, 0.0
    found = np.asarray(pixel_weights(jnp.asarray(variance), jnp.asarray(measured)))
    usable = measured & np.isfinite(variance) & (variance > 0)
    for image, channel in np.ndindex(3, 2):
        use, own = usable[image, ..., channel], variance[image, ..., channel]
        expected = np.where(use, np.minimum(np.median(own[use]) / np.where(use, own, 1), 10), 0)
        np.testing.assert_allclose(found[image, ..., channel], expected, 1e-6)
    assert found.max() == 10


def test_variances_turn_with_their_images():
    images = np.random.default_rng(0).random((6, 8, 8, 2)).astype(np.float32) + 0.5
    variance = images**2

    def gather(step, places):
        return Batch(jnp.asarray(images), jnp.zeros(6, jnp.int32), variance=jnp.asarray(variance))

    augment = make_augment_fn("all", 1, (8, 8, 2))
    batch_fn = make_batch_fn(gather, Scaling("linear", 0.0, 1.0), augment, 0, masked=False)
    batch = batch_fn(jnp.int32(3), whole(6))
    assert batch.variance is None
    assert batch.weight is not None
    expected = pixel_weights(jnp.square(batch.image), jnp.ones(batch.image.shape, bool))
    np.testing.assert_allclose(batch.weight, expected, 1e-5)
    assert batch.image.shape == (6, 6, 6, 2)
