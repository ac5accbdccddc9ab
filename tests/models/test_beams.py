"""Beam search against exhaustive search and a loop over rows; nucleus sampling's support."""

import itertools
import math

import pytest
import torch

from fastclip.models.beams import beam_search
from fastclip.models.sampling import sample_nucleus

VOCAB, START, END, LENGTH, ROWS = 4, 2, 3, 5, 3
WAY = {"rows": ROWS, "start_id": START, "end_id": END, "max_length": LENGTH}


class Network:
    """Log-probabilities from a table with an entry for every row and prefix."""

    def __init__(self, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(ROWS, VOCAB**LENGTH, VOCAB, generator=generator)
        self.table = (2 * table).log_softmax(-1)
        self.calls: list[torch.Size] = []

    def __call__(self, tokens, rows):
        self.calls.append(tokens.shape)
        powers = VOCAB ** torch.arange(tokens.shape[1])
        return self.table[rows, (tokens * powers).sum(1)]

    def of(self, row: int, prefix: list[int]) -> list[float]:
        return self(torch.tensor([prefix]), torch.tensor([row]))[0].tolist()


def texts_of(network: Network, row: int, no_repeat: bool):
    """Every text with its log-probability and the number of its tokens."""
    for tail in itertools.product(range(VOCAB), repeat=LENGTH - 1):
        prefix, total, length = [START], 0.0, 0
        for token in tail:
            if prefix[-1] == END:
                total += 0.0 if token == END else -math.inf
            else:
                repeated = no_repeat and token == prefix[-1]
                total += -math.inf if repeated else network.of(row, prefix)[token]
                length += 1
            prefix.append(token)
        yield total, length, prefix


@pytest.mark.parametrize("no_repeat", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_enough_beams_find_the_optimum(no_repeat, length_penalty):
    network = Network()
    options = {"no_repeat": no_repeat, "length_penalty": length_penalty}
    tokens, log_probs = beam_search(network, **WAY, beams=VOCAB ** (LENGTH - 1), **options)
    for row in range(ROWS):
        best = max(
            texts_of(network, row, no_repeat), key=lambda text: text[0] / text[1] ** length_penalty
        )
        assert tokens[row].tolist() == best[2]
        assert log_probs[row].item() == pytest.approx(best[0], abs=1e-5)


def textbook(
    network: Network, row: int, beams: int, per_node: int = VOCAB
) -> tuple[float, list[int]]:
    kept = [(0.0, [START])]
    for place in range(LENGTH - 1):
        grown = []
        for score, prefix in kept:
            if prefix[-1] == END:
                grown.append((score, [*prefix, END]))
            else:
                steps = network.of(row, prefix)
                best = sorted(range(VOCAB), key=lambda token: -steps[token])
                best = best[:per_node] if place else best
                grown += [(score + steps[token], [*prefix, token]) for token in best]
        kept = sorted(grown, key=lambda text: -text[0])[:beams]
    return kept[0]


@pytest.mark.parametrize("per_node", [1, 2, 9])
@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_beams_find_what_a_loop_over_rows_finds(beams, per_node, seed):
    network = Network(seed)
    tokens, log_probs = beam_search(network, **WAY, beams=beams, per_node=per_node)
    for row in range(ROWS):
        score, text = textbook(network, row, beams, per_node)
        assert tokens[row].tolist() == text
        assert log_probs[row].item() == pytest.approx(score, abs=1e-5)


def test_the_number_and_size_of_calls_are_known_beforehand():
    network = Network()
    network.table[..., END] = 50  # every text ends at once
    tokens, _ = beam_search(network, **WAY, beams=2)
    assert network.calls == [(ROWS * 2, t) for t in range(1, LENGTH)]
    assert (tokens[:, 1:] == END).all()
    tokens, log_probs = beam_search(network, **WAY | {"max_length": 1})
    assert tokens.tolist() == [[START]] * ROWS and log_probs.tolist() == [0.0] * ROWS
    tokens, log_probs = beam_search(network, **WAY | {"rows": 0})
    assert tokens.shape == (0, LENGTH) and log_probs.shape == (0,)


def test_of_equal_texts_the_first_is_taken():
    def indifferent(tokens, rows):
        return torch.full((len(tokens), 3000), -math.log(3000))

    options = {"rows": 2, "start_id": 2998, "end_id": 2999, "max_length": 4, "beams": 3}
    tokens, _ = beam_search(indifferent, **options)
    assert tokens.tolist() == [[2998, 0, 0, 0]] * 2


def test_sampling_keeps_to_the_nucleus_and_to_its_probabilities():
    probabilities = torch.tensor([0.1, 0.5, 0.0, 0.15, 0.25])

    def network(tokens, rows):
        return probabilities.log().expand(len(tokens), -1)

    options = {"rows": 4000, "start_id": 2, "end_id": 3, "max_length": 2}
    for top_p, kept in ((0.7, [1, 4]), (0.8, [1, 3, 4]), (0.45, [1]), (1.0, [0, 1, 3, 4])):
        generator = torch.Generator().manual_seed(0)
        tokens, log_probs = sample_nucleus(network, **options, top_p=top_p, generator=generator)
        drawn = tokens[:, 1].bincount(minlength=5) / 4000
        expected = torch.zeros(5).index_put((torch.tensor(kept),), probabilities[kept])
        # four standard errors of a share among 4,000
        torch.testing.assert_close(drawn, expected / expected.sum(), rtol=0, atol=4 * 0.5 / 63)
        torch.testing.assert_close(log_probs, probabilities.log()[tokens[:, 1]])
        again = torch.Generator().manual_seed(0)
        assert torch.equal(
            tokens, sample_nucleus(network, **options, top_p=top_p, generator=again)[0]
        )


def test_sampled_texts_stay_ended_and_repeat_nothing():
    network = Network()
    generator = torch.Generator().manual_seed(0)
    tokens, log_probs = sample_nucleus(
        network, **WAY, top_p=1.0, no_repeat=True, generator=generator
    )
    assert network.calls == [(ROWS, t) for t in range(1, LENGTH)]
    for row in range(ROWS):
        texts = {tuple(text): total for total, _, text in texts_of(network, row, no_repeat=True)}
        assert log_probs[row].item() == pytest.approx(texts[tuple(tokens[row].tolist())], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 0}, "max_length 0"),
        ({"end_id": START}, "start_id and end_id are both 2"),
        ({"beams": 0}, "beams is 0"),
        ({"per_node": 0}, "per_node 0"),
    ],
)
def test_impossible_requests_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        beam_search(Network(), **WAY | options)
    with pytest.raises(ValueError, match="top_p is 0"):
        sample_nucleus(Network(), **WAY, top_p=0)
    with pytest.raises(ValueError, match="NaN"):
        beam_search(lambda tokens, rows: torch.full((len(tokens), VOCAB), math.nan), **WAY)
