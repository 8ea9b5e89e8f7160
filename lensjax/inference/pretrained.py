"""Networks that come with lensjax: a folder of `weights/` for each.

`weights.safetensors` holds the parameters, a generator's as bfloat16; `config.json` and
`dataset.json` are as in a workdir; `card.json` describes the network: scores, the command that made
it, SHA-256.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from lensjax.config import Config, differences, from_config_dict, to_dict
from lensjax.config.model import CLASSIFY, GENERATE
from lensjax.config.whole import facts_of_fields
from lensjax.errors import ConfigError, RequestError, UnusableError, shown
from lensjax.files.atomic import write_bytes, write_json
from lensjax.files.json_file import read_bytes
from lensjax.files.user_paths import PRETRAINED
from lensjax.inference.trained import Trained
from lensjax.run import stored
from lensjax.run import workdir as files
from lensjax.run.learning import abstract_state
from lensjax.run.stored import check_fits

WEIGHTS_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "weights"
PREFIX = PRETRAINED
MAX_BYTES = 20_000_000  # everyone who installs lensjax downloads them
_WEIGHTS, _CARD = "weights.safetensors", "card.json"
# Sections of a configuration that say what a network is and what it learned.
_OF_THE_NETWORK = ("data", "model", "path")
_DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(jnp.bfloat16)}


def names(weights: pathlib.Path = WEIGHTS_FOLDER) -> list[str]:
    """The names of the networks that come with lensjax.

    Args:
      weights: the folder that holds them.
    """
    return sorted(path.parent.name for path in weights.glob(f"*/{_CARD}"))


def rounded(trained: Trained) -> Trained:
    """A network with the parameters that its file in lensjax holds.

    A generator's parameters are rounded to bfloat16 (relative error 2^-9 at most) and returned as
    float32; any other network stays as it is. Scores are measured with the rounded parameters.
    """
    if trained.config.task != GENERATE:
        return trained
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(jnp.bfloat16).astype(np.float32), trained.params
    )
    return dataclasses.replace(trained, params=params)


def serialise(name: str, trained: Trained) -> bytes:
    """The parameters as the content of a safetensors file.

    Args:
      name: the network's name, for the message.
      trained: the network; a generator is rounded.

    Raises:
      RequestError: for more than `MAX_BYTES`.
    """
    from safetensors.numpy import save as to_bytes

    stored = jnp.bfloat16 if trained.config.task == GENERATE else jnp.float32
    flat = traverse_util.flatten_dict(jax.device_get(trained.params), sep="/")
    arrays = {path: np.ascontiguousarray(leaf, stored) for path, leaf in flat.items()}
    content = to_bytes(arrays)
    if len(content) > MAX_BYTES:
        raise RequestError(
            f"{PREFIX}{name}: its weights take {len(content):,} bytes as {np.dtype(stored)}; "
            f"allowed: at most {MAX_BYTES:,}. Train a smaller network (model.width, model.widths)"
        )
    return content


def save(folder: pathlib.Path, trained: Trained, card: Mapping[str, Any]) -> None:
    """Writes a trained network in the form of networks that come with lensjax.

    Args:
      folder: to be made, such as `WEIGHTS_FOLDER / name`.
      trained: the network; a generator is rounded.
      card: facts about the network, JSON types; `sha256`, `checkpoint_step`, `ema` and
        `num_parameters` are added. A classifier's card has its `temperature`.

    Raises:
      RequestError: for the card of a classifier without a temperature, or more than `MAX_BYTES`;
        nothing is written.
    """
    if trained.config.task == CLASSIFY and "temperature" not in card:
        raise RequestError("card: got no temperature; a classifier needs one (1.0 for no change)")
    content = serialise(folder.name, trained)
    write_bytes(folder / _WEIGHTS, content)
    write_json(folder / files.CONFIG_FILE, {"config": to_dict(trained.config)})
    stored.write_dataset(folder / files.DATASET_FILE, trained.dataset)
    added = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "checkpoint_step": trained.step,
        "ema": trained.ema,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
    }
    write_json(folder / _CARD, {**card, **added})


def load_card(name: str, weights: pathlib.Path = WEIGHTS_FOLDER) -> dict[str, Any]:
    """Reads the card of a network that comes with lensjax.

    Raises:
      RequestError: for an unknown name.
      lensjax.errors.WorkdirError: for a card that is damaged.
    """
    path = weights / name / _CARD
    if not path.is_file():
        allowed = ", ".join(PREFIX + network for network in names(weights)) or "none"
        raise RequestError(f"{PREFIX}{name}: there is no such network; allowed: {allowed}")
    return stored.read_stored(path, stored.CARD)


def is_packed(folder: pathlib.Path) -> bool:
    """Whether a folder holds a network in the form of those that come with lensjax."""
    return (folder / _CARD).is_file() and (folder / _WEIGHTS).is_file()


def with_settings(name: str, config: Config, weights: pathlib.Path = WEIGHTS_FOLDER) -> Config:
    """The configuration of a network that comes with lensjax, with a user's settings for its use.

    Args:
      name: its name, without `pretrained/`.
      config: gives the fields that may differ on a resume (`sample.*`, `evaluate.*` and so on) but
        those of `train`. What the other fields say about the training is of no use here.
      weights: the folder that holds the network.

    Raises:
      ConfigError: if `config` is that of another network or other data.
      RequestError: for an unknown name.
    """
    card = load_card(name, weights)
    own, given = to_dict(files.load_config(weights / name)), to_dict(config)
    lines = differences(own, given)
    changed = [line for line in lines if line.partition(".")[0] in _OF_THE_NETWORK]
    if changed:
        raise ConfigError(
            "--workdir",
            PREFIX + name,
            "this network has another configuration; allowed: the same fields, or the --config of "
            f"the command that made it ({card.get('command', 'not known')}). These differ:\n  "
            + "\n  ".join(line.replace("the workdir", "the network") for line in changed),
        )
    for path, facts in facts_of_fields().items():
        section, _, field = path.rpartition(".")
        if facts.get("resumable") and section not in ("", "train"):
            own[section][field] = given[section][field]
    return from_config_dict(own)


def parameters_of(content: bytes, expected: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file as float32.

    Args:
      content: of the file. The library itself checks that the places of the arrays in it fit their
        shapes and dtypes and that nothing overlaps, before it reads any.
      expected: the shape of each array that the file must have, by name.

    Raises:
      UnusableError: for anything but these arrays, finite and in float32 or bfloat16.
    """
    from safetensors import SafetensorError, deserialize  # `safetensors.numpy` reads no bfloat16

    try:
        views = dict(deserialize(content))
    except (SafetensorError, ValueError, MemoryError, OverflowError) as error:
        raise UnusableError(f"is no sound safetensors file ({shown(str(error))})") from None
    for name in sorted(views.keys() | expected.keys()):
        view = views.get(name, {"shape": "missing", "dtype": "F32"})
        if list(view["shape"]) != list(expected.get(name, ())) or name not in expected:
            wanted = list(expected[name]) if name in expected else "nothing of this name"
            raise UnusableError(f"has {shown(name)} {shown(view['shape'])}; allowed: {wanted}")
        if view["dtype"] not in _DTYPES:
            raise UnusableError(
                f"has {shown(name)} in {shown(view['dtype'])}; allowed: {', '.join(_DTYPES)}"
            )
    arrays = {
        name: np.frombuffer(view["data"], _DTYPES[view["dtype"]])
        .reshape(view["shape"])
        .astype(np.float32)
        for name, view in views.items()
    }
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UnusableError(f"has numbers in {shown(name)} that are not finite")
    return arrays


def load_trained(name: str, weights: pathlib.Path = WEIGHTS_FOLDER) -> tuple[Trained, dict]:
    """Reads a network that comes with lensjax.

    Args:
      name: its name, without `pretrained/`.
      weights: the folder that holds it.

    Returns:
      The network and its card.

    Raises:
      RequestError: for an unknown name, or weights that are not those of the card.
    """
    card, folder = load_card(name, weights), weights / name
    config = files.load_config(folder)
    dataset = files.read_dataset(folder)
    check_fits(folder / files.DATASET_FILE, dataset, config)
    if config.task == CLASSIFY:
        card = stored.read_stored(folder / _CARD, stored.CARD_OF_CLASSIFIER)
    try:
        content = read_bytes(folder / _WEIGHTS, MAX_BYTES)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != card["sha256"]:
            raise UnusableError(f"has the SHA-256 {sha256}, but its card says {card['sha256']}")
        expected = abstract_state(config, tuple(dataset["image_shape"])).params
        shapes = traverse_util.flatten_dict(jax.tree.map(np.shape, expected), sep="/")
        params = traverse_util.unflatten_dict(parameters_of(content, shapes), sep="/")
    except (FileNotFoundError, UnusableError) as error:
        reason = error if isinstance(error, UnusableError) else "is missing"
        raise RequestError(f"{PREFIX}{name}: {_WEIGHTS} {reason}; reinstall lensjax") from None
    trained = Trained(config, dataset, params, card["checkpoint_step"], card["ema"], None)
    return trained, card
