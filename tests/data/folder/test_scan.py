"""The first reading of a folder: bad files, the split by content, and what identifies a set."""

import os
import pathlib
import pickle

import numpy as np
import pytest
from folder_support import (
    CLASSES,
    SIDE,
    WRITERS,
    Bomb,
    counts,
    object_array,
    pixels,
    prepare,
    scan,
    write,
    write_classes,
    write_flat,
)

from lensjax.data.folder.image import digest_of
from lensjax.errors import BadFileError, DataError

# The axes of one file of four images, or of each of four files of one.
SHAPES: dict[str, tuple[int, ...]] = {
    "HW": (SIDE, SIDE),
    "1HW": (1, SIDE, SIDE),
    "HW1": (SIDE, SIDE, 1),
    "HW3": (SIDE, SIDE, 3),
    "NHW": (8, SIDE, SIDE),
    "N1HW": (8, 1, SIDE, SIDE),
    "NHW3": (8, SIDE, SIDE, 3),
    "N3HW": (8, 3, SIDE, SIDE),
}
DTYPES = ("f2", "f4", "f8", ">f2", ">f4", ">f8", "u1", "i2", ">i4", "u8")
OF_FITS = ("f4", "f8", ">f4", ">f8", "u1", "i2", ">i4")


def stored(seed: int, shape: str, dtype: str) -> np.ndarray:
    return counts(seed, SHAPES[shape]).astype(dtype)


def as_images(array: np.ndarray, shape: str) -> np.ndarray:
    """The same as float32 `[N, H, W, C]`, spelt out for each."""
    array = array.astype(np.float32)
    return {
        "HW": lambda: array[None, :, :, None],
        "1HW": lambda: array[:, :, :, None],
        "HW1": lambda: array[None],
        "HW3": lambda: array[None],
        "NHW": lambda: array[..., None],
        "N1HW": lambda: array.transpose(0, 2, 3, 1),
        "NHW3": lambda: array,
        "N3HW": lambda: array.transpose(0, 2, 3, 1),
    }[shape]()


def expected_digests(shape: str, files: int) -> list[bytes]:
    images = np.concatenate([as_images(stored(i, shape, "f4"), shape) for i in range(files)])
    return [digest_of(image) for image in images]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", WRITERS)
def test_container_layout_and_number_type_do_not_matter(tmp_path, suffix, shape):
    files = 1 if shape.startswith("N") else 4
    fingerprints = set()
    dtypes = OF_FITS if "fits" in suffix else DTYPES
    # A third of them, another one for the next container and for the next layout.
    for dtype in dtypes[(list(WRITERS).index(suffix) + list(SHAPES).index(shape)) % 3 :: 3]:
        root = tmp_path / dtype.replace(">", "big_")
        root.mkdir()
        for index in range(files):
            WRITERS[suffix](root / f"{index}{suffix}", stored(index, shape, dtype))
        found = scan(root)
        channels = 3 if "3" in shape else 1
        assert found.image_shape == (SIDE, SIDE, channels)
        assert found.class_names == ()
        assert sorted(image.digest for image in found.images) == sorted(
            expected_digests(shape, files)
        )
        assert found.integer
        fingerprints.add(found.fingerprint)
    assert len(fingerprints) == 1
    plain = tmp_path / "plain"
    for index in range(files):
        for place, image in enumerate(as_images(stored(index, shape, "f4"), shape)):
            write(plain / f"{index}_{place}.npy", image)
    assert scan(plain).fingerprint in fingerprints


@pytest.mark.parametrize("size", [(8, 8), (37, 50), (150, 150), (64, 8)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_size_and_memory_order(tmp_path, size, order):
    for index in range(3):
        write(tmp_path / f"{index}.npy", np.asarray(pixels(index, size), order=order))
    found = scan(tmp_path)
    assert found.image_shape == (*size, 1)
    expected = {digest_of(pixels(index, (*size, 1)).astype("f4")) for index in range(3)}
    assert {image.digest for image in found.images} == expected


def test_a_layout_that_is_set_is_obeyed(tmp_path):
    for index in range(2):
        write(tmp_path / f"{index}.npy", pixels(index, (3, SIDE, SIDE)))
    with pytest.raises(BadFileError, match=r"0\.npy: has the shape .* set data\.layout=CHW"):
        scan(tmp_path)
    assert scan(tmp_path, layout="CHW").image_shape == (SIDE, SIDE, 3)
    assert len(scan(tmp_path, layout="NHW").images) == 6


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i4"])
@pytest.mark.parametrize("shape", ["HW", "1HW", "HW3"])
def test_object_arrays_give_the_mass(tmp_path, dtype, shape):
    masses = [10.0**-power for power in (22, 23, 24)]
    for index, mass in enumerate(masses):
        image = stored(index, shape, dtype)
        write(tmp_path / "vort" / f"{index}.npy", object_array(image, mass))
        write(tmp_path / "no" / f"{index}.npy", stored(10 + index, shape, dtype))
    found = scan(tmp_path)
    assert found.class_names == ("axion", "no_sub")
    assert found.parameter_names == ("log10_axion_mass",)
    wanted = {digest_of(as_images(stored(i, shape, "f4"), shape)[0]) for i in range(3)}
    assert {one.digest for one in found.images if one.parameters_digest} == wanted
    assert {one.class_name for one in found.images if one.parameters_digest} == {"axion"}


def test_labels_within_a_file_are_classes(tmp_path):
    images, names = pixels(0, (9, SIDE, SIDE)), ["vort", "no", "sphere"] * 3
    np.savez(tmp_path / "all.npz", images=images, labels=names)
    found = scan(tmp_path)
    assert found.class_names == CLASSES
    for image in found.images:
        assert image.class_name == ("axion", "no_sub", "cdm")[image.number % 3]


# Bad files -------------------------------------------------------------------------------------


def with_pixel(value: float) -> np.ndarray:
    image = pixels(7)
    image[3, 4] = value
    return image


def truncated(path: pathlib.Path) -> None:
    write(path, pixels(7))
    path.write_bytes(path.read_bytes()[:-50])


def text(path: pathlib.Path) -> None:
    path.write_text("no image at all, but text")


def with_bytes(data: bytes):
    return lambda path: path.write_bytes(data)


def holding(array: np.ndarray):
    return lambda path: write(path, array)


def loop(path: pathlib.Path) -> None:
    path.symlink_to(path)


def pipe(path: pathlib.Path) -> None:
    os.mkfifo(path)


def stack_with_nan(path: pathlib.Path) -> None:
    stack = pixels(7, (5, SIDE, SIDE))
    stack[3, 0, 0] = np.nan
    write(path, stack)


BAD = {
    "NaN": (holding(with_pixel(np.nan)), "1 of 144 pixels that are NaN or infinite"),
    "infinite": (holding(with_pixel(-np.inf)), "NaN or infinite"),
    "nothing finite": (holding(np.full((SIDE, SIDE), np.nan)), "has no finite pixel"),
    "NaN in a stack": (stack_with_nan, r"NaN or infinite; .* in \[3\]"),
    "another shape": (
        holding(pixels(7, (SIDE, SIDE + 1))),
        "12x13x1 .* 12 of 13 images have 12x12",
    ),
    "more channels": (holding(pixels(7, (SIDE, SIDE, 3))), "12x12x3"),
    "truncated": (truncated, "truncated: it has"),
    "text": (text, "is text, not what its suffix .npy says"),
    "0 bytes": (with_bytes(b""), "empty: it has 0 bytes"),
    "noise": (with_bytes(bytes(range(256))), "another kind, or damaged"),
    "complex": (holding(pixels(7) + 1j), "holds complex numbers"),
    "true or false": (holding(pixels(7) > 1), "holds true-or-false values"),
    "text array": (holding(np.full((SIDE, SIDE), "a")), "holds text"),
    "one axis": (holding(pixels(7, (500,))), "an image has at least two axes"),
    "no pixels": (holding(pixels(7, (0, SIDE))), "is empty"),
    "too small": (holding(pixels(7, (7, 7))), "a side needs at least 8"),
    "beyond float32": (holding(with_pixel(1e39)), "beyond 3.4e38"),
    "objects: text": (holding(object_array(pixels(7), "mass")), "element 1 is text"),
    "objects: no image": (holding(object_array(None, 1e-22)), "element 0 is the value None"),
    "objects: mass 0": (holding(object_array(pixels(7), 0.0)), "a number above 0"),
    "link in a circle": (loop, "Too many levels of symbolic links"),
    "pipe": (pipe, "is a device, not a file"),
    "Git LFS": (with_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_before_anything_is_written(tmp_path, kind):
    make, words = BAD[kind]
    root = write_classes(tmp_path / "root")
    bad = root / "cdm" / "bad file.npy"
    make(bad)
    with pytest.raises(BadFileError, match=words) as caught:
        prepare(root, tmp_path / "sets")
    assert str(caught.value).startswith(f"{bad}: ")
    assert "data.on_bad_file=skip" in str(caught.value)
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_left_out_and_listed_on_demand(tmp_path, kind):
    make, _ = BAD[kind]
    root = write_classes(tmp_path / "root")
    good = scan(root)
    bad = root / "cdm" / "bad file.npy"
    make(bad)
    found = scan(root, on_bad_file="skip")
    assert [error.path for error in found.bad] == [bad]
    assert found.fingerprint == good.fingerprint
    assert {image.digest for image in found.images} == {image.digest for image in good.images}


@pytest.mark.parametrize("split", [("",), ("train", "test")])
@pytest.mark.parametrize("kind", ["NaN", "text", "another shape", "link in a circle"])
def test_a_class_that_loses_all_its_files_is_an_error(tmp_path, kind, split):
    root = tmp_path / "root"
    for number, name in enumerate(split):
        write_classes(root / name, seed=10 * number)
    bad = root / split[-1] / "cdm"
    for index, path in enumerate(sorted(bad.iterdir())):
        path.unlink()
        if index < 2:
            BAD[kind][0](path)
    for policy in ("refuse", "skip"):
        with pytest.raises(DataError) as caught:
            prepare(root, tmp_path / "sets", on_bad_file=policy)
        assert "cdm" in str(caught.value)
        assert str(bad / "000.npy") in str(caught.value)  # why it has none
    assert "no image in" in str(caught.value)
    assert not (tmp_path / "sets").exists()


def test_a_class_that_keeps_one_image_is_an_error_too(tmp_path):
    write_classes(tmp_path)
    for index in range(3):
        text(tmp_path / "cdm" / f"{index:03d}.npy")
    with pytest.raises(DataError, match=r"class cdm has only one image .*003.npy; .*3 bad files"):
        scan(tmp_path, on_bad_file="skip")


def test_nothing_usable_is_an_error(tmp_path):
    for name in ("a", "b"):
        text(tmp_path / f"{name}.npy")
    with pytest.raises(
        DataError, match=r"no image of .* can be used; 2 bad files .*a\.npy: is tex"
    ):
        scan(tmp_path, on_bad_file="skip")


@pytest.mark.parametrize("flat", [True, False])
def test_one_image_alone_is_refused(tmp_path, flat):
    write_flat(tmp_path, 1) if flat else write_classes(tmp_path, num=1)
    who = "the set" if flat else "class axion"
    with pytest.raises(DataError, match=rf"{who} has only one image .*000\.npy"):
        scan(tmp_path)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_one_image_are_one_image(tmp_path, copies):
    write_classes(tmp_path)
    for path in (tmp_path / "cdm").iterdir():
        path.unlink()
    for index in range(copies):
        write(tmp_path / "cdm" / f"{index}.npy", pixels(1))
    with pytest.raises(DataError, match="class cdm has only one image"):
        scan(tmp_path)


def test_a_file_that_would_run_code_is_refused_by_name(tmp_path):
    write_flat(tmp_path / "root")
    flag, bad = tmp_path / "flag", tmp_path / "root" / "zzz.npy"
    write(bad, object_array(pixels(1), Bomb(flag)))
    with pytest.raises(BadFileError, match=r"zzz\.npy: "):
        prepare(tmp_path / "root", tmp_path / "sets")
    assert len(scan(tmp_path / "root", on_bad_file="skip").bad) == 1
    assert not flag.exists()
    pickle.loads(pickle.dumps(Bomb(flag)))
    assert flag.exists(), "the bomb is none"


def test_a_file_without_a_class_among_others_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=pixels(0, (6, SIDE, SIDE)), labels=["x", "y"] * 3)
    write(tmp_path / "b.npy", pixels(1))
    with pytest.raises(BadFileError, match=r"b\.npy: has an image without a class, "):
        scan(tmp_path)
    assert scan(tmp_path, on_bad_file="skip").class_names == ("x", "y")


@pytest.mark.parametrize("label", ["sphere", "two\nlines"])
def test_a_class_within_a_file_is_checked(tmp_path, label):
    write_classes(tmp_path, ("cdm", "no"))
    np.savez(tmp_path / "no" / "a.npz", images=pixels(9, (1, SIDE, SIDE)), labels=[label])
    words = "class cdm, .* class no_sub" if label == "sphere" else "not one line of printable"
    with pytest.raises(BadFileError, match=rf"a\.npz: .*{words}"):
        scan(tmp_path)
