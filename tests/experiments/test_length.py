"""Reviews by their length: no decoder is judged on a mask that it saw."""

from itertools import islice

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import all_masks, pack, sample_masks
from mechspex.experiments.length import (
    PAIRS,
    SPEX,
    _claims,
    pairs_by_ridge,
    scores_of,
    unseen,
)
from mechspex.experiments.reviews import template_reviews


@pytest.mark.parametrize("length", [(8, 15), (16, 31), (64, 127)])
def test_reviews_have_the_words_that_are_asked_for(length):
    texts = list(islice(template_reviews(length, seed=0), 30))
    n_words = [len(text.split()) for text in texts]
    assert length[0] <= min(n_words)
    assert max(n_words) <= length[1]
    assert len(set(texts)) == 30
    assert texts == list(islice(template_reviews(length, seed=0), 30))


def test_masks_that_judge_were_not_seen():
    seen = sample_masks(8, 128, keep=0.5, seed=0)
    fresh = unseen(8, 200, [seen], seed=0)
    rows = {row.tobytes() for row in pack(fresh)}
    assert len(rows) == len(fresh), "each once"
    assert not rows & {row.tobytes() for row in pack(seen)}
    # Of eight units there are no more than these.
    assert len(fresh) <= len(all_masks(8)) - len({row.tobytes() for row in pack(seen)})


def test_pairs_by_ridge_predict_pairs_and_no_triples():
    masks, fresh = (sample_masks(10, n, keep=0.5, seed=n) for n in (400, 100))

    def pairs(kept):
        return 1.0 + 2.0 * kept[:, 0] - 3.0 * (kept[:, 1] & kept[:, 2])

    np.testing.assert_allclose(pairs_by_ridge(masks, pairs(masks), fresh), pairs(fresh), atol=0.02)

    def triple(kept):
        return np.prod(2.0 * kept[:, :3] - 1, axis=1)

    assert np.std(pairs_by_ridge(masks, triple(masks), fresh)) < 0.5


def test_a_negation_takes_a_pair():
    """Of nine words two turn the value together: every decoder but the sum says so."""

    def negated(kept):
        return 1.0 * kept[:, 0] - 2.0 * (kept[:, 4] ^ kept[:, 5])

    values = mx.FunctionValues(negated, mx.parts(list("abcdefghi")))
    rows = scores_of(values, (200, 10**6), seed=0)
    r2 = {(row["method"], row["masks"]): row["r2"] for row in rows}
    assert r2["additive", 200] < 0.4
    for method in (PAIRS, SPEX, "automatic"):
        assert r2[method, 200] > 0.95, method
    # At most three fifths of all masks are decoded, however many are asked for.
    assert r2["additive", 10**6] < 0.4


def rows(**r2):
    return [
        {"method": method, "masks": 512, "bin": name, "r2": score + apart}
        for method, scores in r2.items()
        for name, score in zip(("8–15", "16–31"), scores, strict=True)
        for apart in (-0.01, 0.0, 0.01)
    ]


def test_claims_follow_the_numbers():
    """Pairs win on short reviews what they lose on long ones: nothing is decided."""
    scores = {"additive": (0.5, 0.5), SPEX: (0.9, 0.8), PAIRS: (0.9, 0.1), "automatic": (0.3, 0.4)}
    claims = _claims(rows(**scores), 512)
    assert [claim.holds for claim in claims] == [True, None, False]
    assert "16–31 words -0.40" in claims[1].measured
    absent = _claims([row for row in rows(**scores) if row["method"] != SPEX], 512)
    assert absent[0].holds is None
