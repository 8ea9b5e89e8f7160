"""Puts a trained network among those that come with lensjax.

    python benchmarks/ship.py --workdir=runs/rescnn --name=lens_classifier \
        --command="python -m lensjax.main --config=configs/classifier_rescnn.py"

writes `lensjax/weights/NAME/`. The numbers of a classifier's card are those of `--mode=evaluate`,
which comes first. A generator is rounded to bfloat16 and judged here as it is then, in
`WORKDIR/shipped/`; killed, the same command goes on with the images that were drawn.
"""

import argparse
import json
import pathlib
from typing import Any

from absl import logging
from classifiers import training_minutes
from networks import overridden

from lensjax.config import Config
from lensjax.config.model import CLASSIFY, GENERATE
from lensjax.evaluation.evaluate_generator import evaluate_generator
from lensjax.inference import pretrained
from lensjax.inference.classifier import load_classifier
from lensjax.inference.describe import weights_hash
from lensjax.inference.generator import LensGenerator
from lensjax.inference.trained import Trained, restore
from lensjax.run import workdir as files

_SCORES = ("num_images", "accuracy", "accuracy_error", "macro_auc", "recall", "auc", "ece")
_ROWS = ("generated", "real")


def _measured(folder: pathlib.Path) -> dict[str, Any]:
    """What an evaluation wrote."""
    return json.loads((folder / files.EVALUATION / "metrics.json").read_text(encoding="utf-8"))


def _origin(workdir: pathlib.Path, trained: Trained, command: str, note: str) -> dict[str, Any]:
    """What made a network: command, data, time, versions, hardware."""
    config = files.read_json(workdir / files.CONFIG_FILE)
    return {
        "command": command,
        "note": note,
        "trained_on": trained.dataset["name"],
        "data_fingerprint": trained.dataset["fingerprint"],
        "class_names": trained.dataset["class_names"],
        "training_minutes": round(training_minutes(workdir), 1),
        "versions": config["versions"],
        "hardware": config["hardware"],
    }


def classifier_card(workdir: pathlib.Path) -> dict[str, Any]:
    """The numbers of a classifier.

    Args:
      workdir: of the run; evaluated.
    """
    measured, classifier = _measured(workdir), load_classifier(workdir)
    if measured["protocol"]["checkpoint_step"] != classifier.step:
        raise SystemExit(f"{workdir} was trained on since it was evaluated; evaluate it again")
    return {
        "temperature": classifier.temperature,
        "test_scores": {
            level: {name: scores[name] for name in _SCORES}
            for level, scores in measured["scores"].items()
        },
        "protocol": measured["protocol"],
    }


def generator_card(trained: Trained, folder: pathlib.Path) -> dict[str, Any]:
    """Judges a generator and returns its numbers.

    Args:
      trained: the network with its parameters rounded.
      folder: where images and numbers go.
    """
    generator = LensGenerator(
        trained.config, trained.dataset, trained.params, trained.step, trained.ema
    )
    evaluate_generator(trained.config, folder, generator=generator)
    measured = _measured(folder)
    return {
        "verdict": measured["verdict"],
        "passed": measured["passed"],
        "checks": measured["checks"]["generated"],
        "measures": {
            name: {row: found["rows"][row] for row in _ROWS if row in found.get("rows", {})}
            for name, found in measured["measures"].items()
        },
        "protocol": measured["protocol"],
    }


def ship(
    workdir: pathlib.Path,
    config: Config,
    folder: pathlib.Path,
    command: str,
    note: str = "",
) -> None:
    """Writes a run as a network that comes with lensjax.

    Args:
      workdir: of the run.
      config: its configuration; what may differ on a resume comes with the network, as
        `sample.batch_size`, or decides how it is judged.
      folder: to be made, such as `pretrained.WEIGHTS_FOLDER / name`.
      command: what trained it.
      note: what else one should know.

    Raises:
      RequestError: for weights that take too much room; nothing was written.
    """
    trained = pretrained.rounded(restore(workdir, config, best=config.task == CLASSIFY))
    origin = _origin(workdir, trained, command, note)
    pretrained.serialise(folder.name, trained)  # refuses what is too large before it is judged
    if config.task == CLASSIFY:
        numbers = classifier_card(workdir)
    else:
        numbers = generator_card(trained, workdir / "shipped")
    pretrained.save(folder, trained, origin | numbers)
    loaded, card = pretrained.load_trained(folder.name, folder.parent)
    if config.task == GENERATE:
        judged = card["protocol"]["generated"]["weights_sha256"]
        assert weights_hash(loaded.params) == judged, "the weights are not those that were judged"


def main() -> None:
    """Reads a run and writes the network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--command", required=True, help="what trained it")
    parser.add_argument("--note", default="", help="what else one should know of it")
    parser.add_argument(
        "--set",
        nargs="*",
        default=(),
        metavar="FIELD=VALUE",
        help="fields of sample and evaluate: how it draws, and how it is judged",
    )
    arguments = parser.parse_args()
    logging.set_verbosity(logging.INFO)
    config = overridden(files.load_config(arguments.workdir), arguments.set)
    folder = pretrained.WEIGHTS_FOLDER / arguments.name
    ship(arguments.workdir, config, folder, arguments.command, arguments.note)
    print(json.dumps(pretrained.load_card(arguments.name), indent=2))


if __name__ == "__main__":
    main()
