from __future__ import annotations

import numpy as np
import torch

from fastreid_clip3d.teacher import choose_phrases, pack_choices, phrase_scores, unpack_choices


def test_the_higher_phrase_of_a_pair_is_chosen_and_ties_go_to_phrase_2():
    scores = torch.zeros(3, 32)
    scores[0, 0::2] = 0.1  # phrase 1 everywhere
    scores[1, 1::2] = 0.1  # phrase 2 everywhere
    choices = choose_phrases(scores)
    assert choices.dtype == torch.int64 and choices.shape == (3, 16)
    assert choices.tolist() == [[0] * 16, [1] * 16, [1] * 16]


def test_each_pair_decides_alone():
    scores = torch.zeros(32)
    scores[2 * 5], scores[2 * 9 + 1] = 0.2, 0.3
    scores[2 * 9] = 0.29
    assert choose_phrases(scores).tolist() == [0 if m == 5 else 1 for m in range(16)]


def test_scores_are_cosines_whatever_the_lengths():
    generator = torch.Generator().manual_seed(0)
    features, table = torch.randn(4, 12, generator=generator), torch.randn(32, 12, generator=generator)
    expected = torch.nn.functional.cosine_similarity(features[:, None], table[None], dim=-1)
    torch.testing.assert_close(phrase_scores(features * 7, table * 0.01), expected, atol=1e-6, rtol=0)
    assert phrase_scores(features.half(), table).dtype == torch.float32


def test_choices_survive_their_bits():
    choices = np.random.default_rng(0).integers(0, 2, (50, 2, 16))
    packed = pack_choices(choices)
    assert packed.dtype == np.uint16 and packed.shape == (50, 2)
    np.testing.assert_array_equal(unpack_choices(packed), choices)
    assert pack_choices(np.eye(16, dtype=np.int64)).tolist() == [2**m for m in range(16)]
