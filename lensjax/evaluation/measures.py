"""All measures: what each is, what it needs, and the numbers of every row."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import logging

from lensjax.config.evaluate import MEASURES as NAMES
from lensjax.config.evaluate import measure_names
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
      title: of its section in the report.
      text: what it says, in words.
      missing: why it cannot be taken, with the remedy; None where it can.
      protocol: what its numbers depend on.
      measure: `(row, real, setting) -> numbers by group`.
    """

    name: str
    title: str
    text: str
    missing: Callable[[Setting], str | None]
    protocol: Callable[[Setting], Mapping[str, Any]]
    measure: Callable[[Row, Row, Setting], Mapping[str, Any]]


def _nothing(setting: Setting) -> str | None:
    return None


def _needs_forward_model(setting: Setting) -> str | None:
    if setting.survey is not None:
        return None
    return (
        f"{setting.info.name} has no noise-free forward model; the exact fits are for "
        "deeplense/model_i, model_ii and model_iii"
    )


def _needs_published_priors(setting: Setting) -> str | None:
    """The fits that assume the published Einstein radius of every class."""
    if setting.simulated is not None and setting.simulated.conserved:
        return "in a conserved set each lens has its own main halo"
    return _needs_forward_model(setting)


def _needs_disc(setting: Setting) -> str | None:
    if setting.disc:
        return _needs_forward_model(setting)
    return (
        "training left out no part of the sources; train with "
        "--config.data.exclude_source_disc=0.1,0.1,0.1 to test memory so"
    )


MEASURES = (
    Measure(
        "smooth_fit",
        "Is it a lens? The fit without sub-structure",
        "RMS(image - fit) / RMS(image) of the exact simulator's lens without sub-structure. For "
        "no_sub it is 0 for a perfect generator; for cdm and axion it is that of real images, and "
        "lower is as wrong as higher. p_x and p_y say whether the sources are spread as they "
        "should be: a generator that has collapsed has perfect residuals.",
        _needs_forward_model,
        physics_measures.protocol,
        physics_measures.smooth_fit,
    ),
    Measure(
        "axion_fit",
        "Axion vortices: a fit of source, mass and angle",
        "An axion image has four numbers. The share counts images that such a vortex explains to "
        "3 % with a mass within the prior. Above 10^-22.5 eV the vortex is nearly a point, and "
        "mass and angle mean little.",
        _needs_forward_model,
        physics_measures.protocol,
        physics_measures.axion_fit,
    ),
    Measure(
        "potential_fit",
        "Sub-haloes: what a free potential leaves",
        "What a correction of the lens potential by 15x15 B-splines leaves of cdm images. "
        "Necessary, not sufficient; lower than real is as wrong as higher. residual_power compares "
        "the power spectra of what the smooth lens leaves.",
        _needs_published_priors,
        physics_measures.protocol,
        physics_measures.potential_fit,
    ),
    Measure(
        "free_fit",
        "A lens with free Einstein radius, ellipticity and shear",
        "Bias (median less truth) and scatter. For cdm and axion, whose sub-structure widens the "
        "ring, the real row says what is right.",
        _needs_published_priors,
        physics_measures.protocol,
        physics_measures.free_fit,
    ),
    Measure(
        "shapes",
        "Fluxes and shapes without a model",
        "How far each distribution lies from that of real images: Wasserstein distance in standard "
        "deviations above the floor, which is that of real images among themselves. Two and less "
        "is nothing. metrics.json has the distances, their floors and KS.",
        _nothing,
        shape_measures.protocol,
        shape_measures.shapes,
    ),
    Measure(
        "classes",
        "Does the class survive?",
        "What a classifier trained on real images takes the images for. More accuracy than on real "
        "images is a fault too (too much guidance). On the plain sets the radius of the ring alone "
        "gives a class away to 89 %, so that this is no evidence of seeing sub-structure.",
        feature_measures.classes_missing,
        feature_measures.protocol_of_classes,
        feature_measures.classes,
    ),
    Measure(
        "taught",
        "What do they teach?",
        "A small classifier is trained on the images and asked about real ones that it has not "
        "seen; beside it stand networks that were trained alike on as many real images. p is the "
        "probability of an accuracy as low if the images were real; a higher one is no fault. "
        "real_accuracy_deviation is the spread between trainings on real images.",
        taught_measures.missing,
        taught_measures.protocol,
        taught_measures.taught,
    ),
    Measure(
        "c2st",
        "Can a network tell generated from real?",
        "Accuracy on images that it has not seen; one half is a perfect generator. It counts only "
        "where the same network finds its control, real images with a 30 % wider point-spread "
        "function. Without noise it is a diagnostic alone; the score is taken behind the "
        "instrument's noise.",
        _nothing,
        judge_measures.protocol,
        judge_measures.c2st,
    ),
    Measure(
        "lens_features",
        "Distances in the features of a lens classifier",
        "Frechet distance with its floor (real training images against the test split), the "
        "unbiased kernel distance (KID), precision, recall, density and coverage. Noise-free "
        "numbers are a diagnostic; the score is taken behind noise.",
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
        "Images whose nearest other one is nearer than any two real images are. A generator that "
        "has collapsed has perfect residuals and many twins.",
        _nothing,
        memory_measures.protocol_of_twins,
        memory_measures.twins,
    ),
    Measure(
        "copies",
        "Copies of training images",
        "How many images are nearer to a training image than 99 % of the test images are. These "
        "sets have few dimensions, so that near neighbours are expected; more of them than in the "
        "test split are not.",
        _nothing,
        memory_measures.protocol_of_neighbours,
        memory_measures.copies,
    ),
    Measure(
        "residual_neighbours",
        "Remembered sub-structure",
        "The same for what the smooth fit leaves: sub-structure of a training image behind another "
        "source. power is the share of planted copies, as imperfect as this generator, that the "
        "test recognises.",
        _needs_published_priors,
        memory_measures.protocol_of_neighbours,
        memory_measures.residual_neighbours,
    ),
    Measure(
        "hole",
        "Sources that training left out",
        "Density of fitted sources inside the disc that training left out, over the prior's. A "
        "generator that has learned lenses fills it.",
        _needs_disc,
        physics_measures.protocol,
        memory_measures.hole,
    ),
)
assert tuple(measure.name for measure in MEASURES) == NAMES


def missing_measures(setting: Setting) -> dict[str, str]:
    """Why measures cannot be taken, by name; those that can are not in it."""
    asked = measure_names(setting.settings.measures)
    found = {}
    for measure in MEASURES:
        if measure.name in asked:
            reason = measure.missing(setting)
        else:
            reason = "not asked for by evaluate.measures"
        if reason is not None:
            found[measure.name] = reason
    return found


def _key(measure: Measure, row: Row, setting: Setting) -> dict[str, Any]:
    """What the numbers of a row depend on that is the same for every generator."""
    settings = setting.settings
    return {
        "measure": measure.name,
        "row": row.name,
        "data": setting.info.name,
        "data_fingerprint": setting.info.fingerprint,
        "images_per_class": setting.per_class,
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
      references: real images first, then the baselines; their numbers are kept for the next time.
      setting: what all rows share.
      missing: why measures cannot be taken, by name.

    Returns:
      By name of the measure: `status`, and `protocol` and `rows` or a `reason`.

    Raises:
      MeasureError: where a measure that `evaluate.require` names cannot take these images.
    """
    results: dict[str, Any] = {}
    for measure in MEASURES:
        if measure.name in missing:
            results[measure.name] = {"status": "not measured", "reason": missing[measure.name]}
            continue
        logging.info("measuring %s", measure.name)
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
            results[measure.name] = {"status": "not measured", "reason": str(error)}
            continue
        protocol = measure.protocol(setting)
        results[measure.name] = {"status": "measured", "protocol": protocol, "rows": rows}
    return results
