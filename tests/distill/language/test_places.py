"""What libraries would compute for ever in a model's folder is refused before they read it."""

import json

import pytest

from distill.core.errors import DistillError
from distill.language import places

KIND = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}"
LONG = "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i %}{% endfor %}{% endfor %}"
HUGE = "{{ 'a' * 100000000000 }}"
WORDY = "{{ 'a' * 10000000 }}"


def templates(*found):
    return {"chat_template": found[0] if len(found) == 1 else [{"name": "x", "template": each} for each in found]}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2}))
    return tmp_path


@pytest.mark.parametrize("template", [LONG, HUGE, WORDY])
def test_a_chat_template_that_takes_too_much_is_refused(folder, template):
    (folder / "tokenizer_config.json").write_text(json.dumps(templates(KIND)))
    places.check_place(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(templates(KIND, template)))
    with pytest.raises(DistillError, match="chat template"):
        places.check_place(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(DistillError, match="chat template"):
        places.check_place(folder)


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{% nonsense", "{% generation %}{% endgeneration %}", ""]
)
def test_a_template_that_is_wrong_otherwise_is_told_where_it_is_used(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    places.check_place(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**9},
        {"n_layer": 1e300},
        {"text_config": {"num_local_experts": 10**9}},
        {"vision_config": [{"depths": 10**12}]},
        {"num_labels": 10**9},
        {"encoder_layers": float("nan")},
    ],
)
def test_a_config_of_a_billion_parts_is_refused(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    for place in (folder, folder / "config.json"):
        with pytest.raises(DistillError, match="are allowed"):
            places.check_place(place)


def test_large_models_are_allowed(folder):
    large = {"num_hidden_layers": 126, "hidden_size": 16384, "vocab_size_per_layer_input": 262144, "num_labels": 100000}
    (folder / "config.json").write_text(json.dumps(large | {"num_experts": 16384, "layer_types": ["full"] * 126}))
    places.check_place(folder)
