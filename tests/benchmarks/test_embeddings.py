"""Sentences out of documents: the same every time, and tokens one sentence at a time."""

from __future__ import annotations

import pytest

from benchmarks import embeddings


def test_sentences_are_the_same_every_time_and_all_different() -> None:
    found = embeddings.sentences(20)
    if len(found) < 20:
        pytest.skip("this system has no documents")
    assert found == embeddings.sentences(20)
    assert len(set(found)) == 20
    assert all(40 < len(one) < 300 for one in found)


def test_sentences_come_one_at_a_time() -> None:
    first, second = embeddings.Sentences([[1, 2, 3], [4, 5]]).batches(8)
    assert first["input_ids"].tolist() == [[1, 2, 3]]
    assert second["attention_mask"].tolist() == [[1, 1]]
    assert second["token_type_ids"].tolist() == [[0, 0]]
