"""Training lenses from the simulator in each step, none of them seen twice.

Image n of a run is a function of the run's seed and n, in a random stream of its own: no image of
a set on disk, of its test split above all, is drawn again.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from lensjax import prng
from lensjax.data.catalogue import SIMULATED_SETS, SimulatedSet
from lensjax.data.feed import StepFn, stack_steps
from lensjax.data.simulator import CLASS_NAMES, simulate
from lensjax.devices.spread import Spread
from lensjax.interfaces import Batch, Places


def draw_fresh(source: SimulatedSet, seed: int, numbers: Array) -> tuple[Array, Array]:
    """Simulates the images with given numbers, each of a random class.

    If classes took turns, an image's class would go with its place in the batch, and so with its
    time of the training where times are stratified.

    Args:
      source: the simulated set, noise included.
      seed: the run's seed.
      numbers: uint32 `[N]`.

    Returns:
      Flux, float32 `[N, H, W, 1]`, and labels, int32 `[N]`.
    """

    def draw(class_name: str, key_data: Array) -> Array:
        keys = jax.random.wrap_key_data(key_data[None], impl="threefry2x32")
        images, _, _ = simulate(
            keys, source.survey, class_name, noisy=source.noisy, conserved=source.conserved
        )
        return images[0, ..., None]

    branches = [functools.partial(draw, name) for name in CLASS_NAMES]
    # As plain numbers: of all branches one uses the key.
    keys = jax.random.key_data(prng.keys(prng.key(seed, "fresh"), numbers))
    label_keys = prng.keys(prng.key(seed, "fresh_class"), numbers)
    labels = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(branches), jnp.int32))(
        label_keys
    )

    def one(pair: tuple[Array, Array]) -> Array:
        return jax.lax.switch(pair[1], branches, pair[0])

    # Together, images are simulated in all classes, and two of three are thrown away: on a CPU that
    # takes four times as long as one after the other.
    images = jax.lax.platform_dependent(
        (keys, labels),
        cpu=functools.partial(jax.lax.map, one),
        default=jax.vmap(one),
    )
    return images, labels


class FreshFeed:
    """Simulates the lenses of each step inside it; see `feed.Feed`.

    Args:
      name: of the simulated set that they are from, such as `deeplense/model_ii`.
      seed: the run's seed.
      spread: the devices, and images per step.
      steps_per_dispatch: steps that are made without the host.
    """

    def __init__(self, name: str, seed: int, spread: Spread, steps_per_dispatch: int = 1) -> None:
        self.spread = spread
        self._source, self._seed = SIMULATED_SETS[name], seed
        self._steps_per_dispatch = steps_per_dispatch

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Gives nothing: the step has its number."""
        return ()

    def batch(self, step: Array, places: Places) -> Batch:
        """Simulates the step's lenses, in flux units."""
        numbers = step.astype(jnp.uint32) * places.total + places.indices.astype(jnp.uint32)
        return Batch(*draw_fresh(self._source, self._seed, numbers))

    def stack(self, step_fn: StepFn) -> StepFn:
        """Joins the steps of a dispatch."""
        return stack_steps(step_fn, self._steps_per_dispatch)

    def compile(self, step_fn: StepFn, state: Any) -> StepFn:
        """Compiles a dispatch; see `Feed`."""
        return self.spread.compile(self.stack(step_fn), state, ())

    def close(self) -> None:
        """Does nothing."""
