"""Files of numbers are checked before they are mapped, and never unpickled."""

import zipfile

import numpy as np
import pytest

from neuroint.data.base import DataError
from neuroint.data.npy import blocks_to_crop, load_array, load_text, map_array, read_header


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "<i8"])
def test_a_mapped_file_holds_what_was_saved(tmp_path, dtype, order):
    saved = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", saved)
    header, size = read_header(tmp_path / "a.npy")
    assert (header.shape, header.end) == ((2, 3, 4), size)
    mapped = map_array(tmp_path / "a.npy", header)
    np.testing.assert_array_equal(mapped, saved)
    assert not mapped.flags.writeable


def test_a_header_of_version_2_is_read(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(3.0), version=(2, 0))
    np.testing.assert_array_equal(load_array(tmp_path / "a.npy"), [0, 1, 2])


def test_an_array_of_objects_is_refused_and_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"holds Python objects, which are never unpickled"):
        read_header(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("values", [np.array([1j]), np.array([True]), np.array(["a"]), np.array([1], "datetime64[s]")])
def test_values_that_are_no_real_numbers_are_refused(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=r"holds values of type .*, expected real numbers"):
        read_header(tmp_path / "a.npy")


def test_text_is_read_where_text_is_wanted(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["train", "oracle"]))
    assert load_text(tmp_path / "a.npy") == ["train", "oracle"]
    np.save(tmp_path / "a.npy", np.array(["train", "oracle"], ">U6"))
    assert load_text(tmp_path / "a.npy") == ["train", "oracle"]
    np.save(tmp_path / "a.npy", np.arange(2))
    with pytest.raises(DataError, match=r"type int64, expected text"):
        load_text(tmp_path / "a.npy")


def test_damaged_letters_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([0x110000, 65], np.uint32).view("U2"))
    with pytest.raises(DataError, match=r"holds letters that do not exist"):
        load_text(tmp_path / "a.npy")


@pytest.mark.parametrize("size", [140, 128, 127, 9, 3, 0])
def test_a_truncated_file_is_refused(tmp_path, size):
    np.save(tmp_path / "a.npy", np.arange(10.0))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:size])
    with pytest.raises(DataError, match=r"is truncated: \d+ bytes of 208" if size > 127 else r"is not a .npy file"):
        read_header(tmp_path / "a.npy")


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(10.0))
    header, _ = read_header(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(DataError, match="changed after it was opened"):
        map_array(tmp_path / "a.npy", header)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        map_array(tmp_path / "a.npy", header)


def test_an_archive_or_an_empty_array_under_the_name_of_an_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npy", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DataError, match=r"does not begin with the .npy signature"):
        read_header(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((3, 0)))
    with pytest.raises(DataError, match=r"shape \(3, 0\) holds nothing"):
        read_header(tmp_path / "b.npy")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(DataError, match=r"a.npy cannot be read \(is a directory\); check that it exists"):
        read_header(tmp_path / "a.npy")


def blocks(path):
    """Copy each block before the next is asked for."""
    return [block.copy() for block in blocks_to_crop(path, read_header(path)[0])]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (300, 3, 324), (1000, 900), (2, 5000), (7,)])
def test_the_blocks_of_a_file_are_what_was_saved_in_order(tmp_path, dtype, order, shape):
    saved = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", saved)
    np.testing.assert_array_equal(np.concatenate(blocks(tmp_path / "a.npy")), saved)


def test_a_single_number_is_one_block(tmp_path):
    np.save(tmp_path / "a.npy", np.float32(3))
    assert [block.tolist() for block in blocks(tmp_path / "a.npy")] == [3]


def test_blocks_of_short_rows_are_read_into_the_same_small_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1000, 324)))
    starts, sizes = zip(
        *((b.ctypes.data, b.nbytes) for b in blocks_to_crop(tmp_path / "a.npy", read_header(tmp_path / "a.npy")[0])),
        strict=True,
    )
    assert len(set(starts)) == 1
    assert len(sizes) == 10  # 101 rows of 2592 bytes are the most that 262144 bytes hold
    assert max(sizes) == 101 * 2592


@pytest.mark.parametrize(("frames", "mapped"), [(324, False), (4096, False), (4097, True)])
def test_only_files_of_long_rows_are_mapped_to_cut_from_them(tmp_path, frames, mapped):
    np.save(tmp_path / "a.npy", np.zeros((3, frames), np.float32))
    (block,) = blocks_to_crop(tmp_path / "a.npy", read_header(tmp_path / "a.npy")[0])
    assert isinstance(block.base, np.memmap) == mapped


@pytest.mark.parametrize("frames", [324, 5000])
def test_a_file_that_shrank_or_vanished_after_it_was_opened_is_refused(tmp_path, frames):
    np.save(tmp_path / "a.npy", np.zeros((3, frames), np.float32))
    header, size = read_header(tmp_path / "a.npy")
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(size - 4)
    with pytest.raises(DataError, match=r"a.npy changed after it was opened .*do not write into data that is in use"):
        list(blocks_to_crop(tmp_path / "a.npy", header))
    (tmp_path / "a.npy").unlink()
    with pytest.raises(DataError, match=r"a.npy cannot be read .no such file"):
        list(blocks_to_crop(tmp_path / "a.npy", header))
