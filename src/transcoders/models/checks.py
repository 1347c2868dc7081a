"""Whether a model is the one that its files and the scale file describe.

The libraries underneath are lenient. They leave out tensors that a model has no place for, and take
a tokenizer's class in place of its file. They also run on beyond the positions that a model was
trained for. In each case, the results are those of another model, without a warning. So every model
is checked when it is fetched, and ``plan`` does the same for models on this machine.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from transcoders.config import Model
from transcoders.errors import UserError

PROBES = (
    "w5 was w17 in 1732, 2,048.5 and 09:41",
    "  Two  spaces\n\n\tand a tab; don't, I'll, HTTPServer_v2(x[0])",
    "naïve café, Zürich; 東京は日本; Привет; مرحبا 🙂",
)
"""Texts on which tokenizers differ: numbers, spaces, contractions, code, other scripts."""
POINTER = b"version https://git-lfs"
SHOWN = 3


def check_model(folder: Path, hf: Any, tokenizer: Any, model: Model) -> None:
    """Check a model that was loaded, and its tokenizer.

    Args:
        folder: where they come from.
        hf: the Hugging Face model.
        tokenizer: of the model.
        model: what the scale file says of it.

    Raises:
        UserError: something is not as the scale file or the model's own files say.
    """
    rows = len(hf.get_input_embeddings().weight)
    of_tokenizer = _problems_of_tokenizer(tokenizer, rows, model.bos_token)
    if problem := next(chain(_problems_of_weights(hf, model), of_tokenizer), None):
        raise UserError(f"{folder}: {problem}")


def check_files(folder: Path, remedy: str) -> None:
    """Refuse a folder whose files are not those of one whole model, before they are read.

    Raises:
        UserError: there is no model, a file is the pointer that Git LFS left in its place, or the
            folder holds an adapter besides.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: expected a model folder, found no such folder; {remedy} (a repository of "
            "the hub has `type: hub`)"
        )
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: expected a model folder, found no config.json; {remedy}")
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as stream:
                if stream.read(len(POINTER)) == POINTER:
                    raise UserError(
                        f"{path}: expected the file itself, found a pointer of Git LFS; run "
                        "`git lfs install` and `git lfs pull` where it was cloned"
                    )
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder}: expected a whole model, found an adapter (adapter_config.json), which "
            "would be left out; merge the adapter into the model and save that"
        )


def check_tensors(report: dict[str, Any], folder: Path, remedy: str) -> None:
    """Refuse a model that lacks tensors, or whose files hold some that do not fit into it.

    transformers would draw the former at random, and leave the latter out.

    Args:
        report: of transformers, about loading.
        folder: of the model.
        remedy: what the user can do.

    Raises:
        UserError: there are such tensors.
    """
    if mismatched := report["mismatched_keys"]:
        name, found, expected = min(mismatched)
        raise UserError(
            f"{folder}: expected {name} of shape {tuple(expected)}, as config.json says, found "
            f"{tuple(found)}; put the config.json that belongs to the weights beside them"
        )
    if missing := report["missing_keys"]:
        raise UserError(f"{folder}: the weights lack {_some(missing)}; {remedy}")
    if unused := report["unexpected_keys"]:
        raise UserError(
            f"{folder}: expected a place in the model for every tensor of its files, found none "
            f"for {_some(unused)}; correct config.json (num_hidden_layers, architectures), or "
            "save the model that was trained"
        )


def check_context(folder: Path, context_length: int) -> None:
    """Refuse rows that are longer than a model has positions.

    Raises:
        UserError: they are.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    limit = n_positions(config)
    if limit is not None and context_length > limit:
        raise UserError(
            f"corpus.context_length is {context_length}, expected at most the {limit} positions "
            f"of the model in {folder}; lower it in the scale file"
        )


def n_positions(config: Any) -> int | None:
    """The positions that a model was made for; None where its configuration names no limit."""
    return getattr(config, "max_position_embeddings", None)


def n_tokens(tokenizer: Any) -> int:
    """How many rows of the embedding are tokens. Further rows only pad it to a round size."""
    return int(max(tokenizer.get_vocab().values())) + 1


def follows_its_file(tokenizer: Any, file: Path) -> bool:
    """Whether a tokenizer writes the probes, and reads them back, as ``tokenizer.json`` says."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(file))
    plain.no_truncation()
    plain.no_padding()
    encoded = {text: plain.encode(text, add_special_tokens=False).ids for text in PROBES}
    return all(
        tokenizer(text, add_special_tokens=False).input_ids == ids
        and tokenizer.backend_tokenizer.decode(ids) == plain.decode(ids)
        for text, ids in encoded.items()
    )


def _problems_of_weights(hf: Any, model: Model) -> Iterator[str]:
    for key, found, expected in (
        ("n_layers", hf.config.num_hidden_layers, model.n_layers),
        ("d_model", hf.config.hidden_size, model.d_model),
    ):
        if found != expected:
            yield (
                f"models: {key} is {expected} in the scale file, but the model has {found}; "
                "correct the scale file"
            )
    for name, parameter in hf.named_parameters():
        if not parameter.isfinite().all():
            yield f"expected finite weights, found NaN or infinity in {name}; get the model again"


def _problems_of_tokenizer(tokenizer: Any, rows: int, bos: str) -> Iterator[str]:
    if not tokenizer.is_fast:
        yield "expected a fast tokenizer, which knows where tokens come from; add tokenizer.json"
    if (needed := n_tokens(tokenizer)) > rows:
        yield (
            f"expected a row of the embedding for each of the tokenizer's {needed} ids, found "
            f"{rows} rows; put the tokenizer beside the weights that they were trained with"
        )
    if bos not in tokenizer.get_vocab():
        yield (
            f"models: bos_token {bos!r} is not a token of the model; its special tokens are "
            f"{', '.join(tokenizer.all_special_tokens) or 'none'}"
        )
    first = tokenizer.convert_tokens_to_ids(bos)
    if any(first in tokenizer(text, add_special_tokens=False).input_ids for text in PROBES):
        yield (
            f"expected {bos!r} only where it is put, at the start of every row, found that the "
            "tokenizer writes it into texts by itself; remove it from tokenizer.json's normalizer"
            if first != tokenizer.unk_token_id
            else f"models: expected a bos_token that texts do not hold, found {bos!r}, which also "
            "stands for unknown text; choose another"
        )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - SHOWN
    return ", ".join(ordered[:SHOWN]) + (f" and {more} more" if more > 0 else "")
