"""Fresh lens images as numpy arrays with a table of their parameters: `lensjax.simulate`."""

import jax
import numpy as np

from lensjax import prng
from lensjax.arguments import choice, whole_number
from lensjax.data import parameters, simulator
from lensjax.data.catalogue import CHUNK, SIMULATED_SETS, full_name
from lensjax.data.tables import make_table
from lensjax.devices.machine import check_memory
from lensjax.errors import DataError


def simulate(name: str, class_name: str, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulates fresh lenses of one class; no data set is read or written.

    Image i is a function of (seed, i), whatever `num` is. No seed gives the lenses of a data set.
    As in the sets, the noisy and the conserved kind of a model show the lenses of the plain one.

    Args:
      name: a simulated set, such as `model_ii_noisy`, with or without `deeplense/`. A set's small
        version draws from the same priors, so that `_mini` at the end changes nothing.
      class_name: `axion`, `cdm` or `no_sub`.
      num: number of images.
      seed: in [0, 2**31 - 1].

    Returns:
      Images, float32 `[num, H, W, 1]`, flux per pixel (counts for `model_i_noisy`), row 0 at the
      lowest y; and the table of labels and parameters, see `lensjax.data.tables.make_table`.

    Raises:
      DataError: for a name, class, number or seed that is not allowed, or more images than fit
        into the machine's memory.
    """
    full = full_name(name, SIMULATED_SETS).removesuffix("_mini")
    class_name = choice("class_name", class_name, simulator.CLASS_NAMES, error=DataError)
    num = whole_number("num", num, 1, error=DataError)
    seed = whole_number("seed", seed, 0, prng.MAX_SEED, error=DataError)
    simulated = SIMULATED_SETS[full]
    label = simulator.CLASS_NAMES.index(class_name)
    base = prng.key(seed, f"simulate/{simulated.survey.name}", label)
    side = simulated.survey.num_pixels
    bytes_each = 4 * (side**2 + 2 * len(parameters.PARAMETER_NAMES))  # with the table
    check_memory("num", num, bytes_each, "image", error=DataError)
    images = np.empty((num, side, side, 1), np.float32)
    vectors = np.empty((num, len(parameters.PARAMETER_NAMES)), np.float32)
    for start in range(0, num, CHUNK):
        chunk = jax.device_get(parameters.simulate_chunk(base, start, simulated, class_name))
        rows = slice(start, min(start + CHUNK, num))
        images[rows, ..., 0], vectors[rows] = (each[: num - start] for each in chunk)
    labels = np.full(num, label, np.int32)
    table = make_table(full, simulator.CLASS_NAMES, labels, parameters.PARAMETER_NAMES, vectors)
    return images, table
