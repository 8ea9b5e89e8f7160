"""All measures: their descriptions, their requirements, and their numbers for every row."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import logging

from lensjax.config.evaluate import MEASURES as NAMES
from lensjax.config.evaluate import measure_names
from lensjax.devices.progress import progress_bar
from lensjax.errors import MeasureError
from lensjax.evaluation import (
    feature_measures,
    judge_measures,
    memory_measures,
    physics_measures,
    shape_measures,
    taught_measures,
)
from lensjax.evaluation.cache import cached_json
from lensjax.evaluation.rows import Row, Setting
from lensjax.evaluation.tables import plain
from lensjax.run import provenance


class Measure(NamedTuple):
    """One measure.

    Attributes:
      name: one of `config.evaluate.MEASURES`.
      title: title of its section in the report.
      text: its explanation in the report.
      missing: why the measure cannot be taken, with the remedy; None if it can.
      protocol: the settings that its numbers depend on.
      measure: `(row, real, setting) -> numbers by group`.
    """

    name: str
    title: str
    text: str
    missing: Callable[[Setting], str | None]
    protocol: Callable[[Setting], Mapping[str, Any]]
    measure: Callable[[Row, Row, Setting], Mapping[str, Any]]


def _nothing_missing(setting: Setting) -> str | None:
    return None


def _needs_forward_model(setting: Setting) -> str | None:
    if setting.survey is not None:
        return None
    return (
        f"{setting.info.name} has no noise-free forward model; the exact fits are for "
        "deeplense/model_i, model_ii and model_iii"
    )


def _needs_published_priors(setting: Setting) -> str | None:
    """Why fits that assume the published Einstein radius of every class are impossible."""
    if setting.simulated is not None and setting.simulated.conserved:
        return "in a conserved set each lens has its own main halo"
    return _needs_forward_model(setting)


def _needs_disc(setting: Setting) -> str | None:
    if setting.disc:
        return _needs_forward_model(setting)
    return (
        "training left out no source positions; to take this measure, train with "
        "--config.data.exclude_source_disc=0.1,0.1,0.1"
    )


MEASURES = (
    Measure(
        "smooth_fit",
        "Is it a lens? The fit without sub-structure",
        "RMS(image - fit) / RMS(image), where the fit is the exact simulator's lens without "
        "sub-structure. A perfect generator has a ratio of 0 for no_sub and the ratio of real "
        "images for cdm and axion; lower is as wrong as higher. p_x and p_y say whether the "
        "sources are spread as in the prior: a collapsed generator has perfect residuals.",
        _needs_forward_model,
        physics_measures.protocol,
        physics_measures.smooth_fit,
    ),
    Measure(
        "axion_fit",
        "Axion vortices: a fit of source, mass and angle",
        "Four numbers describe an axion image. possible_share is the share of images that such a "
        "vortex fits to 3 % with a mass within the prior. Above 10^-22.5 eV the vortex is nearly a "
        "point, and mass and angle mean little.",
        _needs_forward_model,
        physics_measures.protocol,
        physics_measures.axion_fit,
    ),
    Measure(
        "potential_fit",
        "Sub-haloes: residuals of a free potential",
        "Residuals of cdm images after a correction of the lens potential by 15x15 B-splines. "
        "A ratio like that of real images is necessary, not sufficient; lower is as wrong as "
        "higher. residual_power compares the power spectra of the residuals of the smooth lens.",
        _needs_published_priors,
        physics_measures.protocol,
        physics_measures.potential_fit,
    ),
    Measure(
        "free_fit",
        "A lens with free Einstein radius, ellipticity and shear",
        "Bias (median minus truth) and scatter. For cdm and axion, whose sub-structure widens the "
        "ring, the real row has the correct values.",
        _needs_published_priors,
        physics_measures.protocol,
        physics_measures.free_fit,
    ),
    Measure(
        "shapes",
        "Fluxes and shapes without a model",
        "How far each distribution is from that of real images: the Wasserstein distance in "
        "standard deviations above its floor, the distance between sets of real images. Values of "
        "two or less are no fault. metrics.json has these and the KS distances with their floors.",
        _nothing_missing,
        shape_measures.protocol,
        shape_measures.shapes,
    ),
    Measure(
        "classes",
        "Does the class survive?",
        "The classes that a classifier trained on real images predicts. A higher accuracy than on "
        "real images is a fault too (too much guidance). On the plain sets the ring's radius alone "
        "reaches 89 %, so a high accuracy does not show that sub-structure is recognised.",
        feature_measures.classes_missing,
        feature_measures.protocol_of_classes,
        feature_measures.classes,
    ),
    Measure(
        "taught",
        "What does a classifier learn from the images?",
        "A small classifier is trained on the images and tested on unseen real images. Networks "
        "trained in the same way on as many real images take the same test. p is the probability "
        "of such a low accuracy if the images were real; a higher accuracy is no fault. "
        "real_accuracy_deviation is the spread between training runs on real images.",
        taught_measures.missing,
        taught_measures.protocol,
        taught_measures.taught,
    ),
    Measure(
        "c2st",
        "Can a network tell generated from real?",
        "Accuracy on unseen images; for a perfect generator it is one half. It counts only where "
        "the same network detects its control, real images with a 30 % wider point-spread "
        "function. Without noise the accuracy is only a diagnostic; the score is taken with the "
        "instrument's noise.",
        _nothing_missing,
        judge_measures.protocol,
        judge_measures.c2st,
    ),
    Measure(
        "lens_features",
        "Distances in the features of a lens classifier",
        "Frechet distance with its floor (real training images against the test split), the "
        "unbiased kernel distance (KID), precision, recall, density and coverage. Noise-free "
        "numbers are a diagnostic; the score is taken with noise.",
        feature_measures.lens_network_missing,
        feature_measures.protocol_of_lens_features,
        feature_measures.lens_features,
    ),
    Measure(
        "inception",
        "Frechet distance of Inception features (FID)",
        "The canonical network of published FIDs. It has never seen a lens: compare only numbers "
        "of the same protocol.",
        feature_measures.inception_missing,
        feature_measures.protocol_of_inception,
        feature_measures.inception,
    ),
    Measure(
        "twins",
        "Does it repeat itself?",
        "Twins are images whose nearest neighbour is nearer than any two real images are to each "
        "other. A collapsed generator has perfect residuals and many twins.",
        _nothing_missing,
        memory_measures.protocol_of_twins,
        memory_measures.twins,
    ),
    Measure(
        "copies",
        "Copies of training images",
        "How many images are nearer to a training image than 99 % of the test images are. These "
        "sets have few dimensions, so near neighbours are expected, but no more of them than in "
        "the test split.",
        _nothing_missing,
        memory_measures.protocol_of_neighbours,
        memory_measures.copies,
    ),
    Measure(
        "residual_neighbours",
        "Memorised sub-structure",
        "The test for copies, on the residuals of the smooth fit: it finds the sub-structure of a "
        "training image even if the source differs. power is the share of planted copies, as "
        "imperfect as this generator's images, that the test recognises.",
        _needs_published_priors,
        memory_measures.protocol_of_neighbours,
        memory_measures.residual_neighbours,
    ),
    Measure(
        "hole",
        "Source positions that training left out",
        "Density of fitted sources inside the disc that training left out, relative to the prior. "
        "A generator that has learned lenses fills the disc.",
        _needs_disc,
        physics_measures.protocol,
        memory_measures.hole,
    ),
)
assert tuple(measure.name for measure in MEASURES) == NAMES


def missing_measures(setting: Setting) -> dict[str, str]:
    """Why measures cannot be taken, by name; measures that can be taken are left out."""
    asked = measure_names(setting.settings.measures)
    reasons = {}
    for measure in MEASURES:
        if measure.name in asked:
            reason = measure.missing(setting)
        else:
            reason = "not asked for by evaluate.measures"
        if reason is not None:
            reasons[measure.name] = reason
    return reasons


def _key(measure: Measure, row: Row, setting: Setting) -> dict[str, Any]:
    """The cache key of a row: all that its numbers depend on, the generator aside."""
    settings = setting.settings
    return {
        "measure": measure.name,
        "row": row.name,
        "data": setting.info.name,
        "data_fingerprint": setting.info.fingerprint,
        "images_per_class": setting.per_class,
        "real_images_per_class": setting.real_images.per_class,
        "train_images": settings.train_images,
        "image_scale": settings.image_scale,
        "seed": settings.seed,
        "disc": str(setting.disc),
        "code": provenance.code_that_measures(),
        "protocol": json.dumps(plain(measure.protocol(setting)), sort_keys=True),
    }


def _take(measure: Measure, row: Row, real: Row, setting: Setting) -> Any:
    return plain(measure.measure(row, real, setting))


def _measure_all(
    measure: Measure, subjects: Sequence[Row], references: Sequence[Row], setting: Setting
) -> dict[str, Any]:
    """Takes one measure of every row; see `measure_rows`."""
    real = references[0]
    rows = {row.name: measure.measure(row, real, setting) for row in subjects}
    for row in references:
        take = functools.partial(_take, measure, row, real, setting)
        rows[row.name] = cached_json(_key(measure, row, setting), take, setting.cache)
    return rows


def measure_rows(
    subjects: Sequence[Row],
    references: Sequence[Row],
    setting: Setting,
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """Takes every measure of every row.

    Args:
      subjects: the images that are judged.
      references: real images first, then the baselines; their numbers are cached.
      setting: shared by all rows.
      missing: why measures cannot be taken, by name.

    Returns:
      By name of the measure: `status`, with `protocol` and `rows` or with a `reason`.

    Raises:
      MeasureError: if a measure that `evaluate.require` names cannot take these images.
    """
    results: dict[str, Any] = {}
    with progress_bar(len(MEASURES), "Measuring", unit=" measures") as bar:
        for measure in MEASURES:
            bar.set_postfix_str(measure.name, refresh=False)
            reason = missing.get(measure.name)
            results[measure.name] = (
                _not_measured(reason) if reason else _result(measure, subjects, references, setting)
            )
            bar.update()
    return results


def _not_measured(reason: str) -> dict[str, Any]:
    return {"status": "not measured", "reason": reason}


def _result(
    measure: Measure, subjects: Sequence[Row], references: Sequence[Row], setting: Setting
) -> dict[str, Any]:
    """Takes one measure of every row; see `measure_rows`."""
    try:
        rows = _measure_all(measure, subjects, references, setting)
    except MeasureError as error:  # such as too few images, or black ones
        if jax.process_count() > 1:  # the other hosts would wait for this one
            raise
        if measure.name in measure_names(setting.settings.require):
            raise MeasureError(
                f"evaluate.require: {measure.name} cannot take these images: {error}"
            ) from None
        logging.warning("%s is not measured: %s", measure.name, error)
        return _not_measured(str(error))
    return {"status": "measured", "protocol": measure.protocol(setting), "rows": rows}
