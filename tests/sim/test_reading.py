"""What a run wrote about itself is read back whatever it has become: in one sentence, and at once."""

import os

import pytest

from sim.errors import InputError
from sim.reading import read_own


def test_what_a_run_wrote_and_somebody_exchanged_is_refused(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text('{"steps": 3}')
    assert read_own(path) == {"steps": 3}
    for content in (b"[" * 100_000, b"\xff\xfe", b'{"steps"', b""):
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
