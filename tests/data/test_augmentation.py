"""Symmetries and shifts of the cut-out, against numpy's own flips and turns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import prng
from lensjax.data.augmentation import (
    SYMMETRIES,
    central_cut_out,
    chosen_symmetries,
    cut_out_shape,
    is_augmentation,
    make_augment_fn,
)
from lensjax.errors import DataError

# Row 0 lies at the lowest y: turning (x, y) into (-y, x) moves columns to rows.
EXPECTED = {
    "none": lambda image: image,
    "rotate_90": lambda image: np.rot90(image[::-1])[::-1],
    "rotate_180": lambda image: np.rot90(image, 2),
    "rotate_270": lambda image: np.rot90(image[::-1], 3)[::-1],
    "flip_x": np.fliplr,
    "flip_y": np.flipud,
    "transpose": lambda image: image.swapaxes(0, 1),
    "antitranspose": lambda image: np.rot90(image, 2).swapaxes(0, 1),
}


def keys_of(num: int, seed: int = 0):
    return prng.keys(prng.key(seed, "test"), jnp.arange(num))


def augmented(image, names, margin=0, num=64, seed=0):
    augment = make_augment_fn(names, margin, image.shape)
    return np.asarray(jax.vmap(augment, in_axes=(0, None))(keys_of(num, seed), jnp.asarray(image)))


def picture(height: int, width: int, channels: int = 2) -> np.ndarray:
    count = height * width * channels
    return np.arange(count, dtype=np.float32).reshape(height, width, channels)


def which(images, candidates):
    """For each image the place of the candidate that it is; fails where there is none."""
    return [
        next(place for place, one in enumerate(candidates) if np.array_equal(image, one))
        for image in images
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_each_symmetry_alone_is_numpys(name):
    image = picture(5, 5)
    found = which(augmented(image, name), [image, EXPECTED[name](image)])
    if name != "none":
        assert 0.2 < np.mean(found) < 0.8  # the image itself as often as its symmetry


def test_rotation_is_anticlockwise_on_the_sky():
    image = np.zeros((5, 5, 1), np.float32)
    image[2, 4] = 1.0  # to the right of the centre
    turned = augmented(image, "rotate_90")
    up = np.zeros_like(image)
    up[4, 2] = 1.0  # above it
    assert set(which(turned, [image, up])) == {0, 1}


def test_the_eight_are_a_group():
    image = picture(4, 4)
    made = {EXPECTED[name](image).tobytes() for name in SYMMETRIES}
    assert len(made) == 8
    for one, other in itertools.product(EXPECTED.values(), repeat=2):
        assert np.ascontiguousarray(one(other(image))).tobytes() in {
            np.ascontiguousarray(apply(image)).tobytes() for apply in EXPECTED.values()
        }


def test_all_eight_are_equally_likely():
    image = picture(4, 4)
    found = which(augmented(image, "all", num=4000), [apply(image) for apply in EXPECTED.values()])
    shares = np.bincount(found, minlength=8) / len(found)
    assert np.max(np.abs(shares - 1 / 8)) < 5 * np.sqrt(1 / 8 * 7 / 8 / len(found))


def test_names_may_be_combined():
    image = picture(4, 4)
    names = ("none", "flip_x", "rotate_90")
    found = which(augmented(image, "flip_x, rotate_90"), [EXPECTED[name](image) for name in names])
    assert set(found) == {0, 1, 2}


@pytest.mark.parametrize("margin", [1, 2])
def test_shifted_windows_hold_measured_pixels_and_reach_every_place(margin):
    image = picture(7, 9, 1)
    places = list(itertools.product(range(2 * margin + 1), repeat=2))
    height, width = 7 - 2 * margin, 9 - 2 * margin
    windows = [image[row : row + height, column : column + width] for row, column in places]
    found = which(augmented(image, "none", margin, num=600), windows)
    assert set(found) == set(range(len(places)))
    assert cut_out_shape(image.shape, margin) == (height, width, 1)
    np.testing.assert_array_equal(central_cut_out(image, margin), windows[len(places) // 2])


def test_an_augmentation_is_a_function_of_its_key():
    image = picture(6, 6)
    one, again, other = (augmented(image, "all", 1, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("names", ["rotate_90", "rotate_270", "transpose", "antitranspose", "all"])
def test_sides_of_unlike_length_cannot_be_swapped(names):
    with pytest.raises(DataError, match=r"data\.augmentation: got .* for images of 5x6 pixels"):
        make_augment_fn(names, 0, (5, 6, 1))


def test_oblong_images_take_the_other_symmetries():
    image = picture(5, 6)
    names = ("none", "rotate_180", "flip_x", "flip_y")
    found = which(augmented(image, ",".join(names)), [EXPECTED[name](image) for name in names])
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize("margin", [3, 4])
def test_a_margin_that_leaves_nothing_is_refused(margin):
    with pytest.raises(DataError, match=rf"data\.shift_pixels: got {margin}; allowed: less"):
        make_augment_fn("none", margin, (6, 9, 1))


@pytest.mark.parametrize("names", ["", "rotate", "none,flip", "rotate_180;flip_x"])
def test_unknown_names_are_refused(names):
    assert not is_augmentation(names)
    with pytest.raises(ValueError, match="augmentation"):
        chosen_symmetries(names)
