"""What all cases share: small images, a finished run of each task, and the right results."""

import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from campaign import judge
from campaign.lab import Ended, Lab

STEPS, EVERY = 12, 4
_RESULTS = ("generated", "measures", "cpu", "shards", "state", "losses", "exported", "classified")
_SIDE = 16
_GENERATOR: dict[str, Any] = {
    "model.width": 8,
    "model.depth": 1,
    "model.num_heads": 2,
    "train.batch_size": 8,
    "train.num_steps": STEPS,
    "train.checkpoint_every": EVERY,
    "train.keep_last": 3,
    "train.evaluate_images": 6,
    "train.sample_every": STEPS,
    "train.evaluate_every": STEPS,
    "sample.guidance": 1.0,
    "sample.num_images": 6,
    "sample.batch_size": 6,
    "evaluate.num_images": 4,
    "evaluate.measures": "shapes",
}
_CLASSIFIER: dict[str, Any] = {
    "train.batch_size": 8,
    "train.num_steps": STEPS,
    "train.checkpoint_every": EVERY,
    "train.keep_last": 3,
    "train.evaluate_images": 6,
    "train.evaluate_every": EVERY,
    "classify.validation_share": 0.25,
    "classify.batch_size": 4,
    "evaluate.num_images": 4,
}


def write_images(folder: pathlib.Path, num_train: int = 8, seed: int = 0) -> None:
    """Writes a user's folder: three classes, two splits, small random images."""
    rng = np.random.default_rng(seed)
    for split, number in (("train", num_train), ("test", 4)):
        for brightness, name in enumerate(("a", "b", "c"), 1):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                image = brightness * rng.gamma(2.0, 1.0, (_SIDE, _SIDE))
                np.save(folder / split / name / f"{index}.npy", image.astype(np.float32))


class World:
    """Templates that cases copy, and the results of undisturbed commands.

    Args:
      lab: runs the commands.

    Attributes:
      lab: see above.
      images: the user's folder.
      run: a finished generator, with the folders of all modes.
      half: the same run as it was after step 8.
      other: a finished run of another seed.
      classifier: a finished classifier.
      cpu: seconds of processor time of each mode.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        root = lab.scratch / "world"
        self.images, self.run, self.half = root / "images", root / "run", root / "half"
        self.other, self.classifier = root / "other", root / "classifier"
        self.generated: dict[tuple[int, int], str] = {}
        self.measures: dict[int, str] = {}
        self.cpu: dict[str, float] = {}

    def flags(
        self, workdir: pathlib.Path | str, mode: str = "train", /, **changes: Any
    ) -> list[str]:
        """The command line of a mode; `train__num_steps=8` sets a field."""
        classifies = mode == "classify" or changes.pop("classifier", False)
        values = {"data.name": "deeplense/folder", "data.folder": os.fspath(self.images)}
        values |= {"model.num_classes": 3} | (_CLASSIFIER if classifies else _GENERATOR)
        values |= {name.replace("__", "."): value for name, value in changes.items()}
        name = "smoke_classifier" if classifies else "smoke"
        line = [f"--config={self.lab.tree}/configs/{name}.py", f"--mode={mode}"]
        line += [f"--workdir={workdir}"] + [f"--images={self.images / 'test'}"] * (
            mode == "classify"
        )
        return line + [f"--config.{name}={value}" for name, value in values.items()]

    def flags_of_simulated(self, directory: pathlib.Path) -> list[str]:
        """The command line that builds a simulated set."""
        config = f"--config={self.lab.tree}/configs/smoke.py"
        return [config, "--mode=build_data", f"--config.data.directory={directory}"]

    def load_or_prepare(self) -> None:
        """Takes what an earlier campaign left in this folder, or makes it."""
        place = self.run.with_name("results.json")
        kept = judge.read_json(place)
        if kept is not None:
            kept["generated"] = {tuple(key): value for key, value in kept["generated"]}
            kept["measures"] = {int(step): text for step, text in kept["measures"].items()}
            kept["losses"] = [tuple(pair) for pair in kept["losses"]]
            vars(self).update(kept)
            return
        shutil.rmtree(self.run.parent, ignore_errors=True)
        self.prepare()
        results = {name: getattr(self, name) for name in _RESULTS}
        results["generated"] = list(self.generated.items())
        place.write_text(json.dumps(results))

    def prepare(self) -> None:
        """Makes templates and right results.

        Raises:
          SystemExit: where an undisturbed command fails.
        """
        write_images(self.images)
        self._do("train", self.flags(self.run))
        self._do("train", self.flags(self.other, seed=1))
        self._do("train", self.flags(self.classifier, classifier=True))
        self._split_off_half()
        for workdir, step in ((self.run, STEPS), (self.half, 2 * EVERY)):
            self._sample(workdir, step, 0)
            self._evaluate(workdir, step)
        early = self.half.with_name("early")
        shutil.copytree(self.half, early)
        shutil.rmtree(early / "checkpoints" / str(2 * EVERY))
        self._sample(early, EVERY, 0)
        self._evaluate(early, EVERY)
        shutil.rmtree(early)
        self._sample(self.run, STEPS, 1, sample__num_images=3)  # the last, so that it lies there
        shutil.rmtree(self.half / "generated")
        shutil.rmtree(self.half / "evaluation")
        self._do("export", self.flags(self.run, "export"))
        self._do("classify", self.flags(self.classifier, "classify"))
        self._build()
        self.state = judge.state_of(self.run, STEPS) or {}
        self.losses = judge.losses_of(self.run)
        self.exported = judge.export_files(self.run / "export")
        self.classified = judge.table_rows(self.classifier / "classified.csv") or []
        if not (self.state and len(self.losses) == STEPS and self.exported and self.classified):
            raise SystemExit("the undisturbed commands did not write what they should")

    def _do(self, mode: str, line: list[str]) -> Ended:
        running = self.lab.start(line)
        ended = running.wait()
        if ended.status != 0:
            raise SystemExit(
                f"undisturbed, {mode} ends with {ended.status}:\n{ended.errors[-2000:]}"
            )
        self.cpu[mode] = running.most_cpu
        return ended

    def _split_off_half(self) -> None:
        """The run as a kill after step 8 would have left it."""
        shutil.copytree(self.run, self.half)
        shutil.rmtree(self.half / "checkpoints" / str(STEPS))
        lines = (self.half / "metrics.jsonl").read_text().splitlines(keepends=True)
        (self.half / "metrics.jsonl").write_text("".join(lines[: 2 * EVERY]))

    def _sample(self, workdir: pathlib.Path, step: int, seed: int, **changes: Any) -> None:
        self._do("sample", self.flags(workdir, "sample", sample__seed=seed, **changes))
        self.generated[step, seed] = judge.digest(workdir / "generated" / "images.npy")

    def _evaluate(self, workdir: pathlib.Path, step: int) -> None:
        self._do("evaluate", self.flags(workdir, "evaluate"))
        content = judge.read_json(workdir / "evaluation" / "metrics.json")
        self.measures[step] = judge.measures_text(content)

    def _build(self) -> None:
        """The right shards of both kinds of sets."""
        self.shards = {}
        for name, line in (
            ("build_folder", self.flags("unused", "build_data")),
            ("build_simulated", []),
        ):
            place = self.lab.scratch / "world" / name
            line = line or self.flags_of_simulated(place)
            self._do(name, [*line, f"--config.data.directory={place}"])
            info = next(place.rglob("dataset_info.json"))
            self.shards[name] = judge.shards(info.parent)
