"""Batches as a function of the step, against a plain list of permutations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import prng
from lensjax.data.dataset import DataError, DatasetInfo, LensSplit
from lensjax.data.pipeline import (
    DevicePlacement,
    batch_indices,
    epoch_of,
    epoch_order,
    first_of_each_class,
    make_batch_fn,
)
from lensjax.data.scaling import Scaling

SIZES = (7, 12)
CASES = [(n, batch) for n in SIZES for batch in (1, 2, 3, 5, n - 1, n)]
NUM_EPOCHS = 4
IDENTITY = Scaling("linear", 0.0, 1.0)
indices_of = jax.jit(batch_indices, static_argnames="batch_size")


def split_of(num: int, shape=(3, 2, 2), num_classes: int = 3) -> LensSplit:
    """Pixels say which image they belong to; labels follow a pattern of their own."""
    images = np.arange(num * np.prod(shape), dtype=np.float32).reshape(num, *shape)
    info = DatasetInfo(
        name="test/set",
        fingerprint="0",
        class_names=("a", "b", "c")[:num_classes],
        parameter_names=(),
        split_sizes={"train": num},
        image_shape=shape,
        flux_unit="e/s",
        minimum=0.0,
        maximum=float(images.max()),
    )
    labels = (np.arange(num) ** 2 % max(num_classes, 1)).astype(np.int32)
    return LensSplit(images, labels, np.zeros((num, 0), np.float32), info)


def sharding(*names: str) -> jax.sharding.NamedSharding:
    mesh = jax.make_mesh(
        (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]
    )
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*names))


def permutation(seed: int, epoch: int, num: int) -> np.ndarray:
    return np.asarray(jax.random.permutation(prng.key(seed, "data", epoch), num))


def all_examples(seed: int, num: int) -> np.ndarray:
    """The examples of the first epochs one after the other, `[epochs num]`."""
    return np.concatenate([permutation(seed, epoch, num) for epoch in range(NUM_EPOCHS + 1)])


def steps_of(num: int, batch_size: int) -> range:
    return range(NUM_EPOCHS * num // batch_size)


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
    found = batch_indices(order, jnp.int32(step), batch_size)
    np.testing.assert_array_equal(found, pair[place : place + batch_size])


@pytest.mark.parametrize(("num", "batch_size"), [(7, 3), (12, 5), (12, 12)])
def test_placement_gives_those_examples(num, batch_size):
    split, stream = split_of(num), all_examples(5, num)
    placement = DevicePlacement(split, 5, batch_size, sharding())
    batch = jax.jit(placement.batch)
    shapes = set()
    for step in steps_of(num, batch_size):
        arguments = placement.arguments(step)
        shapes.add(str(jax.tree.map(jnp.shape, arguments)))
        image, label = batch(jnp.int32(step), *arguments)
        expected = stream[step * batch_size : (step + 1) * batch_size]
        np.testing.assert_array_equal(image, split.images[expected])
        np.testing.assert_array_equal(label, split.labels[expected])
    assert len(shapes) == 1


def test_placement_may_start_anywhere():
    """A resumed run asks for a late step first; nothing of what came before is needed."""
    split = split_of(12)
    whole, resumed = (DevicePlacement(split, 0, 5, sharding()) for _ in range(2))
    for step in range(8):
        before = whole.batch(jnp.int32(step), *whole.arguments(step))
    after = resumed.batch(jnp.int32(7), *resumed.arguments(7))
    np.testing.assert_array_equal(before.image, after.image)


def test_batch_larger_than_the_set_is_refused():
    with pytest.raises(DataError, match=r"train\.batch_size: got 8; allowed: at most the 7 images"):
        DevicePlacement(split_of(7), 0, 8, sharding())


def rotated_batch(seed=0, step=0, num=400, augmentation="rotate_180"):
    """A batch of a whole set, and the images that it was made of."""
    split = split_of(num)
    placement = DevicePlacement(split, 0, num, sharding())
    batch_fn = make_batch_fn(placement, IDENTITY, augmentation, seed, sharding("data"))
    batch = jax.jit(batch_fn)(jnp.int32(step), *placement.arguments(step))
    chosen = permutation(0, step, num)
    return batch, split.images[chosen], split.labels[chosen]


def is_rotated(batch, images) -> np.ndarray:
    turned = np.rot90(images, 2, axes=(1, 2))
    same = np.all(batch.image == images, axis=(1, 2, 3))
    other = np.all(batch.image == turned, axis=(1, 2, 3))
    assert np.all(same ^ other)
    return other


def test_half_of_the_examples_are_turned_by_180_degrees():
    batch, images, labels = rotated_batch()
    turned = is_rotated(batch, images)
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(turned))
    np.testing.assert_array_equal(batch.label, labels)


def test_turns_are_functions_of_seed_step_and_place():
    turns = []
    for seed, step in itertools.product((0, 1), (0, 1)):
        batch, images, _ = rotated_batch(seed, step)
        turns.append(is_rotated(batch, images))
        keys = prng.keys(prng.key(seed, "augmentation", step), jnp.arange(len(images)))
        expected = jax.vmap(jax.random.bernoulli)(keys)
        np.testing.assert_array_equal(turns[-1], expected)
    correlation = np.corrcoef(np.stack(turns)) - np.eye(4)
    assert np.max(np.abs(correlation)) < 4 / np.sqrt(len(turns[0]))


def test_without_augmentation_nothing_is_turned():
    batch, images, _ = rotated_batch(augmentation="none")
    np.testing.assert_array_equal(batch.image, images)


def test_batch_is_in_the_range_of_the_model():
    split = split_of(8)
    placement = DevicePlacement(split, 0, 8, sharding())
    scaling = Scaling("linear", 3.0, 7.0)
    batch_fn = make_batch_fn(placement, scaling, "none", 0, sharding("data"))
    image, _ = jax.jit(batch_fn)(jnp.int32(0), *placement.arguments(0))
    expected = (split.images[permutation(0, 0, 8)] - 3) / 7
    np.testing.assert_allclose(image, expected, rtol=1e-6)


@pytest.mark.parametrize(("num_classes", "expected"), [(3, 2), (0, 1)])
def test_first_of_each_class(num_classes, expected):
    split = split_of(12, num_classes=num_classes)
    found = first_of_each_class(split, 3)
    assert len(found) == max(num_classes, 1)
    for label, images in enumerate(found):
        of_class = [i for i in range(12) if split.labels[i] == label][:3]
        np.testing.assert_array_equal(images, split.images[of_class])
