"""What a run keeps of its beginning, changed by somebody else."""

import json

import pytest

from distill.core.errors import DistillError
from distill.language.begun import OPTIONS, read_begun


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
