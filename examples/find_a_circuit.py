"""Why does a feature fire on a prompt? Follow it back through the model, path by path.

    .venv/bin/python examples/find_a_circuit.py       seconds, after train_a_transcoder.py

    --prompt "He was born in Germany and studied at the University of"
    --target "tc3[top]@-1"         the most active feature at the last token; or tc3[123]@-1; or
                                   "logit[ France]-logit[ Germany]@-1"

Prints the strongest computational paths (the paper's Algorithm 1) and draws their graph
(Algorithm 2) as examples/out/circuit.pdf and .png.
"""

from pathlib import Path

import typer

from transcoders import (
    ReplacementModel,
    Search,
    SparseDictionary,
    Tracer,
    draw_graph,
    load_model,
    load_tokenizer,
)

OUT = Path("examples/out")
PROMPT = "He was born in Germany and studied at the University of"


def main(
    prompt: str = PROMPT, target: str = "tc3[top]@-1", layer: int = 3, bos: str = "<|endoftext|>",
    out: Path = OUT,
) -> None:  # fmt: skip
    if not (out / "transcoder").exists():
        raise SystemExit(f"{out / 'transcoder'}: no such folder; run train_a_transcoder.py first")
    # The replacement model: the language model with a transcoder in place of one MLP. The other
    # MLPs are single nodes; give more layers a transcoder to see into them.
    tokenizer = load_tokenizer(out / "model")
    transcoders = {layer: SparseDictionary.from_pretrained(out / "transcoder")}
    replacement = ReplacementModel(load_model(out / "model"), transcoders, first_position=1)
    tracer = Tracer(replacement, tokenizer, tokenizer.convert_tokens_to_ids(bos))

    circuit = tracer.trace(prompt, target, Search(n_paths=10, iterations=4, exclude_bos=True))
    print(f"{circuit.target.name} = {circuit.target.value:.2f}, reading {circuit.tokens}\n")
    print("attribution  path, from the target back")
    print(circuit.table(12))

    draw_graph(circuit.graph, circuit.tokens, out / "circuit")
    print(f"\ndrawn in {out / 'circuit.pdf'} and .png")


if __name__ == "__main__":
    typer.run(main)
