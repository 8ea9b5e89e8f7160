"""The reader of pickled object arrays: what numpy writes is read, and nothing ever runs."""

import copyreg
import io
import itertools
import os
import pathlib
import pickle
import struct

import numpy as np
import pytest
from payload_support import PAYLOADS, check_payload

from lensjax.errors import BadFileError, UnusableError
from lensjax.files.image_files import read_images
from lensjax.files.pickles import load_object_array

RANDOM = np.random.default_rng(0)
DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
RECONSTRUCT = (
    b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"  # a blank array
)
F8 = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R"  # a dtype without its state
F8_STATE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def objects(*items) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def write(path: pathlib.Path, data: bytes, shape: tuple[int, ...] = (2,)) -> pathlib.Path:
    """Writes a .npy of objects whose pickle is `data`."""
    header = {"descr": "|O", "fortran_order": False, "shape": shape}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    path.write_bytes(stream.getvalue() + data)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_named_and_does_not_run(tmp_path, name, protocol):
    ran = tmp_path / "ran"
    check_payload(name, tmp_path / "control", protocol)
    for wrapped in (PAYLOADS[name](ran), [{"key": PAYLOADS[name](ran)}], (PAYLOADS[name](ran),)):
        path = write(tmp_path / "image.npy", pickle.dumps(objects(wrapped, 1.0), protocol))
        with pytest.raises(BadFileError) as caught:
            list(read_images(path))
        assert str(path) in str(caught.value)
        # Protocols 0 to 2 make their bytes by a call, which is refused first; numpy does not write
        # protocol 5.
        if protocol in (3, 4):
            assert f"asks to run {name};" in caught.value.reason
        assert not ran.exists()


RAW = {
    "a global of numpy's own": (b"cnumpy\nload\nX\x01\x00\x00\x00x\x85R.", "numpy.load"),
    "a module below numpy": (b"cnumpy.f2py\ncompile\n(X\x01\x00\x00\x00xtR.", "numpy.f2py.compile"),
    "an old instance": (b"(X\x07\x00\x00\x00touch xios\nsystem\n.", "os.system"),
    "an instance of protocol 0": (b"(S'touch x'\nios\nsystem\n.", "os.system"),
    "a dotted name": (b"\x8c\x05numpy\x8c\x0fndarray.__new__\x93.", "numpy.ndarray.__new__"),
    "one in a state": (RECONSTRUCT + b"cposix\nsystem\nb.", "posix.system"),
    "one as an argument": (b"cnumpy\ndtype\ncbuiltins\neval\n\x85R.", "builtins.eval"),
    "the registry of extensions": (b"ccopyreg\nadd_extension\n.", "copyreg.add_extension"),
    "one in an array's list": (
        RECONSTRUCT + b"(K\x01K\x01\x85" + F8 + b"\x89]cposix\nsystem\na",
        "posix.system",
    ),
    "an extension code": (b"\x82\x01.", "EXT1"),
    "a long extension code": (b"\x84\x01\x00\x00\x00.", "EXT4"),
    "a persistent id": (b"Pposix.system\n.", "PERSID"),
    "a persistent object": (b"X\x01\x00\x00\x00xQ.", "BINPERSID"),
    "a new object": (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
    "an object by its class": (b"(cnumpy\nndarray\no.", "OBJ"),
    "an out-of-band buffer": (b"\x97.", "NEXT_BUFFER"),
    "an instruction that does not exist": (b"\xff.", "0xff"),
    "a call of a class": (b"cnumpy\nndarray\nK\x08\x85\x85R.", "calls"),
    "an array that is another's class": (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85C\x01b\x87R.",
        "something other than a plain array",
    ),
    "the state of a function": (b"cnumpy.core.multiarray\nscalar\n}b.", "sets the state"),
    "the state of a class": (b"cnumpy\nndarray\nN}\x86b.", "sets the state"),
    "a huge text": (b"\x8d" + struct.pack("<Q", 2**62) + b"x", "truncated"),
    "huge bytes": (b"\x8e" + struct.pack("<Q", 2**40) + b"x", "truncated"),
    "huge bytes, again": (b"B\xff\xff\xff\xff.", "truncated"),
    "a memo far away": (b"Nr\xff\xff\xff\xff.", "not an array of objects"),
    "an unknown memo": (b"h\x07.", "makes no sense"),
    "an empty stack": (b"R.", "makes no sense"),
    "no mark": (b"t.", "makes no sense"),
    "text that is none": (b"\x8c\x01\xff.", "makes no sense"),
    "nothing": (b"", "makes no sense"),
    "no end": (b"N", "makes no sense"),
    "something behind": (b"N.N", "1 bytes after"),
    "something else": (b"K\x01.", "not an array of objects"),
    "nested deeply": (b"]" + b"\x85" * 9_000 + b".", "not an array of objects"),
    "an array in itself": (
        RECONSTRUCT + b"q\x00(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"
        b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]h\x00atb.",
        "element 0 is an array of objects",
    ),
    "lists doubled a thousand times": (b"N" + b"q\x00h\x00\x86" * 1000 + b".", "not an array"),
    "without end": (b"N0" * 20_000, "POP"),
    "many lists": (b"]" * 1_000_000, "more than 10000 pickle instructions"),
}


@pytest.mark.parametrize(("data", "words"), RAW.values(), ids=RAW.keys())
def test_a_forged_or_damaged_pickle_is_refused_by_name(tmp_path, monkeypatch, data, words):
    def run(*arguments):
        raise AssertionError(f"ran with {arguments}")

    monkeypatch.setattr(os, "system", run)
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "image.npy", data, (1,))
    with pytest.raises(BadFileError) as caught:
        list(read_images(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert words in caught.value.reason
    assert list(tmp_path.iterdir()) == [path]


def test_a_registered_extension_code_is_not_looked_up_even_if_python_has_it_cached():
    code = 0x7E
    copyreg.add_extension("builtins", "list", code)
    try:
        data = b"\x82" + bytes([code]) + b")R."
        assert pickle.loads(data) == []  # Python has it in its cache now
        with pytest.raises(UnusableError, match="EXT1"):
            load_object_array(data)
    finally:
        copyreg.remove_extension("builtins", "list", code)
        copyreg.clear_extension_cache()


def array_pickle(dtype=F8, state=F8_STATE, shape=b"K\x02\x85", raw=b"C\x10" + bytes(16)) -> bytes:
    """A numeric array in pieces that a test may forge."""
    return RECONSTRUCT + b"(K\x01" + shape + dtype + state + b"\x89" + raw + b"tb."


FORGED = {
    "flags of an object": (F8_STATE[:-3] + b"?tb", "state of a dtype"),
    "a sub-array": (F8_STATE.replace(b"<NNN", b"<" + F8 + b"NN"), "state of a dtype"),
    "field names": (F8_STATE.replace(b"<NNN", b"<N\x8c\x01a\x85}"), "state of a dtype"),
    "an item size": (F8_STATE.replace(b"J\xff\xff\xff\xffJ", b"J\x00\x10\x00\x00J"), "state"),
    "an alignment": (F8_STATE.replace(b"J\xff\xff\xff\xffK", b"J\x00\x10\x00\x00K"), "state"),
    "another version": (F8_STATE.replace(b"(K\x03", b"(K\x04"), "state of a dtype"),
    "another byte order": (F8_STATE.replace(b"<", b"!"), "byte order"),
    "a state that is none": (b"Nb", "state of a dtype"),
    "a state that is a dictionary": (b"}b", "state of a dtype"),
    "no state": (b"", "lacks its shape or its dtype"),
}


@pytest.mark.parametrize(("state", "words"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_dtype_state_never_reaches_numpy(state, words):
    with pytest.raises(UnusableError, match="not an array of objects"):  # numeric, so far so good
        load_object_array(array_pickle())
    with pytest.raises(UnusableError, match=words):
        load_object_array(array_pickle(state=state))


@pytest.mark.parametrize(
    "code", ["O8", "f16", "c16", "b1", "U8", "S8", "V8", "M8", "i3", "", "f8,f8"]
)
def test_raw_bytes_are_never_taken_for_other_than_plain_numbers(code):
    text = b"X" + struct.pack("<I", len(code)) + code.encode()
    flags = b"K?tb" if code == "O8" else b"K\x00tb"
    dtype = F8.replace(b"X\x02\x00\x00\x00f8", text)
    with pytest.raises(UnusableError, match=r"lacks its objects|dtype"):
        load_object_array(array_pickle(dtype=dtype, state=F8_STATE[:-4] + flags))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (b"\x8a\x08" + struct.pack("<q", 2**62) + b"\x85", "no array has"),
        (b"J\x00\x00\x00\x40J\x00\x00\x00\x40\x86", "has 16 bytes"),
        (b"J\xff\xff\xff\xff\x85", "no array has"),
        (b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86", "no array has"),
        (b"(" + b"K\x01" * 40 + b"t", "no array has"),
        (b"\x88K\x02\x86", "no array has"),
        (b"G" + struct.pack(">d", 2.0) + b"\x85", "no array has"),
        (b"K\x03\x85", "has 16 bytes"),
        (b"N", "lacks its shape"),
    ],
)
def test_a_shape_that_the_data_does_not_fill_is_refused(shape, words):
    with pytest.raises(UnusableError, match=words):
        load_object_array(array_pickle(shape=shape))


def test_what_numpy_writes_is_read():
    for code, byte_order, protocol in itertools.product(DTYPES, "<>", (3, 4)):
        image = (100 * RANDOM.random((9, 11))).astype(byte_order + code)
        scalar = np.dtype(byte_order + code).type(3)
        for ordered in (image, np.asfortranarray(image)):
            array = objects(ordered, scalar, 2.5, 7, -(10**12), None, "text", [1, 2])
            found = load_object_array(pickle.dumps(array, protocol))
            assert found.shape == (8,)
            np.testing.assert_array_equal(found.items[0], image)
            assert found.items[0].dtype == image.dtype
            assert found.items[1:] == (3, 2.5, 7, -(10**12), None, "text", [1, 2])


def test_what_python_2_wrote_is_read():
    """Its text has 8 bits, and so have the bytes of an array."""
    raw = np.arange(2.0).tobytes()
    blank = RECONSTRUCT.replace(b"C\x01b", b"U\x01b").replace(b"_core", b"core")
    numeric = F8.replace(b"X\x02\x00\x00\x00", b"U\x02")
    state = F8_STATE.replace(b"X\x01\x00\x00\x00", b"U\x01")
    inner = blank + b"(K\x01K\x02\x85" + numeric + state + b"\x89U\x10" + raw + b"tb"
    kind = numeric.replace(b"f8", b"O8") + state.replace(b"<", b"|")[:-4] + b"K?tb"
    data = b"\x80\x02" + blank + b"(K\x01K\x01\x85" + kind + b"\x89]" + inner + b"atb."
    np.testing.assert_array_equal(pickle.loads(data, encoding="latin1")[0], np.arange(2.0))
    np.testing.assert_array_equal(load_object_array(data).items[0], np.arange(2.0))


def test_a_truncated_pickle_is_refused():
    data = pickle.dumps(objects(np.ones((4, 4)), np.float64(1e-23)), 4)
    for length in range(len(data)):
        with pytest.raises(UnusableError, match="truncated"):
            load_object_array(data[:length])
