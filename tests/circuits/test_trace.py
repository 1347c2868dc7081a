"""What is known of features is what they do on a text, and what they read and write."""

import pytest
import torch

from transcoders.circuits import Tracer
from transcoders.circuits.features import look_at_features
from transcoders.circuits.invariant import de_embeddings
from transcoders.circuits.notation import Node
from transcoders.circuits.replacement import ReplacementModel
from transcoders.models import mlp_activations


def test_features_are_shown_with_what_they_do_on_a_text_and_what_they_read_and_write(tracer, rows):
    nodes = [
        Node("feature", 2, 5, 3), Node("feature", 2, 5, 4), Node("feature", 0, 9, 3),
        Node("head", 1, 0, 3, 2), Node("target", 3, -1, 3),
    ]  # fmt: skip
    known = look_at_features(tracer, nodes, rows)
    assert list(known) == ["tc0[9]", "tc2[5]"]
    for layer, unit, lists, panel in known.values():
        (_, contexts), (_, drivers), (_, raised) = lists
        replacement, decode = tracer.replacement, tracer.tokenizer.decode
        mlp_in = mlp_activations(replacement.model, rows, [layer])[layer].mlp_in
        z = replacement.transcoders[layer].encode(mlp_in)[:, 1:, unit]
        peaks = z.max(dim=1)
        # On the text, the places where it is most active, and what is around them.
        strongest = z.flatten().topk(6).values.tolist()
        assert [value for _, value in contexts] == [f"{value:.2f}" for value in strongest]
        row, position = divmod(int(z.argmax()), 11)
        assert contexts[0][0] == decode(rows[row, max(position - 4, 1) : position + 2])
        (quantile,) = panel["examples_quantiles"]
        for row, example in zip(peaks.values.topk(6).indices, quantile["examples"], strict=True):
            start = max(int(peaks.indices[row]) - 12, 0)
            end = start + len(example["tokens"])
            assert example["train_token_ind"] == int(peaks.indices[row]) - start
            assert example["tokens"] == [decode([token]) for token in rows[row, 1:][start:end]]
            activations = z[row, start:end].tolist()
            assert example["tokens_acts_list"] == pytest.approx(activations, rel=0.01)
        assert sum(panel["histogram"]) == int((z > 0).sum())
        assert panel["quantile_values"][-1] == pytest.approx(panel["act_max"], rel=0.01)
        assert panel["activation_frequency"] == pytest.approx((z > 0).float().mean().item())
        # From weights alone.
        reads = replacement.encoder_vectors(layer, torch.tensor([unit]))
        best = de_embeddings(replacement, reads, 6).indices.T
        assert [word for word, _ in drivers] == tracer.tokenizer.batch_decode(best)
        effects = (
            replacement.centre(replacement.transcoders[layer].W_dec[unit]) @ replacement.model.W_U
        )
        order = [decode([token]) for token in effects.argsort(descending=True)]
        assert panel["top_logits"] == order[:8] and [word for word, _ in raised] == order[:6]
        assert panel["bottom_logits"] == order[:-9:-1]


def test_a_feature_that_never_fires_has_no_examples(random_dictionary, tracer, rows):
    dictionary = random_dictionary("transcoder")
    dictionary.b_enc[5] = -1e6
    circuit = ReplacementModel(tracer.replacement.model, {0: dictionary}, first_position=1)
    other = Tracer(circuit, tracer.tokenizer, 0)
    (known,) = look_at_features(other, [Node("feature", 0, 5, 3)], rows).values()
    assert known.lists[0][1] == known.panel["examples_quantiles"][0]["examples"] == []
    assert len(known.lists[1][1]) == 6
