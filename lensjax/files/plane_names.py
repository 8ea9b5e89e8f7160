"""What the name of a plane or of a file says about its content: an image, or errors, a mask ..."""

import functools
import re
from collections.abc import Iterator

# Kinds of planes that are no images, and the words that name them. The kinds that training can use
# come from `VARIANCES` and `MASKS`.
_WORDS = {
    "variance": "VAR VARIANCE",
    "inverse variance": "IVAR INVVAR IVM INVERSEVARIANCE",
    "weight": "WHT WEIGHT WEIGHTS WGT WT EXPWT NWGT",
    "standard deviation": "RMS ERR ERROR ERRORS SIGMA STD STDEV STDDEV UNC UNCERT UNCERTAINTY "
    "UNCERTAINTIES NOISE READNOISE RNOISE MUNC",
    "mask": "MASK MASKS MSK FLAG FLAGS FLG DQ BPM BADPIX BADPIXEL BADPIXELS CRMASK MASKBITS "
    "MASKBIT QUALITY QUAL MDMSK SATURATION",
    "map of good pixels": "VALID GOOD GOODPIX GOODPIXEL GPM",
    "segmentation": "SEG SEGM SEGMENTATION SEGMENTS LABELMAP",
    "exposure": "EXP EXPOSURE EXPTIME TIME NEXP NIMG NUMEXP NUM",
    "coverage": "CTX CON CONTEXT COV COVERAGE MCOV CONF CONFIDENCE SAMP NHITS HITS NINPUT",
    "point-spread function": "PSF PSFS KERNEL PRF",
    "background": "SKY BKG BKGD BG BGD BACK BACKGROUND BACKGROUNDS",
    "model": "MODEL MODELS MOD MDL BGMOD",
    "residual": "RESID RESIDUAL RESIDUALS RES",
    "goodness of fit": "CHI CHI2 CHISQ CHISQUARE CHISQUARED SNR SIGNIFICANCE",
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS.items() for word in words.split()}
VARIANCES = ("variance", "inverse variance", "standard deviation", "weight")
MASKS = ("mask", "map of good pixels")

# Words in front of and behind such a word that do not change what it names: RMSMAP, SCIERR.
_BEFORE = "(?:SCI|IMG|IMAGE|INV|BAD|BADPIX|PIX|CR|FULL|TOTAL|TOT)?"
_BEHIND = "(?:MAPS?|IMG|IMAGES?|IM|ARR|ARRAY|DATA|PLANE|EXT|FRAME|ARRAYS)?"
# A word that is followed by one of these names what was taken away, or done: BKG_SUB is an image.
_UNDONE = re.compile(
    r"SUB|SUBTR|SUBTRACT|SUBTRACTED|SUBTRACTION|REMOVED|FREE|LESS|MATCH|MATCHED|CORR|CORRECTED|"
    r"CONV|CONVOLVED|HOMOG|HOMOGENISED|HOMOGENIZED|ADDED"
)
_NUMERAL = re.compile(r"\d+|I{1,3}V?|IV|VI{0,3}")
# Sets are called model_ii, exposures exp_1: with a number behind them the words name no plane.
_NUMBERED = ("MODEL", "EXP", "EXPOSURE", "MOD", "NUM", "TIME", "RES", "CON", "BACK")
_NEGATED = ("NO", "NON", "WITHOUT", "WITH", "PLUS", "IN")
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _pieces(name: str) -> list[str]:
    """The parts of a name in capitals: at signs that are no letters, camelCase, and digits."""
    return [piece.upper() for piece in _PIECES.findall(name)]


@functools.lru_cache(maxsize=4096)
def _kind_of_piece(piece: str) -> str | None:
    """The kind that one part names, also where a word is joined with others, as RMSMAP."""
    if piece in _KIND_OF_WORD:
        return _KIND_OF_WORD[piece]
    for word, kind in _KIND_OF_WORD.items():
        if re.fullmatch(f"{_BEFORE}{word}{_BEHIND}", piece):
            return "inverse variance" if piece.startswith("INV") and kind == "variance" else kind
    return None


def _names_image(piece: str) -> bool:
    """Whether a part says itself that something was taken away, such as BKGSUB or PSFMATCHED."""
    for word in _KIND_OF_WORD:
        if piece.startswith(word) and _UNDONE.fullmatch(piece[len(word) :]):
            return True
    return False


def _found(pieces: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yields the kinds that the parts name: place, number of parts, and kind."""
    place = 0
    while place < len(pieces):
        joined = "".join(pieces[place : place + 2])
        # STDEV may be written stDev, and INVVAR as InvVar: two parts, one word.
        length = 2 if place + 2 <= len(pieces) and joined in _KIND_OF_WORD else 1
        word = joined if length == 2 else pieces[place]
        kind = _kind_of_piece(word)
        if kind is not None and not _names_image(word):
            yield place, length, kind
        place += length


@functools.lru_cache(maxsize=4096)  # all files of a folder have the same planes
def kind_of(name: str) -> str | None:
    """The kind of a plane by the parts of its name, whatever their case.

    The last part that names a kind decides: `PSF_ERR` holds errors.

    Args:
      name: of a FITS extension or an array, or the stem of a file's name.

    Returns:
      A key of the table above, such as `mask`; None for a name that may be an image's.
    """
    pieces = _pieces(name)
    kind = None
    for place, length, found in _found(pieces):
        behind = pieces[place + length] if place + length < len(pieces) else ""
        before = pieces[place - 1] if place else ""
        word = "".join(pieces[place : place + length])
        numbered = word in _NUMBERED and _NUMERAL.fullmatch(behind)
        if _UNDONE.fullmatch(behind) or numbered or before in _NEGATED:
            continue
        if not (found == "standard deviation" and kind in VARIANCES):  # VAR_RNOISE is a variance
            kind = found
    return kind


_IMAGE_WORDS = ("SCI", "SCIENCE", "IMAGE", "IMAGES", "IMG", "DATA", "FLUX", "BGSUB", "BKGSUB")


@functools.lru_cache(maxsize=4096)
def subject_of(name: str) -> tuple[str, ...]:
    """The parts of a name that say what a plane belongs to: `VIS` of `VIS_BGSUB` and `VIS_RMS`."""
    pieces = _pieces(name)
    gone = {index for place, length, _ in _found(pieces) for index in range(place, place + length)}
    return tuple(
        piece
        for index, piece in enumerate(pieces)
        if not (
            index in gone
            or piece in _IMAGE_WORDS
            or _names_image(piece)
            or _UNDONE.fullmatch(piece)
        )
    )
