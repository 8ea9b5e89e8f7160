"""`--mode=evaluate`: draws or reads images, measures them, and writes numbers and a report."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from lensjax.config import Config, DataConfig
from lensjax.config.data import foreign_rules
from lensjax.config.evaluate import measure_names
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.devices.hosts import gather_texts, is_main
from lensjax.errors import DataError
from lensjax.evaluation import measures, report, tables
from lensjax.evaluation.baselines import baseline_rows
from lensjax.evaluation.checks import check_row
from lensjax.evaluation.drawing import draw_or_read
from lensjax.evaluation.given import check_images, labels_file, read_images
from lensjax.evaluation.goals import Check
from lensjax.evaluation.real import RealImages
from lensjax.evaluation.results import new_results, results_folder
from lensjax.evaluation.rows import Row, Setting
from lensjax.evaluation.verdict import judge
from lensjax.files.atomic import write_json
from lensjax.files.cache_folder import cache_folder
from lensjax.inference.describe import describe
from lensjax.inference.generator import LensGenerator, load_generator
from lensjax.run import datasets, provenance
from lensjax.run import workdir as files
from lensjax.run.figures import save_png
from lensjax.run.writers import show

HEADLINE_IMAGES = 5_000
GENERATED = "generated"
_DRAWN = "drawn"


def make_setting(config: Config, real: RealImages, *, labelled: bool = True) -> Setting:
    """Makes the setting that all rows of an evaluation share.

    Args:
      config: the configuration.
      real: the real images.
      labelled: whether the images that are judged have labels.
    """
    settings = config.evaluate
    return Setting(
        info=dataclasses.replace(real.info, image_shape=real.test.images.shape[1:]),
        simulated=SIMULATED_SETS.get(config.data.name),
        settings=settings,
        per_class=real.per_class,
        cache=cache_folder(settings.cache),
        real_images=real,
        disc=config.data.exclude_source_disc,
        labelled=labelled,
    )


def _read_row(path: pathlib.Path, setting: Setting, data: DataConfig) -> Row:
    """A row of the images of a file, at most as many as there are real ones.

    Its setting has the number of images that the file brings: floors and baselines have as many.
    """
    real = setting.real_images.test.images
    rules = foreign_rules(data, setting.settings.planes)
    images, labels = read_images(path, setting.settings, setting.info, real, *rules)
    label_values = np.unique(labels)
    per_label, num_classes = setting.per_class, max(1, setting.info.num_classes)
    if label_values.tolist() == [setting.info.num_classes]:  # images of any class
        per_label *= num_classes
    places = [np.flatnonzero(labels == label)[:per_label] for label in label_values]
    chosen = np.sort(np.concatenate(places))
    judged = dataclasses.replace(setting, per_class=max(1, len(chosen) // num_classes))
    return Row(GENERATED, images[chosen], labels[chosen], judged)


def _drawn_row(
    name: str, generator: LensGenerator, guidance: float, setting: Setting, folder: pathlib.Path
) -> Row:
    sample = generator.config.sample
    if guidance != sample.guidance:
        sample = generator.settings(guidance=guidance)
    num_images = setting.per_class * max(1, len(generator.class_names))
    images = draw_or_read(generator, sample, num_images, folder / name.replace(" ", "_"))
    images = check_images(images, setting.info, f"checkpoint {generator.step}")
    return Row(name, images, generator.labels(None, num_images), setting)


def _subjects(
    config: Config,
    drawn: pathlib.Path,
    images: pathlib.Path | None,
    generator: LensGenerator | None,
    setting: Setting,
) -> tuple[list[Row], dict[str, Any]]:
    """The rows to be judged, and the settings that their images depend on."""
    if images is not None:
        return [_read_row(images, setting, config.data)], {"images": str(images)}
    assert generator is not None
    guidance = config.sample.guidance
    logging.info("%d images per class at step %d", setting.per_class, generator.step)
    rows = [_drawn_row(GENERATED, generator, guidance, setting, drawn)]
    if guidance != 1:
        rows.append(_drawn_row(f"{GENERATED} at guidance 1", generator, 1.0, setting, drawn))
    return rows, describe(generator, generator.config.sample)


def _missing_anywhere(missing: Mapping[str, str]) -> dict[str, str]:
    """Measures missing on any host: no host takes them, since all measure together."""
    reasons: dict[str, str] = {}
    for text in reversed(gather_texts(json.dumps(dict(missing)), "what is missing")):
        reasons |= json.loads(text)
    return reasons


def _check_required(config: Config, missing: Mapping[str, str]) -> None:
    wanted = [name for name in measure_names(config.evaluate.require) if name in missing]
    if wanted:
        lines = "; ".join(f"{name}: {missing[name]}" for name in wanted)
        raise DataError(f"evaluate.require names measures that cannot be taken: {lines}")


def _protocol(origin: Mapping[str, Any], subject: Row) -> dict[str, Any]:
    setting = subject.setting
    info, of_class = setting.info, {name: len(n) for name, n in subject.groups.items()}
    return {
        "generated": dict(origin),
        "real": "the first images of each class of the test split",
        "data": info.name,
        "data_fingerprint": info.fingerprint,
        "bands": list(info.bands),
        "images_per_class": setting.per_class,
        "images_of_class": of_class,
        "real_images_per_class": setting.real_images.per_class,
        "comparable_with_the_headline": set(of_class.values()) == {HEADLINE_IMAGES},
        "image_scale": setting.settings.image_scale,
        "image_factor": setting.settings.image_factor,
        "share_of_masked_pixels_filled": setting.real_images.share_filled,
        "seed": setting.settings.seed,
        "excluded_source_disc": list(setting.disc),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "hardware": provenance.hardware(),
    }


def _show_in_tensorboard(
    folder: pathlib.Path, step: int, results: Mapping[str, Any], checks: Sequence[Check]
) -> None:
    scalars = {
        f"{name}/{place}": float(value)
        for name, result in results.items()
        for place, value in tables.flat(result.get("rows", {}).get(GENERATED, {})).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    scalars["goals_missed"] = float(sum(check.outcome == "missed" for check in checks))
    show(folder, step, scalars)


def evaluate_generator(
    config: Config,
    folder: pathlib.Path,
    images: pathlib.Path | None = None,
    generator: LensGenerator | None = None,
    output: pathlib.Path | None = None,
) -> None:
    """Compares images with the test split; prints the verdict, writes numbers and a report.

    Args:
      config: the configuration.
      folder: the run's workdir; with `images` or `generator` any folder that can be created.
      images: a file of images of any generator; None draws them.
      generator: draws the images; None for that of the run.
      output: where `evaluation/` goes; None for `folder`.

    Raises:
      ConfigError: for more images than the test split has.
      DataError: for a set or a file that cannot be judged, or a required measure that is missing.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if there is no sound checkpoint.
    """
    if images is None and generator is None:
        files.check_same(folder, config)  # before a set is built for nothing
    target = results_folder(output or folder)
    real_images = RealImages(config, datasets.prepare(config.data))
    labelled = images is None or labels_file(images, config.evaluate) is not None
    setting = make_setting(config, real_images, labelled=labelled)
    missing = _missing_anywhere(measures.missing_measures(setting))
    _check_required(config, missing)
    if images is None:
        generator = generator or load_generator(folder, config)
    subjects, origin = _subjects(config, target / _DRAWN, images, generator, setting)
    setting = subjects[0].setting
    real = Row("real", real_images.test.images, real_images.test.labels, setting)
    references = [real, *baseline_rows(setting)]
    results = measures.measure_rows(subjects, references, setting, missing)

    if is_main():
        _write(target, setting, subjects, real, results, origin)


def _write(
    target: pathlib.Path,
    setting: Setting,
    subjects: Sequence[Row],
    real: Row,
    results: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> None:
    """Writes numbers and report into a folder, and prints the verdict."""
    survey = setting.survey.name if setting.survey else None
    checks = {row.name: check_row(results, row.name, survey) for row in subjects}
    verdict = judge(results, GENERATED, checks[GENERATED], survey, trained="images" not in origin)
    content = {
        "verdict": list(verdict.sentences),
        "passed": verdict.passed,
        "checks": {name: [check._asdict() for check in goals] for name, goals in checks.items()},
        "measures": results,
        "protocol": _protocol(origin, subjects[0]),
    }
    # Printed first: the numbers were measured, whatever the disk does.
    print(tables.text(results, GENERATED, checks[GENERATED], verdict), flush=True)
    with new_results(target) as new:
        write_json(new / "metrics.json", tables.plain(content))
        save_png(new / "grid.png", report.grid(subjects[0], real))
        report.write(new / "report.html", content, subjects[0], real, setting, checks[GENERATED])
    _show_in_tensorboard(target, origin.get("checkpoint_step", 0), results, checks[GENERATED])
    logging.info("numbers: %s; report: %s", target / "metrics.json", target / "report.html")
