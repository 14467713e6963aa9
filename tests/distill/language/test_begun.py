"""What a run keeps of its beginning, changed by somebody else."""

import json

import pytest

from distill.core.errors import DistillError
from distill.language.begun import OPTIONS, begins, read_begun
from sim.errors import InputError
from sim.folders import alone


@pytest.mark.parametrize("start", ['"nan"', '"1.5"', "true", "NaN", "null", "[]", "9" * 400])
def test_a_start_that_was_never_measured_is_refused(tmp_path, start):
    (tmp_path / OPTIONS).write_text(f'{{"options": {{}}, "perplexity": {start}}}')
    with pytest.raises(DistillError) as error:
        read_begun(tmp_path, "perplexity", float)
    assert len(str(error.value).splitlines()) == 1


def test_a_start_is_read_as_it_was_kept(tmp_path):
    for start in (31.5, float("inf"), 2):
        (tmp_path / OPTIONS).write_text(json.dumps({"options": {"steps": 3}, "perplexity": start}))
        assert read_begun(tmp_path, "perplexity", float) == ({"steps": 3}, start)
    assert read_begun(tmp_path / "new", "perplexity", float) is None


@pytest.mark.parametrize("error", [DistillError, InputError, OSError])
def test_what_is_refused_leaves_no_folder(tmp_path, error):
    (tmp_path / "old").mkdir()
    for folder, left in ((tmp_path / "a" / "b" / "run", []), (tmp_path / "old" / "run", []), (tmp_path / "old", [])):
        with pytest.raises(error), begins(folder):
            (folder / "data").mkdir()
            (folder / "data" / "index.json").write_text("{}")
            raise error("refused")
        assert [path.name for path in tmp_path.iterdir()] == ["old"] and list((tmp_path / "old").iterdir()) == left


def test_what_is_kept_when_a_run_ends_otherwise(tmp_path):
    for name, error in ((OPTIONS, DistillError), ("something", KeyboardInterrupt)):
        with pytest.raises(error), begins(tmp_path / name):
            (tmp_path / name / name).write_text("{}")
            raise error
        assert (tmp_path / name / name).is_file()
    for name in (OPTIONS, "something"):  # what was there before is another's
        (tmp_path / name / OPTIONS).unlink(missing_ok=True)
        (tmp_path / name / "mine").write_text("mine")
        with pytest.raises(DistillError), begins(tmp_path / name):
            raise DistillError("refused")
        assert (tmp_path / name / "mine").is_file()
    with alone(tmp_path / "c"), begins(tmp_path / "c"):  # one process may ask twice
        pass
