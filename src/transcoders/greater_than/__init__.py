"""The greater-than case study (paper, section 5): where a model decides that 32 is before 47.

Read :mod:`~transcoders.greater_than.study` first. Its steps are in

- ``task``: the prompts, how a tokenizer writes numbers, and the metric;
- ``answers``: what a model answers, as it is and changed inside;
- ``where``: which MLPs and heads carry the task, the rule that chooses one of each, and the parts
  that recur on the paths of many prompts;
- ``ablations``: what is lost without each MLP and head, and whether those chosen are ahead;
- ``estimates``: what is concluded over decades of years, with intervals;
- ``units``: the chosen MLP's output as a sum of transcoder features, SAE features or neurons, and
  the metric against the number of units kept (Figure 4);
- ``years``: what features say about years, from weights alone (Figure 5).
"""

from transcoders.greater_than.study import study_greater_than as study_greater_than
