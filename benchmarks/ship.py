"""Puts a trained and evaluated classifier among the networks that come with lensjax.

    python benchmarks/ship.py --workdir=runs/rescnn --name=lens_classifier \
        --command="python -m lensjax.main --config=configs/classifier_rescnn.py"

writes `lensjax/weights/NAME/`; the numbers of its card are those of `--mode=evaluate`.
"""

import argparse
import json
import pathlib

from classifiers import training_minutes

from lensjax import pretrained
from lensjax import workdir as files
from lensjax.classifier import load_classifier
from lensjax.trained import restore

_SCORES = ("num_images", "accuracy", "accuracy_error", "macro_auc", "recall", "auc", "ece")


def make_card(workdir: pathlib.Path, command: str) -> dict:
    """Returns what is known of a classifier: numbers, command, where and how long it was trained.

    Args:
      workdir: of the run; evaluated.
      command: what trained it.
    """
    measured = json.loads((workdir / files.EVALUATION / "metrics.json").read_text())
    config = files.read_json(workdir / files.CONFIG_FILE)
    classifier = load_classifier(workdir)
    if measured["protocol"]["checkpoint_step"] != classifier.step:
        raise SystemExit(f"{workdir} was trained on since it was evaluated; evaluate it again")
    return {
        "command": command,
        "trained_on": classifier.data_name,
        "data_fingerprint": classifier.data_fingerprint,
        "class_names": list(classifier.class_names),
        "temperature": classifier.temperature,
        "test_scores": {
            level: {name: scores[name] for name in _SCORES}
            for level, scores in measured["scores"].items()
        },
        "protocol": measured["protocol"],
        "training_minutes": round(training_minutes(workdir), 1),
        "versions": config["versions"],
        "hardware": config["hardware"],
    }


def main() -> None:
    """Reads a run and writes the network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--command", required=True, help="what trained it")
    arguments = parser.parse_args()
    trained = restore(arguments.workdir, files.load_config(arguments.workdir), best=True)
    card = make_card(arguments.workdir, arguments.command)
    pretrained.save(pretrained.WEIGHTS_FOLDER / arguments.name, trained, card)
    print(json.dumps(pretrained.load_card(arguments.name), indent=2))


if __name__ == "__main__":
    main()
