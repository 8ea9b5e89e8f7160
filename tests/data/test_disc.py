"""The disc of sources that training leaves out: areas and borders against closed forms."""

import math

import numpy as np
import pytest

from lensjax.data import disc as discs

LIMIT = 0.35


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.1, -0.2), (-0.25, 0.25)])
@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.1])
def test_a_disc_within_the_square_has_its_whole_area(centre, radius):
    share = discs.share_of_square((*centre, radius), LIMIT)
    assert share == pytest.approx(math.pi * radius**2 / 0.49, rel=1e-6)


@pytest.mark.parametrize(
    ("disc", "share"),
    [
        ((LIMIT, 0.0, 0.1), math.pi * 0.01 / 2 / 0.49),
        ((0.1, -LIMIT, 0.1), math.pi * 0.01 / 2 / 0.49),
        ((-LIMIT, LIMIT, 0.1), math.pi * 0.01 / 4 / 0.49),
        ((0.0, 0.0, 0.5), 1.0),
        ((0.5, 0.0, 0.1), 0.0),
    ],
)
def test_a_disc_over_an_edge_counts_within_alone(disc, share):
    assert discs.share_of_square(disc, LIMIT) == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize("disc", [(0.3, 0.2, 0.2), (-0.4, 0.1, 0.3), (0.0, 0.0, 0.45)])
def test_share_is_that_of_many_uniform_sources(disc):
    x, y = np.random.default_rng(0).uniform(-LIMIT, LIMIT, (2, 400_000))
    share = discs.share_of_square(disc, LIMIT)
    error = math.sqrt(share * (1 - share) / 400_000)
    assert np.mean(discs.inside(x, y, disc)) == pytest.approx(share, abs=4 * error)


def test_the_edge_is_inside():
    x, y = np.array([0.5, 0.5, 0.25]), np.array([0.0, 0.01, 0.25])
    assert discs.inside(x, y, (0.25, 0.0, 0.25)).tolist() == [True, False, True]


@pytest.mark.parametrize("sign", [1, -1])
def test_overlap_and_cover_at_their_borders(sign):
    corner = LIMIT * math.sqrt(2)
    assert discs.covers((0.0, 0.0, corner + 1e-9), LIMIT)
    assert not discs.covers((0.0, 0.0, corner - 1e-9), LIMIT)
    assert not discs.covers((sign * 0.01, 0.0, corner + 1e-9), LIMIT)
    assert discs.overlaps((sign * 0.449, 0.2, 0.1), LIMIT)
    assert not discs.overlaps((0.2, sign * 0.451, 0.1), LIMIT)
    beyond = LIMIT + 0.1 / math.sqrt(2)
    assert discs.overlaps((sign * (beyond - 1e-6), beyond - 1e-6, 0.1), LIMIT)
    assert not discs.overlaps((beyond + 1e-6, sign * (beyond + 1e-6), 0.1), LIMIT)
