"""Pixels without a measurement are filled from those around them, in their own channel."""

import numpy as np

from lensjax.evaluation.filling import fill_masked


def test_measured_pixels_stay_and_gaps_get_the_mean_around_them():
    images = np.random.default_rng(0).random((3, 12, 12, 2)).astype(np.float32)
    images[1, 4, 5, 0] = np.nan
    around = np.delete(images[1, 2:7, 3:8, 0].ravel(), 12)
    filled, share = fill_masked(images)
    assert share == 1 / images.size
    np.testing.assert_allclose(filled[1, 4, 5, 0], around.mean(), 1e-6)
    measured = ~np.isnan(images)
    np.testing.assert_array_equal(filled[measured], images[measured])
    assert np.isnan(images[1, 4, 5, 0])  # the images that were given are as before


def test_far_from_everything_the_mean_of_the_channel():
    images = np.full((1, 16, 16, 2), np.nan, np.float32)
    images[0, 0, :, 0] = 3
    filled, share = fill_masked(images)
    assert share == 1 - 16 / 512
    np.testing.assert_array_equal(filled[..., 0], 3)
    np.testing.assert_array_equal(filled[..., 1], 0)


def test_a_plane_of_no_gaps_is_not_copied():
    images = np.ones((2, 8, 8, 1), np.float32)
    filled, share = fill_masked(images)
    assert filled is images
    assert share == 0
