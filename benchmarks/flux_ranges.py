"""How far the fluxes of the training images of the bundled networks reach, and what is outside.

    python benchmarks/flux_ranges.py

writes `flux_ranges` into the `dataset.json` of each network in `lensjax/weights`, as training does
since 0.3.0, and measures on fresh lenses how many of them, and of the same images in other
units, each classifier calls unlike its training images: `benchmarks/results/flux_ranges.json`.
`--keep` measures alone. The training sets are built if they are not there.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from lensjax.config.model import CLASSIFY
from lensjax.data.arrays import simulate
from lensjax.data.augmentation import make_observe_fn
from lensjax.data.catalogue import SIMULATED_SETS, is_same_content
from lensjax.data.flux_range import outside
from lensjax.files.atomic import write_json
from lensjax.inference import pretrained
from lensjax.run import datasets, provenance
from lensjax.run import workdir as files
from lensjax.training.data import flux_ranges
from lensjax.training.tasks import task_of

RESULT = pathlib.Path(__file__).resolve().parent / "results" / "flux_ranges.json"
CLASS_NAMES = ("axion", "cdm", "no_sub")
NUM, SEED = 1_000, 77
OTHER_SETS = ("model_ii_conserved", "model_ii_noisy", "model_iii", "model_iii_noisy")


def store(name: str) -> None:
    """Writes the ranges of a network's training images into its `dataset.json`."""
    folder = pretrained.WEIGHTS_FOLDER / name
    config, dataset = files.load_config(folder), files.read_dataset(folder)
    split = datasets.prepare(config.data).open_split("train")
    assert is_same_content(dataset["fingerprint"], split.info.fingerprint), name
    train, _ = task_of(config).divide(split, None)
    ranges = flux_ranges(train, tuple(dataset["image_shape"]), config)
    write_json(folder / files.DATASET_FILE, {**dataset, "flux_ranges": ranges})


def lenses(data: str, num: int = NUM) -> dict[str, np.ndarray]:
    """Fresh lenses `[num, H, W, 1]` of each class."""
    return {name: simulate(data, name, num, seed=SEED)[0] for name in CLASS_NAMES}


def noisy(images: np.ndarray) -> np.ndarray:
    """The lenses of Model II at magnitudes 20 to 23 with the instrument's noise."""
    survey = SIMULATED_SETS["deeplense/model_ii"].survey
    observe = jax.jit(jax.vmap(make_observe_fn(survey, 1.0, (20.0, 23.0))))
    return np.asarray(
        observe(jax.random.split(jax.random.key(SEED), len(images)), jnp.asarray(images))
    )


def in_other_units(images: np.ndarray) -> dict[str, np.ndarray]:
    """The same images as other programs hand them on."""
    axes = (1, 2, 3)
    low, high = images.min(axis=axes, keepdims=True), images.max(axis=axes, keepdims=True)
    unit = (images - low) / (high - low)
    changed = {
        "8 bits": np.round(255 * unit),
        "0..1": unit,
        "-1..1": 2 * unit - 1,
        "zeros": 0 * images,
        "negative": -images,
        "ten times": 10 * images,
        "published (twice)": 2 * images,
        "a tenth": images / 10,
    }
    return {name: rows.astype(np.float32) for name, rows in changed.items()}


def measure(name: str, cases: dict[str, np.ndarray]) -> dict[str, float]:
    """The share of each case's images that are outside of a network's ranges."""
    ranges = files.read_dataset(pretrained.WEIGHTS_FOLDER / name)["flux_ranges"]
    return {
        case: float(np.mean([bool(reason) for reason in outside(ranges, images)]))
        for case, images in cases.items()
    }


def main() -> None:
    """Stores the ranges, measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="measure the stored ranges alone")
    names = pretrained.names()
    if not parser.parse_args().keep:
        for name in names:
            store(name)
    quiet = lenses("model_ii")
    loud = {name: noisy(images) for name, images in quiet.items()}
    every, every_loud = (np.concatenate(list(each.values())) for each in (quiet, loud))
    cases = dict(quiet)
    cases |= {f"{name}, noise": images for name, images in loud.items()}
    cases |= in_other_units(every)
    cases |= {f"{name}, noise": rows for name, rows in in_other_units(every_loud).items()}
    cases |= {data: np.concatenate(list(lenses(data, 300).values())) for data in OTHER_SETS}
    classifiers = [
        name
        for name in names
        if files.load_config(pretrained.WEIGHTS_FOLDER / name).task == CLASSIFY
    ]
    shares = {name: measure(name, cases) for name in classifiers}
    write_json(RESULT, {"outside": shares, "seed": SEED, "versions": provenance.versions()})
    print(f"{'images':28}" + "".join(f"{name:>30}" for name in classifiers))
    for case in cases:
        print(f"{case:28}" + "".join(f"{shares[name][case]:30.3f}" for name in classifiers))
    print(json.dumps(provenance.versions()))


if __name__ == "__main__":
    main()
