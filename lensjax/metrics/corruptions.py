"""Known faults for real images: a judge must notice them before it may judge anything.

Each corruption takes the images of a split and returns as many images with one known fault. On
noise-free simulated sets a wider blur or another Einstein radius is rendered anew, so that only the
fault differs; on other images the fault is imitated where possible.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from lensjax.data.parameters import PARAMETER_NAMES, render_parameters
from lensjax.data.raytracing import SIGMA_PER_FWHM
from lensjax.data.surveys import Survey
from lensjax.errors import CorruptionError

NUM_COLLAPSED = 10
SPECKLE_SHARE_OF_PEAK = 0.01
SPECKLE_PIXELS = 2.0  # standard deviation of the smooth speckle's Gaussian
SHIFT_PIXELS = 0.25
GUIDANCE = 2.0
# Where the blur of the user's files is not known: the narrowest blur that pixels can sample.
UNKNOWN_FWHM_PIXELS = 2.0
_SOURCE_COLUMNS = [PARAMETER_NAMES.index(f"source_{axis}_arcsec") for axis in "xy"]
_THETA_E_COLUMN = PARAMETER_NAMES.index("theta_e_arcsec")

Images = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RealImages:
    """Real images, with labels and the data that corruptions need.

    Attributes:
      images: flux per pixel, float32 `[N, H, W, C]`, finite.
      labels: int32 `[N]`.
      survey: the DeepLense model; None if rendering cannot give the images (a set with noise,
        the user's files).
      parameters: float32 `[N, P]` in the order of `PARAMETER_NAMES`, with a survey.
      train_images: training images, for copies of them.
      train_labels: their labels.
      psf_fwhm_pixels: full width at half maximum of the blur, for images without a survey.
    """

    images: np.ndarray
    labels: np.ndarray
    survey: Survey | None = None
    parameters: np.ndarray | None = None
    train_images: np.ndarray | None = None
    train_labels: np.ndarray | None = None
    psf_fwhm_pixels: float = UNKNOWN_FWHM_PIXELS

    def __post_init__(self) -> None:
        """Checks shapes and pixels.

        Raises:
          CorruptionError: for shapes that do not fit, or pixels that are not finite.
        """
        count = len(self.images)
        if self.images.ndim != 4 or not count or self.labels.shape != (count,):
            raise CorruptionError(
                f"got images {self.images.shape} and labels {self.labels.shape}; allowed: "
                "[N, H, W, C] and [N]"
            )
        if not np.isfinite(self.images).all():
            raise CorruptionError("some images have values that are not finite; leave them out")
        if self.parameters is not None and len(self.parameters) != len(self.images):
            raise CorruptionError(
                f"got parameters of {len(self.parameters)} images; allowed: of {len(self.images)}"
                " images"
            )

    @property
    def lacks(self) -> Mapping[str, bool]:
        """Whether each input that a corruption may need is missing, by its name."""
        return {
            "the simulator": self.survey is None or self.parameters is None,
            "two classes": len(np.unique(self.labels)) < 2,
            "training images": self.train_images is None or self.train_labels is None,
        }

    def rows(self) -> list[np.ndarray]:
        """The places of the images of each class that occurs."""
        return [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]


def gaussian_blur(images: np.ndarray, sigma_pixels: float) -> np.ndarray:
    """Blurs images `[N, H, W, C]` by a Gaussian, exactly at all scales that the pixels resolve.

    In Fourier space, because a second blur is often narrower than a pixel, where a kernel sampled
    at whole pixels has almost no effect. The edge value is repeated.
    """
    height, width = images.shape[1:3]
    edge = int(4 * sigma_pixels + 8)
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="edge")
    rows, columns = padded.shape[1:3]
    squares = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(columns)[None] ** 2
    transfer = np.exp(-2 * (np.pi * sigma_pixels) ** 2 * squares).astype(np.float32)
    spectrum = np.fft.rfft2(padded, axes=(1, 2)) * transfer[None, ..., None]
    blurred = np.fft.irfft2(spectrum, s=(rows, columns), axes=(1, 2))
    return blurred[:, edge : edge + height, edge : edge + width].astype(np.float32)


def widen_psf(real: RealImages, seed: int, factor: float) -> Images:
    """Widens the point-spread function, by rendering with it or by a second Gaussian blur."""
    del seed
    if real.survey is None or real.parameters is None:
        more = np.sqrt(factor**2 - 1) * real.psf_fwhm_pixels * SIGMA_PER_FWHM
        return gaussian_blur(real.images, more), real.labels
    wider = dataclasses.replace(real.survey, psf_fwhm_arcsec=factor * real.survey.psf_fwhm_arcsec)
    return render_parameters(real.parameters, real.labels, wider), real.labels


def _speckle(real: RealImages, seed: int, sigma_pixels: float) -> Images:
    """Adds noise of 1 % of each image's peak, white or with a Gaussian's correlation."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal(real.images.shape, np.float32)
    if sigma_pixels:
        noise = gaussian_filter(noise, (0, sigma_pixels, sigma_pixels, 0), mode="wrap")
        noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    peak = real.images.max(axis=(1, 2, 3), keepdims=True)
    return real.images + SPECKLE_SHARE_OF_PEAK * peak * noise, real.labels


def _flip(real: RealImages, seed: int) -> Images:
    del seed
    return np.ascontiguousarray(real.images[:, :, ::-1]), real.labels


def _shift(real: RealImages, seed: int) -> Images:
    """Shifts along x by a cubic spline.

    On Model II the spline's error is 0.006 of an image's RMS; the shift itself changes 0.074 of the
    RMS. Unlike a shift in Fourier space, it makes no negative pixels that would give it away.
    """
    from scipy.ndimage import shift

    del seed
    rows = np.eye(real.images.shape[2])  # a spline is linear: its response to each pixel
    weights = shift(rows, (0, SHIFT_PIXELS), order=3, mode="nearest").astype(np.float32)
    return np.einsum("nhwc,wv->nhvc", real.images, weights, optimize=True), real.labels


def _stretch_theta_e(real: RealImages, seed: int) -> Images:
    del seed
    assert real.survey is not None  # see `Corruption.needs`
    assert real.parameters is not None
    parameters = real.parameters.copy()
    parameters[:, _THETA_E_COLUMN] *= 1.01
    return render_parameters(parameters, real.labels, real.survey), real.labels


def _shuffle_labels(real: RealImages, seed: int) -> Images:
    return real.images, np.random.default_rng(seed).permutation(real.labels)


def _scramble_half(real: RealImages, seed: int) -> Images:
    """Gives half of the images of each class random phases; keeps power spectrum and flux."""
    random, images = np.random.default_rng(seed), real.images.copy()
    for rows in real.rows():
        half = random.choice(rows, len(rows) // 2, replace=False)
        noise = random.standard_normal(images[half].shape, np.float32)
        phases = np.fft.rfft2(noise, axes=(1, 2))
        phases /= np.abs(phases)
        phases[:, 0, 0] = 1  # the sum of the pixels
        size = images.shape[1:3]
        spectrum = np.abs(np.fft.rfft2(images[half], axes=(1, 2))) * phases
        images[half] = np.fft.irfft2(spectrum, s=size, axes=(1, 2))
    return images, real.labels


def _collapse(real: RealImages, seed: int) -> Images:
    random, images = np.random.default_rng(seed), real.images.copy()
    for rows in real.rows():
        few = random.choice(rows, min(NUM_COLLAPSED, len(rows)), replace=False)
        images[rows] = real.images[np.resize(few, len(rows))]
    return images, real.labels


def _copy_training(real: RealImages, seed: int) -> Images:
    """Takes random training images of the same class, each once where there are enough."""
    assert real.train_images is not None  # see `Corruption.needs`
    assert real.train_labels is not None
    random, images = np.random.default_rng(seed), real.images.copy()
    for rows in real.rows():
        candidates = np.flatnonzero(real.train_labels == real.labels[rows[0]])
        if not len(candidates):
            raise CorruptionError(f"there are no training images of class {real.labels[rows[0]]}")
        chosen = random.choice(candidates, len(rows), replace=len(candidates) < len(rows))
        images[rows] = real.train_images[chosen]
    return images, real.labels


def _replace_class(real: RealImages, seed: int) -> Images:
    """Replaces the images of the second class by images of the last: cdm by `no_sub`."""
    random, images, rows = np.random.default_rng(seed), real.images.copy(), real.rows()
    replaced, shown = (rows[1], rows[-1]) if len(rows) > 2 else (rows[0], rows[1])
    chosen = random.choice(shown, len(replaced), replace=len(shown) < len(replaced))
    images[replaced] = real.images[chosen]
    return images, real.labels


def _drop_class(real: RealImages, seed: int) -> Images:
    """Leaves out the class that `_replace_class` replaces; returns fewer images than it takes."""
    del seed
    classes = np.unique(real.labels)
    is_kept = real.labels != (classes[1] if len(classes) > 2 else classes[0])
    return real.images[is_kept], real.labels[is_kept]


def _over_guide(real: RealImages, seed: int) -> Images:
    """Pushes each image away from the mean of all classes, as guidance does.

    Guidance g extrapolates from the expectation without a label to the expectation with a label:
    `x + (g - 1) (x - m)`. With a simulator, m is the mean over all classes for the same source: the
    image itself for its own class, and for each other class an image with the sub-structure of a
    random image of that class. Without a simulator, m is the mean of all images.
    """
    images = real.images
    if real.survey is None or real.parameters is None:
        mean = images.mean(axis=0, dtype=np.float64)[None].astype(np.float32)
    else:
        random, mean = np.random.default_rng(seed), np.zeros_like(images)
        for rows in real.rows():
            label = real.labels[rows[0]]
            parameters = real.parameters[random.choice(rows, len(images))]
            parameters[:, _SOURCE_COLUMNS] = real.parameters[:, _SOURCE_COLUMNS]
            labels = np.full(len(images), label, np.int32)
            drawn = render_parameters(parameters, labels, real.survey)
            own = (real.labels == label)[:, None, None, None]
            mean += np.where(own, images, drawn) / np.float32(len(real.rows()))
    return images + np.float32(GUIDANCE - 1) * (images - mean), real.labels


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One known fault.

    Attributes:
      name: short, for tables of numbers.
      description: the fault in words.
      function: `(real, seed) -> images float32 [N, H, W, C], labels int32 [N]`; pure.
      needs: keys of `RealImages.lacks` that the fault needs.
    """

    name: str
    description: str
    function: Callable[[RealImages, int], Images]
    needs: tuple[str, ...] = ()


def _flux(factor: float) -> Callable[[RealImages, int], Images]:
    return lambda real, seed: (np.float32(factor) * real.images, real.labels)


def _psf(factor: float) -> Callable[[RealImages, int], Images]:
    return functools.partial(widen_psf, factor=factor)


def _noise(sigma_pixels: float) -> Callable[[RealImages, int], Images]:
    return functools.partial(_speckle, sigma_pixels=sigma_pixels)


_SIMULATOR, _CLASSES, _TRAINING = ("the simulator",), ("two classes",), ("training images",)
CORRUPTIONS: Mapping[str, Corruption] = {
    corruption.name: corruption
    for corruption in (
        Corruption("psf_10", "point-spread function 10 % wider", _psf(1.1)),
        Corruption("psf_30", "point-spread function 30 % wider", _psf(1.3)),
        Corruption("speckle_white", "white noise of 1 % of the peak", _noise(0.0)),
        Corruption("speckle_smooth", "smooth noise of 1 % of the peak", _noise(SPECKLE_PIXELS)),
        Corruption("flip", "mirrored left to right", _flip),
        Corruption("shift", "shifted by a quarter pixel along x", _shift),
        Corruption("theta_e", "Einstein radius x 1.01", _stretch_theta_e, _SIMULATOR),
        Corruption("flux", "flux x 1.1", _flux(1.1)),
        Corruption("flux_1", "flux x 1.01", _flux(1.01)),
        Corruption("labels_shuffled", "labels shuffled between classes", _shuffle_labels, _CLASSES),
        Corruption("garbage_half", "half of the images with scrambled phases", _scramble_half),
        Corruption("collapse", f"{NUM_COLLAPSED} images a class, repeated", _collapse),
        Corruption("train_copies", "copies of training images", _copy_training, _TRAINING),
        Corruption("class_replaced", "cdm shown as no_sub images", _replace_class, _CLASSES),
        Corruption("class_absent", "no image of cdm", _drop_class, _CLASSES),
        Corruption("guidance", f"contrast as from guidance {GUIDANCE:g}", _over_guide, _CLASSES),
    )
}


def corrupt(name: str, real: RealImages, seed: int) -> Images:
    """Gives real images a known fault.

    Args:
      name: a key of `CORRUPTIONS`.
      real: the images, labels and the data that the fault needs.
      seed: for the random choices in the fault.

    Returns:
      Images, float32 `[N, H, W, C]`, and labels, int32 `[N]`; fewer for `class_absent`.

    Raises:
      CorruptionError: for an unknown name, or images that cannot have the fault.
    """
    if name not in CORRUPTIONS:
        raise CorruptionError(
            f"corruption {name!r} does not exist; allowed: {', '.join(CORRUPTIONS)}"
        )
    lacking = [need for need in CORRUPTIONS[name].needs if real.lacks[need]]
    if lacking:
        raise CorruptionError(f"{name} is not available: it needs {' and '.join(lacking)}")
    images, labels = CORRUPTIONS[name].function(real, seed)
    return images.astype(np.float32, copy=False), labels.astype(np.int32, copy=False)
