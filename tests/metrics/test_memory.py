"""Memory: planted copies and empty holes are found, fresh images raise no alarm."""

import math

import numpy as np
import pytest
from scipy import stats

from lensjax.metrics.memory import HoleTest, hole_test, neighbour_test, planted_copies

LIMIT = 0.35
DISC = (0.1, -0.05, 0.1)
SHARE = math.pi * 0.01 / 0.49


def sources(num, seed=0, density=1.0):
    """Uniform sources, of which those in the disc are kept with a probability."""
    random = np.random.default_rng(seed)
    x, y = random.uniform(-LIMIT, LIMIT, (2, 4 * num))
    inside = np.hypot(x - DISC[0], y - DISC[1]) <= DISC[2]
    kept = np.flatnonzero(~inside | (random.random(4 * num) < density))[:num]
    return x[kept], y[kept], np.where(inside[kept], 0.3, 0.1)


def hole(found, disc=DISC) -> HoleTest:
    """Runs the test on x, y and ratio where it must have a result."""
    x, y, ratio = found
    result = hole_test(x, y, ratio, disc)
    assert result is not None
    return result


def test_a_generator_that_has_learned_fills_the_hole():
    result = hole(sources(5000))
    assert result.verdict == "filled"
    assert result.density == pytest.approx(1, abs=4 / math.sqrt(5000 * SHARE))
    assert result.density_low < 1 < result.density_high
    assert result.density_around == pytest.approx(1, abs=0.25)
    assert (result.ratio_inside, result.ratio_outside) == (0.3, 0.1)
    assert result.num_images == 5000
    assert result.power > 0.999


def test_a_generator_that_remembers_leaves_it_empty():
    result = hole(sources(5000, density=0.0))
    assert result.verdict == "empty"
    assert result.num_inside == 0
    assert result.density == result.density_low == 0
    assert result.density_high < 0.02
    assert result.ratio_inside is None
    assert result.density_around == pytest.approx(1 / (1 - SHARE), abs=0.25)


@pytest.mark.parametrize(("density", "verdict"), [(0.2, "empty"), (0.75, "thin")])
def test_a_hole_may_be_filled_in_part(density, verdict):
    result = hole(sources(5000, density=density))
    assert result.verdict == verdict
    assert result.density == pytest.approx(density, abs=0.15)


def test_density_and_interval_are_those_of_the_counts():
    x, y, ratio = sources(700, seed=3)
    result = hole((x, y, ratio))
    count = sum((a - 0.1) ** 2 + (b + 0.05) ** 2 <= 0.01 for a, b in zip(x, y, strict=True))
    assert result.num_inside == count
    assert result.density == pytest.approx(count / 700 / SHARE, rel=1e-5)
    # The ends of Clopper and Pearson's interval: there the count is as rare as one tail.
    low, high = result.density_low * SHARE, result.density_high * SHARE
    assert stats.binom.sf(count - 1, 700, low) == pytest.approx(0.025, rel=1e-3)
    assert stats.binom.cdf(count, 700, high) == pytest.approx(0.025, rel=1e-3)


@pytest.mark.parametrize("num", [20, 100, 400, 1000])
def test_power_is_how_often_half_a_density_is_found(num):
    power = hole(sources(num)).power
    counts = np.random.default_rng(0).binomial(num, SHARE / 2, 4000)
    below = {
        count: stats.binomtest(count, num).proportion_ci().high < SHARE for count in set(counts)
    }
    found = np.mean([below[count] for count in counts])
    assert power == pytest.approx(found, abs=4 * math.sqrt(0.25 / 4000))


def test_few_images_have_no_power():
    result = hole(sources(60))
    assert result.power < 0.5
    assert result.verdict == "no power"


def test_sources_beyond_the_prior_do_not_count():
    x, y, ratio = sources(200)
    more = hole((np.append(x, 0.4), np.append(y, 0.0), np.append(ratio, 9.0)))
    assert more.num_beyond == 1
    assert more.num_images == 200
    assert more.density == hole((x, y, ratio)).density


def test_a_ring_beyond_the_prior_is_not_looked_at():
    assert hole(sources(200), (0.25, 0.0, 0.1)).density_around is None


def test_without_a_hole_nothing_is_measured():
    x, y, ratio = sources(20)
    assert hole_test(x, y, ratio, ()) is None
    beyond = np.full(3, 0.44)
    assert hole_test(beyond, beyond, beyond, DISC) is None


@pytest.mark.parametrize("disc", [(0.6, 0.0, 0.1), (0.0, 0.0, 0.5)])
def test_a_disc_beyond_the_prior_is_refused(disc):
    with pytest.raises(ValueError, match=r"allowed: .* a disc that contains part"):
        hole(sources(20), disc)


def test_arrays_of_other_lengths_are_refused():
    x, y, ratio = sources(20)
    with pytest.raises(ValueError, match=r"positions \(20,\), \(19,\), ratios \(20,\)"):
        hole_test(x, y[1:], ratio, DISC)


# Toy images: a few random waves each.
_BASIS = np.random.default_rng(5).normal(size=(6, 8, 8))


def fresh(num, seed):
    weights = np.random.default_rng(seed).normal(size=(num, 6))
    return np.tensordot(weights, _BASIS, 1).astype(np.float32)


TRAIN = fresh(300, 0)


def test_fresh_images_raise_no_more_alarms_than_they_may():
    p_values = np.array(
        [
            [result.nearness.p_value, result.isolation.p_value]
            for seed in range(60)
            for result in [
                neighbour_test(fresh(120, 2 * seed + 1), TRAIN, fresh(100, 2 * seed + 2))
            ]
        ]
    )
    for level in (0.01, 0.05, 0.2):
        most = stats.binom.ppf(0.999, 60, level)
        assert (p_values <= level).sum(axis=0).max() <= most
    assert (p_values < 0.5).any(axis=0).all()


def test_p_value_is_that_of_random_ranks():
    result = neighbour_test(fresh(60, 1), TRAIN, fresh(250, 2))
    for one, values in ((result.nearness, result.distance), (result.isolation, result.ratio)):
        hits = int(np.sum(values < one.threshold))
        assert one.share == hits / 60
        assert one.expected_share == pytest.approx(2 / 251)
        order = np.random.default_rng(0).random((20_000, 310))
        second = np.sort(order[:, 60:], axis=1)[:, 1]
        below = np.sum(order[:, :60] < second[:, None], axis=1)
        assert one.p_value == pytest.approx(np.mean(below >= hits), abs=0.015)


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("error", [0.0, 0.05])
def test_planted_copies_are_found_in_either_orientation(turn, error):
    copies = TRAIN[:12, ::-1, ::-1] if turn else TRAIN[:12]
    noise = error * np.random.default_rng(0).normal(size=copies.shape) * TRAIN.std()
    generated = np.concatenate([fresh(108, 1), copies + noise]).astype(np.float32)
    result = neighbour_test(generated, TRAIN, fresh(200, 2))
    assert result.verdict == "copies"
    assert result.num_identical == (0 if error else 12)
    assert result.index[108:].tolist() == list(range(12))
    assert result.rotated[108:].all() == turn
    assert len(set(np.argsort(result.ratio)[:14]) & set(range(108, 120))) >= 11
    assert result.isolation.share_low < 0.1 < result.isolation.share_high


def test_isolation_outlasts_nearness():
    """A copy with an error is nearer to its original than to others, though not near."""
    basis = np.random.default_rng(5).normal(size=(12, 8, 8))
    random = np.random.default_rng(0)
    train, generated, test = (
        np.tensordot(random.normal(size=(num, 12)), basis, 1) for num in (300, 100, 200)
    )
    errors = 0.5 * train.std() * random.normal(size=(200, 8, 8))
    result = neighbour_test(generated, train, test, planted_copies(train, errors, 200, 1))
    assert result.nearness.power is not None
    assert result.isolation.power == result.power
    assert result.isolation.power is not None
    assert result.isolation.power > 1.3 * result.nearness.power > 0.2


def test_errors_that_hide_every_copy_leave_no_power():
    planted = planted_copies(TRAIN, 3 * fresh(200, 9), 200, 1)
    result = neighbour_test(fresh(100, 1), TRAIN, fresh(200, 2), planted)
    assert (result.power or 0.0) < 0.1
    assert result.verdict == "no power"
    assert (result.most_copies or 0.0) > 0.5
    seen = neighbour_test(fresh(100, 1), TRAIN, fresh(200, 2), TRAIN[:50])
    assert seen.power == 1
    assert seen.verdict == "no copies found"
    assert seen.most_copies == min(seen.nearness.share_high, seen.isolation.share_high)
    assert seen.nearness.share_high < 0.1


def test_the_error_of_a_fresh_image_raises_no_alarm():
    generated = fresh(400, 1) + 0.5 * fresh(400, 3)
    assert neighbour_test(generated, TRAIN, fresh(200, 2)).verdict == "no copies found"


def test_symmetric_training_images_are_one_neighbour():
    """Their turned selves would be the second nearest of any copy."""
    train = TRAIN + TRAIN[:, ::-1, ::-1]
    test = fresh(100, 2) + fresh(100, 2)[:, ::-1, ::-1]
    noise = 1e-3 * fresh(10, 4)
    result = neighbour_test(train[:10] + noise, train, test)
    assert result.ratio.max() < 0.1


def test_planted_copies_are_training_images_with_errors():
    errors = 1e3 * fresh(4, 1)
    copies = planted_copies(TRAIN, errors, 50, 0)
    assert copies.shape == (50, 8, 8)
    for copy in copies:
        left = [np.abs(copy - error - image).max() for error in errors for image in TRAIN]
        assert min(left) < 1e-2


@pytest.mark.parametrize("name", ["generated", "train", "test"])
@pytest.mark.parametrize("fault", ["size", "few", "nan"])
def test_bad_parts_are_named(name, fault):
    parts = {"generated": fresh(9, 1), "train": TRAIN, "test": fresh(9, 2)}
    if fault == "nan":
        parts[name] = np.where(np.arange(8) == 3, np.float32(np.nan), parts[name])
    elif fault == "few":
        parts[name] = parts[name][:0] if name == "generated" else parts[name][:1]
    else:
        parts[name] = parts[name][:, :7]
    other = "generated" if (name, fault) == ("train", "size") else name
    with pytest.raises(ValueError, match=rf"^{other}: (got|\d+ of) "):
        neighbour_test(**parts)
