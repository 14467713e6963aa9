"""Tokenizers and rows of tokens."""

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from distill.core.errors import DistillError
from distill.language.packing import answers, chunks, packed, padded
from distill.language.text import END, PAD, bpe, byte_level, characters, published, require_same, words

TEXT = "the cat (sat)\non the mat. the cat"


@pytest.mark.parametrize("make", [lambda: characters([TEXT]), byte_level, lambda: bpe([TEXT] * 20, 280)])
def test_decoding_gives_the_text_back(make):
    tokens = make()
    ids = tokens.encode(TEXT)
    assert tokens.decode(ids) == TEXT
    assert max(ids) < tokens.size and len({tokens.pad, tokens.end}) == 2
    assert tokens.encode_all([TEXT, "cat"])[0] == ids


def test_characters_are_one_token_each_and_bpe_merges_what_is_frequent():
    assert len(characters([TEXT]).encode(TEXT)) == len(TEXT)
    assert len(bpe([TEXT] * 20, 300).encode(TEXT)) < len(byte_level().encode(TEXT)) == len(TEXT)
    assert words([TEXT]).decode(words([TEXT]).encode("the mat.")) == "the mat."


@pytest.mark.parametrize("make", [lambda: words(["the cat"]), lambda: characters(["the cat"]), byte_level])
def test_special_tokens_are_left_out_of_the_text(make):
    tokens = make()
    assert tokens.decode([tokens.pad, *tokens.encode("the cat"), tokens.end, tokens.pad]) == "the cat"


def test_equal_texts_give_equal_fingerprints_and_others_are_refused():
    require_same(characters([TEXT]), characters([TEXT]))
    with pytest.raises(DistillError, match="different tokenizers"):
        require_same(characters([TEXT]), byte_level())


def test_what_two_tokenizers_differ_in_is_named():
    with pytest.raises(DistillError, match="'dog' is not the same token in both"):
        require_same(words(["cat"]), words(["cat dog"]))
    same = words(["cat dog"])
    same.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(DistillError, match="split otherwise"):
        require_same(words(["cat dog"]), same)


def test_an_empty_text_gives_no_vocabulary():
    with pytest.raises(DistillError, match="at least one text"):
        characters([""])
    with pytest.raises(DistillError, match="at least 259"):
        bpe([TEXT], 100)


def test_chunks_follow_one_another_and_share_one_token():
    rows = chunks(range(10), 3)
    assert rows["tokens"].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert rows["mask"].all() and rows["mask"].shape == (3, 3)
    with pytest.raises(DistillError, match="no chunk"):
        chunks([1, 2], 3)


def test_packed_texts_are_closed_by_the_end():
    assert packed([[1, 2], [3]], 2, end=9)["tokens"].tolist() == [[1, 2, 9], [9, 3, 9]]


def test_only_the_answer_and_its_end_count():
    rows = answers([[5, 6, 7]], [[8, 9]], length=7, end=1, pad=0)
    assert rows["tokens"].tolist() == [[5, 6, 7, 8, 9, 1, 0, 0]]
    targets = rows["tokens"][:, 1:][rows["mask"]]
    assert targets.tolist() == [8, 9, 1]
    with pytest.raises(DistillError, match="row 0"):
        answers([[5, 6, 7]], [[8, 9]], length=4, end=1, pad=0)


def test_padded_texts_are_cut_or_filled_at_their_ends():
    assert padded([[1], [1, 2, 3]], 2, 0).tolist() == [[1, 0], [1, 2]]
    assert padded([[1]], 2, 0).dtype == np.int64


def test_truncation_and_padding_that_a_file_keeps_are_left_out(tmp_path):
    from transformers import PreTrainedTokenizerFast

    own = PreTrainedTokenizerFast(tokenizer_object=byte_level().tokenizer, pad_token=PAD, eos_token=END)
    own(["one"], padding="max_length", truncation=True, max_length=4)  # an earlier use
    own.save_pretrained(tmp_path)
    found = published(str(tmp_path))
    assert len(found.encode("a longer text")) == 13 and len(found.encode("a")) == 1
