"""What a run wrote about itself is read back whatever it has become: in one sentence, and at once."""

import os
import zipfile

import numpy as np
import pytest

from sim import reading
from sim.errors import InputError
from sim.reading import read_arrays, read_own
from sim.robots.description import find_robot
from sim.tasks.handovers import Handovers
from sim.tasks.ways import Ways


def test_what_a_run_wrote_and_somebody_exchanged_is_refused(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text('{"steps": 3}')
    assert read_own(path) == {"steps": 3}
    for content in (b"[" * 100_000, b"\xff\xfe", b'{"steps"', b"", b'{"steps": 3, "steps": 4}'):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_own(path)
    path.unlink()
    with pytest.raises(InputError):
        read_own(path)
    os.mkfifo(path)
    with pytest.raises(InputError, match="regular"):
        read_own(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="regular"):
        read_own(path)


def handovers(file):
    return Handovers.load(file, find_robot("barkour_v0"))


@pytest.mark.parametrize("load", [Ways.load, handovers])
@pytest.mark.parametrize("how", ["missing", "pipe", "device", "folder", "link to nothing", "huge", "empty",
                                 "cut", "flipped", "one array", "a number", "a bomb", "a lie", "pickled"])  # fmt: skip
def test_arrays_that_were_spoilt_are_one_sentence_that_names_the_file(load, how, tmp_path, spoil, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_OWN", 2**20)
    file = tmp_path / "kept.npz"
    names = list(dict.fromkeys(Ways._fields + Handovers._fields))
    np.savez_compressed(file, **dict.fromkeys(names, np.ones((2, 3, 3), np.float32)))
    whole = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif how == "flipped":
        at = whole.index(b"PK", 4) - 9  # in the first array's numbers
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    elif how == "one array":
        with file.open("wb") as stream:
            np.save(stream, np.ones(3))
    elif how == "a number":
        np.savez(file, **dict.fromkeys(names, np.float32(1.0)))
    elif how == "pickled":
        np.savez(file, **dict.fromkeys(names, np.array([{}], object)))
    elif how in ("a bomb", "a lie"):
        header = str({"descr": "<f4", "fortran_order": False, "shape": (10**12,)}).encode() + b"\n"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                with packed.open(f"{name}.npy", "w") as stream:
                    stream.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
                    if how == "a bomb":
                        stream.write(bytes(2**20))
    else:
        spoil(file, how)
    with pytest.raises(InputError) as said:
        load(file)
    assert "\n" not in str(said.value) and str(file) in str(said.value)


def test_arrays_that_are_whole_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(3), b=np.eye(2))
    read = read_arrays(tmp_path / "a.npz", ["b"], "the arrays")
    assert list(read) == ["b"] and read["b"].dtype == np.float32 and (read["b"] == np.eye(2)).all()
