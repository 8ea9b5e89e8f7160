"""What the name of a plane or of a file says about its content: an image, or errors, a mask ..."""

import functools
import re
from collections.abc import Iterator

# Kinds of planes that are no images, and the words that name them. The kinds that training can use
# come from `VARIANCES` and `MASKS`.
_WORDS = {
    "variance": "VAR VARIANCE VARIANCES",
    "inverse variance": "IVAR IVARS INVVAR IVM INVVARIANCE INVERSEVARIANCE INVERSEVAR",
    "weight": "WHT WEIGHT WEIGHTS WGT EXPWT NWGT",
    "standard deviation": "RMS ERR ERRS ERROR ERRORS SIGMA SIGMAS STD STDS STDEV STDDEV UNC "
    "UNCERT UNCERTAINTY UNCERTAINTIES NOISE READNOISE RNOISE MUNC",
    "mask": "MASK MASKS MSK FLAG FLAGS FLG DQ BPM BADPIX BADPIXEL BADPIXELS CRMASK MASKBITS "
    "MASKBIT QUALITY QUAL MDMSK SATURATION",
    "map of good pixels": "VALID GOOD USABLE GOODPIX GOODPIXEL GPM",
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
_INVERSES = {
    "variance": "inverse variance",
    "inverse variance": "inverse variance",
    "mask": "map of good pixels",
    "map of good pixels": "mask",
}
_GOOD_PIXELS = "map of good pixels"
VARIANCES = ("variance", "inverse variance", "standard deviation", "weight")
MASKS = ("mask", "map of good pixels")

# Words in front of and behind such a word that do not change what it names: RMSMAP, SCIERR.
_BEFORE = "(?:SCI|IMG|IMAGE|BAD|BADPIX|PIX|CR|FULL|TOTAL|TOT)?"
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
# RMSmap is RMS and map, though its last capital begins no word.
_CAPITALS = "RMS|WHT|IVAR|PSF|ERR|VAR|STD|DQ|BPM|SEG|SKY|BKG|SCI|IMG"
_PIECES = re.compile(rf"(?:{_CAPITALS})(?=[a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


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
            return kind
    return None


def _names_image(piece: str) -> bool:
    """Whether a part says itself that something was taken away, such as BKGSUB or PSFMATCHED."""
    for word in _KIND_OF_WORD:
        if piece.startswith(word) and _UNDONE.fullmatch(piece[len(word) :]):
            return True
    return False


# Two parts that are one word when they are joined: stDev, bad_pix, log-like names of tools.
_PAIRS = {
    *(("ST", "DEV"), ("STD", "DEV"), ("BG", "MOD"), ("CHI", "SQ"), ("CHI", "SQUARE")),
    *(("READ", "NOISE"), ("MASK", "BITS"), ("CR", "MASK"), ("LABEL", "MAP"), ("NUM", "EXP")),
    *((first, last) for first in ("BAD", "GOOD") for last in ("PIX", "PIXEL", "PIXELS")),
}
_INVERTED = ("INV", "INVERSE")


def _found(pieces: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yields the kinds that the parts name: place, number of parts, and kind."""
    place = 0
    while place < len(pieces):
        pair = tuple(pieces[place : place + 2])
        length = 2 if pair in _PAIRS else 1
        word = "".join(pieces[place : place + length])
        kind = _kind_of_piece(word)
        if kind is not None and not _names_image(word):
            if place and pieces[place - 1] in _INVERTED:
                kind = _INVERSES.get(kind, "inverse of something")
                place, length = place - 1, length + 1
            yield place, length, kind
        place += length


def _deciding(pieces: list[str]) -> tuple[range, str] | None:
    """The parts that decide on the kind, and the kind: the last ones that name any."""
    deciding = None
    for place, length, found in _found(pieces):
        behind = pieces[place + length] if place + length < len(pieces) else ""
        before = pieces[place - 1] if place else ""
        word = "".join(pieces[place : place + length])
        numbered = word in _NUMBERED and _NUMERAL.fullmatch(behind)
        if _UNDONE.fullmatch(behind) or numbered or before in _NEGATED:
            continue
        deciding = _later(deciding, range(place, place + length), found, before)
    return deciding


def _later(
    earlier: tuple[range, str] | None, places: range, kind: str, before: str
) -> tuple[range, str]:
    """What decides after one more word: the word, or what stands before it."""
    if kind == _GOOD_PIXELS and before in ("NOT", "UN", "IN"):
        kind = "mask"
    if earlier is None:
        return places, kind
    kinds = {earlier[1], kind}
    if kinds == {"mask", _GOOD_PIXELS}:  # good_mask and MASK_VALID
        return range(earlier[0].start, places.stop), _GOOD_PIXELS
    if kind == "standard deviation" and earlier[1] in VARIANCES:  # VAR_RNOISE
        return earlier
    return places, kind


@functools.lru_cache(maxsize=4096)  # all files of a folder have the same planes
def kind_of(name: str) -> str | None:
    """The kind of a plane by the parts of its name, whatever their case.

    The last part that names a kind decides: `PSF_ERR` holds errors.

    Args:
      name: of a FITS extension or an array, or the stem of a file's name.

    Returns:
      A key of the table above, such as `mask`; None for a name that may be an image's.
    """
    deciding = _deciding(_pieces(name))
    return None if deciding is None else deciding[1]


# Words that names of images have too: in the name of a file they say little.
_WEAK = re.compile(
    r"QUAL\w*|CONF\w*|CON|BACK|GOOD|VALID|USABLE|TIME|NUM|RES|SAMP|HITS|EXP|COV|SNR|NOISE|SKY|MODELS?"
)


def names_plane(stem: str) -> bool:
    """Whether the name of a file says that it holds no image, such as `noise_map` or `lens1_wht`.

    Args:
      stem: the name without its suffix.
    """
    pieces = _pieces(stem)
    deciding = _deciding(pieces)
    if deciding is None:
        return False
    places, _ = deciding
    alone = [piece for piece in pieces[: places.start] + pieces[places.stop :] if piece != "MAP"]
    word = "".join(pieces[places.start : places.stop])
    if not _WEAK.fullmatch(word):
        return True
    return not alone or (places.stop < len(pieces) and pieces[places.stop] == "MAP")


_IMAGE_WORDS = ("SCI", "SCIENCE", "IMAGE", "IMAGES", "IMG", "DATA", "FLUX", "BGSUB", "BKGSUB")


@functools.lru_cache(maxsize=4096)
def subject_of(name: str) -> tuple[str, ...]:
    """The parts of a name that say what a plane belongs to: `VIS` of `VIS_BGSUB` and `VIS_RMS`."""
    pieces = _pieces(name)
    deciding = _deciding(pieces)
    gone = () if deciding is None else deciding[0]
    return tuple(
        piece
        for index, piece in enumerate(pieces)
        if not (
            index in gone
            or piece in _IMAGE_WORDS
            or _names_image(piece)
            or _UNDONE.fullmatch(piece)
            or (deciding is None and _is_undone(pieces, index))
        )
    )


def _is_undone(pieces: list[str], index: int) -> bool:
    """Whether a part names what was taken away: `BKG` of `BKG_SUB`."""
    behind = pieces[index + 1] if index + 1 < len(pieces) else ""
    return pieces[index] in _KIND_OF_WORD and bool(_UNDONE.fullmatch(behind))
