"""How much the jobs of a scale compute and keep on disk, from its scale file alone.

Only the large matrix products are counted: most of the work at the paper's sizes, and little of it
at small ones.

- A forward pass costs 2 operations a parameter and token. Attention patterns are left out.
- A training step with all features takes as long as 5.8 products of the encoder's size. A step with
  the active features only takes as long as 2.1. Both were measured on an H100 at the paper's sizes
  (benchmarks/gpu.json; a CPU takes 1.55). That the first fifth of training is dense was seen at
  the laptop scale, on a CPU.
- Evaluating a dictionary runs the layers after its site again, and two products of its size.
"""

from transcoders.config import Group, Model, Scale, Site, cache_bytes
from transcoders.config.sections import TYPICAL_VOCABULARY

FLOAT = 4
"""Bytes of a number."""
PRODUCTS_OF_DENSE_STEP = 5.8
PRODUCTS_OF_SPARSE_STEP = 2.1
DENSE_SHARE_OF_STEPS = 0.2


def bytes_of_caches(scale: Scale) -> int:
    """Bytes on disk that activations take: of sites that are cached, as many as are read."""
    rows = {site: scale.cached_contexts(site) for site in scale.all_sites}
    return sum(
        cache_bytes(n * scale.corpus.trained_positions, scale.models[site.model].d_model)
        for site, n in rows.items()
    )


def bytes_of_all_caches(scale: Scale) -> int:
    """Bytes on disk that the activations of all sites would take."""
    widths = sum(scale.models[site.model].d_model for site in scale.all_sites)
    return cache_bytes(scale.corpus.train_tokens, widths)


def bytes_of_dictionary(scale: Scale, group: Group) -> int:
    """Bytes on disk of the weights of one dictionary of a group."""
    d_model = scale.models[group.model].d_model
    return 2 * FLOAT * d_model * scale.training_of(group).expansion * d_model


def bytes_of_group(scale: Scale, group: Group) -> int:
    """Bytes on disk of the weights of a group's dictionaries."""
    return len(scale.dictionaries_in(group)) * bytes_of_dictionary(scale, group)


def flops_of_caching(scale: Scale, deepest: Site) -> int:
    """Operations that make the activations of a model, down to its deepest site."""
    model = scale.models[deepest.model]
    return scale.corpus.train_tokens * through_blocks(model, deepest.layer + 1)


def flops_of_group(scale: Scale, group: Group) -> float:
    """Operations that train all dictionaries of a group, with the model's if it streams."""
    training, model = scale.training_of(group), scale.models[group.model]
    product = 2 * model.d_model * training.expansion * model.d_model
    dense = DENSE_SHARE_OF_STEPS if training.sparse_below_density else 1.0
    products = dense * PRODUCTS_OF_DENSE_STEP + (1 - dense) * PRODUCTS_OF_SPARSE_STEP
    passes = through_blocks(model, group.deepest.layer + 1) if scale.streams(group) else 0
    tokens = training.epochs * scale.contexts_of(group) * scale.corpus.trained_positions
    return tokens * (passes + len(scale.dictionaries_in(group)) * products * product)


def flops_of_evaluation(scale: Scale, site: Site) -> int:
    """Operations that evaluate all dictionaries of a site."""
    model, entries = scale.models[site.model], scale.dictionaries_of(site)
    whole = through_blocks(model, model.n_layers) + 2 * TYPICAL_VOCABULARY * model.d_model
    after = whole - through_blocks(model, site.layer + 1)
    products = sum(bytes_of_dictionary(scale, scale.group(entry.group)) for entry in entries) // 2
    most = scale.corpus.eval_contexts
    rows = min(scale.rows_of_evaluation(site) or most, most)
    return rows * scale.corpus.context_length * (whole + (2 + len(entries)) * after + products)


def through_blocks(model: Model, n_layers: int) -> int:
    """Operations a token in the first layers of a model."""
    return 2 * 12 * n_layers * model.d_model**2
