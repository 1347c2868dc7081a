"""The score of a head is the sum over pairs of parts, in every family of models."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from helpers_circuits import outputs, some_targets
from transcoders.circuits.attention import REST, attention_score, attention_table
from transcoders.circuits.graph import build_graph, influence
from transcoders.circuits.notation import Node
from transcoders.circuits.paths import Search, find_paths
from transcoders.errors import UserError


def plain_scores(folder, tokens):
    """What the plain Hugging Face model gives its softmax: (layer, head, query, key)."""
    seen: list[Tensor] = []
    softmax = nn.functional.softmax

    def watched(scores, *arguments, **options):
        seen.append(scores[0])
        return softmax(scores, *arguments, **options)

    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(nn.functional, "softmax", watched)
        hf(tokens[None], use_cache=False)
    return torch.stack(seen)


def test_pairs_add_up_to_the_score_of_the_plain_model(of_family):
    local, model = of_family, of_family.replacement.model
    expected = plain_scores(model.cfg.model_name, local.passed.tokens)
    cap = model.cfg.attn_scores_soft_cap or 0
    for layer in range(local.replacement.n_layers):
        for head in range(local.replacement.n_heads):
            for query, key in ((7, 0), (7, 4), (5, 5)):
                found = attention_score(local, layer, head, query, key)
                total = found.pairs.double().sum().item()
                own = expected[layer, head, query, : query + 1].double()
                own = cap * torch.atanh(own / cap) if cap > 0 else own
                scale = own.abs().max().item()
                assert total == pytest.approx(own[key].item(), abs=1e-5 * scale)
                assert found.score == pytest.approx(own[key].item(), abs=1e-5 * scale)
                above = (own[key] - own.mean()).item()
                assert found.above_mean == pytest.approx(above, abs=2e-5 * scale)
                pattern = expected[layer, head, query].softmax(dim=0)
                assert found.probability == pytest.approx(pattern[key].item(), rel=1e-4)


def test_parts_are_what_the_stream_consists_of(mixed):
    found = attention_score(mixed, 2, 1, -2, 3)
    for parts, token in ((found.query_parts, 6), (found.key_parts, 3)):
        here = [node for node in outputs(mixed) if node.token == token and node.layer < 2]
        written = {node._replace(source=-1) for node in here}  # heads with all they read
        assert sorted(parts) == sorted({*written, Node("bias", -1, -1, token)})


def test_the_table_has_the_largest_pairs_of_both_signs_and_adds_up(mixed):
    found = attention_score(mixed, 2, 0, 7, 4)
    table = found.table(12)
    listed, rest = table.iloc[:-1], table.iloc[-1]
    sizes = listed["contribution"].abs().tolist()
    assert sizes == found.pairs.abs().flatten().sort(descending=True).values[:12].tolist()
    assert {value > 0 for value in listed["contribution"]} == {True, False}
    queries, keys = (list(map(str, parts)) for parts in (found.query_parts, found.key_parts))
    for row in listed.itertuples():
        pair = found.pairs[queries.index(row.query_part), keys.index(row.key_part)]
        assert pair.item() == row.contribution
    assert (rest["query_part"], rest["key_part"]) == (REST, REST)
    size = found.pairs.abs().sum().item()
    assert table["contribution"].sum() == pytest.approx(found.score, abs=1e-6 * size)


def test_the_most_influential_heads_of_a_circuit_are_explained(mixed):
    graph = build_graph(find_paths(mixed, some_targets(mixed)[0], Search(40, 3)))
    table = attention_table(mixed, graph, heads=3, pairs=4)
    heads = [node for node in influence(graph) if node.kind == "head"][:3]
    places = [(f"attn{n.layer}[{n.unit}]", n.token, n.source) for n in heads]
    found = table.drop_duplicates(["head", "query", "key"])
    assert list(zip(found["head"], found["query"], found["key"], strict=True)) == places
    patterns = [mixed.passed.patterns[n.layer][n.unit, n.token, n.source].item() for n in heads]
    assert found["probability"].tolist() == patterns


def test_what_patterns_do_not_come_from_is_refused(mixed):
    def changed(change):
        patterns = [change(pattern) for pattern in mixed.passed.patterns]
        return replace(mixed, passed=mixed.passed._replace(patterns=patterns))

    short = changed(lambda pattern: pattern.tril().triu(-2))  # a window of three tokens
    with pytest.raises(UserError, match=r"key 4: attn1\[0\] cannot read it from token 7; .*5 to 7"):
        attention_score(short, 1, 0, 7, 4)
    other = changed(lambda pattern: torch.full_like(pattern, 1 / 8))
    with pytest.raises(UserError, match=r"attention scores: .* computes them in another way"):
        attention_score(other, 1, 0, -1, 2)
    graph = build_graph(find_paths(mixed, some_targets(mixed)[0], Search(20, 3)))
    assert attention_table(other, graph).empty
