"""The draft of a blind study: a file in which the analyst has only words left to write.

:func:`write_draft` fills in what a machine can: the feature, the hash of its weights, the questions
that studies begin with, and how the hypothesis will be scored. The analyst, the hypothesis, its
pattern and what is said afterwards are left empty, and a study without them is not valid, so no
draft gets into Table 4 by mistake. Nothing that a draft holds depends on the words of a text.
"""

from pathlib import Path
from typing import Any

import yaml

from transcoders.case_studies.answers import Answers
from transcoders.case_studies.scripts import MOSTLY, SUCCESS
from transcoders.checksums import sha256
from transcoders.errors import UserError
from transcoders.layout import Layout

HEAD = """\
# A draft of a blind study of feature {feature} at the scale {scale}. Its dictionary is
# {dictionary}, and the feature is active on {frequency:.2%} of the tokens.
#
# 1. Ask. Each answer depends on rows, positions and weights alone, never on words:
#
#      from pathlib import Path
#      from transcoders.case_studies.harness import BlindStudy
#      study = BlindStudy({scale!r}, feature={feature!r}, restricted={restricted},
#                         transcript=Path({transcript!r}))
#      print(study.examples())
#
#    Write each question into `steps` with the thought that led to it. The first ones are there.
#    Say in `analyst` who you are and what you know of the feature and the text.
# 2. Guess. Write `hypothesis`, and the same as a `pattern`: a regular expression that is searched
#    for in `before⟦peak⟧after`. For two words at the peak: ⟦ ?(?i:one|another)⟧
# 3. Look: print(study.reveal("the hypothesis").examples), and say in `afterwards` what you saw.
# 4. Move this file to {place}/, and run
#      .venv/bin/snakemake --cores all --config scale={scale} -- case_studies
#
# The pattern's balanced accuracy decides: {success} or more is a success, {mostly} or more is
# mostly right, and less is a failure. Guessing gives 0.5. `drawn` says whether chance chose the
# feature.
"""


def write_draft(path: Path, scale: str, feature: str, *, drawn: bool, restricted: bool) -> None:
    """Write the draft of a study.

    Args:
        path: a file that does not exist yet.
        scale: the name of a file in ``config/``, whose results are there.
        feature: a feature of a headline transcoder of the rated model, such as ``tc20[665]``.
        drawn: whether the feature was drawn at random.
        restricted: whether the study hides what prompts make of layer 0's features, too.

    Raises:
        UserError: something is missing, the feature cannot be studied, or the file exists.
    """
    if path.exists():
        raise UserError(f"{path}: this file exists already and stays; name another with --out")
    answers, layout = Answers(scale, feature, restricted=restricted, device="cpu"), Layout(scale)
    facts = answers.facts
    if not (examples := answers.examples()):
        raise UserError(
            f"{feature}: expected a feature that is active on the text, found none of its "
            "examples; study another feature"
        )
    head = HEAD.format(
        **facts, scale=scale, place=layout.study_scripts, success=SUCCESS, mostly=MOSTLY,
        transcript=str(path.with_suffix(".json")),
    )  # fmt: skip
    weights = layout.dictionary(facts["dictionary"]) / "sae_weights.safetensors"
    study = {
        "title": f"Feature {feature}",
        "analyst": None,
        "feature": feature,
        "drawn": drawn,
        "weights_sha256": sha256(weights),
        "restricted": restricted,
        "steps": _first_steps(feature, facts["layers"], examples[0]),
        "hypothesis": None,
        "pattern": None,
        "afterwards": None,
    }
    body = yaml.safe_dump(study, sort_keys=False, allow_unicode=True, width=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a record of its hash, since it is there to be edited.
    path.write_text(head + body.replace(": null\n", ":\n"), encoding="utf-8")


def _first_steps(feature: str, layers: list[int], best: dict[str, Any]) -> list[dict[str, Any]]:
    """The questions that studies begin with: all that are allowed, and depend on no earlier one.

    Args:
        feature: the feature that is studied.
        layers: those that have transcoders.
        best: the place where the feature is most active.
    """
    steps: list[tuple[str, dict[str, Any]]] = [
        ("Where is it active, and how strongly?", {"examples": {}}),
        (
            "Which tokens would drive it straight from the embedding?",
            {"de_embedding": {"vector": feature}},
        ),
        ("What does it do to the next token?", {"direct_logits": {"feature": feature}}),
    ]
    if 0 in layers and not feature.startswith("tc0["):
        connected = {"connections": {"vector": feature, "layer": 0, "k": 6}}
        steps.append(("Which features of layer 0 is it connected to, by weights alone?", connected))
    place = {key: best[key] for key in ("row", "position")}
    steps.append(("Why is it active where it is most active?", {"circuit": place}))
    return [{"thought": thought, "ask": ask} for thought, ask in steps]
