"""Networks that come with lensjax: a folder of `weights/` for each.

`weights.safetensors` holds the parameters, `config.json` and `dataset.json` what a workdir holds,
and `card.json` what is known of the network: numbers, the command that made it, SHA-256.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from lensjax import workdir as files
from lensjax.assemble import abstract_state
from lensjax.config import to_dict
from lensjax.config_task import CLASSIFY
from lensjax.trained import RequestError, Trained

WEIGHTS_FOLDER = pathlib.Path(__file__).resolve().parent / "weights"
PREFIX = "pretrained/"
_WEIGHTS, _CARD = "weights.safetensors", "card.json"


def names(weights: pathlib.Path = WEIGHTS_FOLDER) -> list[str]:
    """Returns the names of the networks that come with lensjax.

    Args:
      weights: the folder that holds them.
    """
    return sorted(path.parent.name for path in weights.glob(f"*/{_CARD}"))


def save(folder: pathlib.Path, trained: Trained, card: Mapping[str, Any]) -> None:
    """Writes a trained network as one that comes with lensjax.

    Args:
      folder: to be made, such as `WEIGHTS_FOLDER / name`.
      trained: the network.
      card: what is known of it, JSON types; `sha256`, `checkpoint_step`, `ema` and
        `num_parameters` are added. That of a classifier has its `temperature`.

    Raises:
      RequestError: for the card of a classifier without a temperature.
    """
    if trained.config.task == CLASSIFY and "temperature" not in card:
        raise RequestError("card: got no temperature; a classifier needs one, 1.0 changes nothing")
    from safetensors.numpy import save as serialise

    flat = traverse_util.flatten_dict(jax.device_get(trained.params), sep="/")
    arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
    content = serialise(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _WEIGHTS).write_bytes(content)
    files.write_json(folder / files.CONFIG_FILE, {"config": to_dict(trained.config)})
    files.write_json(folder / files.DATASET_FILE, trained.dataset)
    added = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "checkpoint_step": trained.step,
        "ema": trained.ema,
        "num_parameters": sum(value.size for value in arrays.values()),
    }
    files.write_json(folder / _CARD, {**card, **added})


def load_card(name: str, weights: pathlib.Path = WEIGHTS_FOLDER) -> dict[str, Any]:
    """Returns what is known of a network that comes with lensjax.

    Raises:
      RequestError: where there is none of this name.
    """
    path = weights / name / _CARD
    if not path.is_file():
        known = ", ".join(PREFIX + one for one in names(weights))
        raise RequestError(f"{PREFIX}{name}: there is no such network; allowed: {known or 'none'}")
    return json.loads(path.read_text())


def load_trained(name: str, weights: pathlib.Path = WEIGHTS_FOLDER) -> tuple[Trained, dict]:
    """Reads a network that comes with lensjax.

    Args:
      name: its name, without `pretrained/`.
      weights: the folder that holds it.

    Returns:
      The network and its card.

    Raises:
      RequestError: where there is none of this name, or its weights are not those of its card.
    """
    from safetensors.numpy import load

    card, folder = load_card(name, weights), weights / name
    content = (folder / _WEIGHTS).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card["sha256"]:
        raise RequestError(
            f"{PREFIX}{name}: {_WEIGHTS} has the SHA-256 {found}, its card says {card['sha256']}; "
            "install lensjax again"
        )
    config = files.load_config(folder)
    dataset = files.read_json(folder / files.DATASET_FILE)
    params = traverse_util.unflatten_dict(load(content), sep="/")
    expected = abstract_state(config, tuple(dataset["image_shape"])).params
    shapes, wanted = (jax.tree.map(np.shape, tree) for tree in (params, expected))
    if shapes != wanted:
        raise RequestError(
            f"{PREFIX}{name}: its weights do not fit this version's {config.model.name}; install "
            "lensjax again"
        )
    trained = Trained(config, dataset, params, card["checkpoint_step"], card["ema"], None)
    return trained, card
