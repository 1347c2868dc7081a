"""What features say about years: plain loops over weights, and summaries worked by hand."""

from math import isnan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers_circuits import assert_close, centred, make_circuit, plain
from transcoders.greater_than.task import Numbers
from transcoders.greater_than.years import agreement, step, year_de_embeddings, year_logits

FEATURES = torch.tensor([3, 17, 0])


@pytest.fixture(scope="module")
def replacement(any_setting, random_dictionary):
    mix = {0: "transcoder", 2: "transcoder"}
    return make_circuit(any_setting.model, random_dictionary, mix, first=1, n_features=40)


@torch.no_grad()
def test_year_logits_are_those_of_a_plain_loop(any_setting, replacement):
    numbers, norm = any_setting.numbers, plain(any_setting.model).final_norm
    unembedding = any_setting.hf.get_output_embeddings().weight
    found = year_logits(replacement, numbers, 2, FEATURES)
    rows = []
    for feature in FEATURES.tolist():
        written = centred(norm, replacement.transcoders[2].W_dec[feature]) * norm.weight
        logits = [(written @ unembedding[token]).item() for token in numbers.ids.tolist()]
        rows.append([logit - sum(logits) / len(logits) for logit in logits])
    assert_close(found, torch.tensor(rows))


@pytest.mark.parametrize(("n_upstream", "head"), [(3, (1, 0)), (100, (2, 1))])
@torch.no_grad()
def test_de_embeddings_are_those_of_plain_loops(any_setting, replacement, head, n_upstream):
    numbers, embedding = any_setting.numbers, any_setting.hf.get_input_embeddings().weight
    block = plain(any_setting.model).blocks[head[0]]
    below, above = (replacement.transcoders[layer] for layer in (0, 2))
    rows = []
    for feature in FEATURES.tolist():
        reads = centred(block.norm_2, above.W_enc[:, feature])
        connections = []
        for upstream in range(40):
            normalised = centred(block.norm_1, below.W_dec[upstream]) * block.norm_1.weight
            values = normalised @ block.W_V[head[1]]
            connections.append((values @ block.W_O[head[1]] @ reads).item())
        best = sorted(range(40), key=lambda i: -connections[i])[:n_upstream]
        rows.append(
            [
                sum(
                    connections[i] * (token @ centred(block.norm_2, below.W_enc[:, i])).item()
                    for i in best
                )
                for token in embedding[numbers.ids]
            ]
        )
    found = year_de_embeddings(replacement, numbers, 2, FEATURES, head, n_upstream=n_upstream)
    assert_close(found, torch.tensor(rows))


@st.composite
def features(draw):
    """How a tokenizer writes numbers; a feature's activations by year and a value by number."""
    numbers = draw(st.sampled_from([Numbers(torch.arange(100)), Numbers(torch.arange(10))]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    activation = torch.rand(100, generator=generator)
    return numbers, activation, torch.randn(len(numbers.ids), generator=generator)


@given(features())
def test_a_step_is_an_average_of_contrasts(feature):
    numbers, activation, dla = feature
    total, weight = 0.0, 0.0
    for year in range(100):
        contrast = numbers.contrast(year)
        if contrast is not None:
            value = sum(w * dla[token].item() for token, w in contrast.items())
            total += activation[year].item() * value
            weight += activation[year].item()
    found = step(activation, dla, numbers)
    assert found == pytest.approx(total / weight, abs=1e-5)
    assert step(activation * 7, dla + 3, numbers) == pytest.approx(found, abs=1e-5)
    assert step(activation, -2 * dla, numbers) == pytest.approx(-2 * found, abs=1e-5)


@given(features())
def test_agreement_is_of_ranks(feature):
    numbers, activation, de_embedding = feature
    by_number = activation.view(len(de_embedding), -1).mean(dim=1)
    ranks = [values.argsort().argsort().double() for values in (by_number, de_embedding)]
    expected = torch.corrcoef(torch.stack(ranks))[0, 1].item()
    assert agreement(activation, de_embedding, numbers) == pytest.approx(expected)
    assert agreement(activation, de_embedding.exp(), numbers) == pytest.approx(expected)
    # What never varies agrees with nothing.
    assert isnan(agreement(torch.ones(100), de_embedding, numbers))


def test_a_head_that_reads_before_layer_0_writes_is_de_embedded_itself(any_setting, replacement):
    found = year_de_embeddings(replacement, any_setting.numbers, 2, FEATURES, (0, 1), n_upstream=4)
    embedding = any_setting.hf.get_input_embeddings().weight[any_setting.numbers.ids]
    block = plain(any_setting.model).blocks[0]
    normalised = centred(block.norm_1, embedding) * block.norm_1.weight
    for row, feature in zip(found, FEATURES, strict=True):
        reads = centred(block.norm_2, replacement.transcoders[2].W_enc[:, feature])
        assert_close(row, normalised @ (block.W_V[1] @ (block.W_O[1] @ reads)))
