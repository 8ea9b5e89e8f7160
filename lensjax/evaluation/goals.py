"""A goal, its p, and what decides whether it is met; the goals of each measure are in `checks`.

Fresh images of the simulator are beyond the limit of a goal in at most 1 % of all cases, and miss
any goal of a report in at most 5 % (Holm 1979).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lensjax.metrics.two_sample import LEVEL

MET, UNCLEAR, MISSED, NO_POWER = "met", "unclear", "missed", "no power"
# All goals of a report together.
REPORT_LEVEL = 0.05
# The median of fewer images says nothing: if half of all images were bad, so few would all be good
# in more than 1 % of the cases.
LEAST_FOR_MEDIAN = math.ceil(math.log2(1 / LEVEL))
Results = Mapping[str, Mapping[str, Any]]


class Check(NamedTuple):
    """One goal and its outcome.

    Attributes:
      name: measure, group and quantity.
      value: the number.
      limit: the bound that the number should keep, at this number of images.
      outcome: `met`; `missed`; `unclear`, beyond the limit as one goal of so many may be by chance;
        or `no power`, where too few images, or a measure that does not see its control, cannot
        show a fault.
      meaning: the number and the limit in words.
      bound: whether the number should be `at most` or `at least` the limit.
      p: probability of a number at least as bad if the images were perfect; None where it was not
        measured. 0 or 1 where perfect images always keep the limit.
    """

    name: str
    value: float
    limit: float
    outcome: str
    meaning: str
    bound: str = "at most"
    p: float | None = None


def goal(
    name: str,
    value: float,
    limit: float,
    p: float,
    meaning: str,
    *,
    bound: str = "at most",
    has_power: bool = True,
) -> Check:
    """A goal that may have been met or missed; `decided` decides between the two."""
    blind = p >= LEVEL and not has_power
    return Check(name, value, limit, NO_POWER if blind else "", meaning, bound, p)


def kept(name: str, value: float, limit: float, meaning: str, num_images: int) -> Check:
    """A limit that perfect images always keep."""
    p = 1.0 if value <= limit else 0.0
    return goal(name, value, limit, p, meaning, has_power=num_images >= LEAST_FOR_MEDIAN)


def probable(name: str, p: float, meaning: str, *, has_power: bool = True) -> Check:
    """A goal whose number is a probability."""
    return goal(name, p, LEVEL, p, meaning, bound="at least", has_power=has_power)


def too_few(name: str, num_images: int) -> Check:
    """A goal without a number, for lack of images."""
    return Check(name, math.nan, math.nan, NO_POWER, f"{num_images} images are too few to tell")


def decided(checks: Sequence[Check]) -> list[Check]:
    """Says of each goal whether it is met or missed, all goals together (Holm 1979)."""
    values = [check.p if check.p is not None and check.p >= 0 else 0.0 for check in checks]
    tested = [place for place, check in enumerate(checks) if check.p is not None]
    missed: set[int] = set()
    for rank, place in enumerate(sorted(tested, key=lambda place: values[place])):
        if values[place] >= LEVEL or values[place] > REPORT_LEVEL / (len(tested) - rank):
            break
        missed.add(place)

    def outcome(place: int, check: Check) -> str:
        if place in missed:
            return MISSED
        return check.outcome or (MET if values[place] >= LEVEL else UNCLEAR)

    return [check._replace(outcome=outcome(place, check)) for place, check in enumerate(checks)]
