"""How much the jobs of a scale compute and keep in memory, from its scale file alone.

Only the large matrix products are counted: most of the work at the paper's sizes, and little of it
at small ones.

- A forward pass costs 2 operations a parameter and token. Attention patterns are left out.
- A training step with all features takes as long as 5.8 products of the encoder's size. A step with
  the active features only takes as long as 2.1. Both were measured on an H100 at the paper's sizes
  (benchmarks/gpu.json; a CPU takes 1.55). That the first fifth of a training is dense was seen at
  the laptop scale, on a CPU.
- Evaluating a dictionary runs the layers after its site again, and two products of its size.
"""

from transcoders.config import Dictionary, Group, Model, Scale, Site, cache_bytes
from transcoders.config.sections import TYPICAL_VOCABULARY
from transcoders.training.memory import FLOAT, dictionary_bytes, step_bytes

PRODUCTS_OF_DENSE_STEP = 5.8
PRODUCTS_OF_SPARSE_STEP = 2.1
DENSE_SHARE_OF_STEPS = 0.2


class Sizes:
    """Operations and bytes of the jobs of a scale that trains. Memory is a GPU's, at most."""

    def __init__(self, scale: Scale) -> None:
        # A scale with groups has these sections.
        assert scale.activations and scale.training and scale.evaluation
        self.scale, self.corpus = scale, scale.corpus
        self.activations, self.evaluation = scale.activations, scale.evaluation

    def cache_bytes(self) -> int:
        """Bytes on disk that activations take: of sites that are cached, as many as are read."""
        return sum(
            cache_bytes(
                self.scale.cached_contexts(site) * self.corpus.trained_positions,
                self._model(site).d_model,
            )
            for site in self.scale.all_sites
        )

    def all_cached_bytes(self) -> int:
        """Bytes on disk that the activations of all sites would take."""
        widths = sum(self._model(site).d_model for site in self.scale.all_sites)
        return cache_bytes(self.corpus.train_tokens, widths)

    def dictionary_file(self, entry: Dictionary) -> int:
        """Bytes on disk of one dictionary."""
        return 2 * FLOAT * self._model(entry.site).d_model * self._n_features(entry)

    def kept_by_group(self, group: Group) -> int:
        """Bytes that the dictionaries of a group keep while they train, and in a checkpoint."""
        entries = self.scale.dictionaries_in(group)
        d_model = self.scale.models[group.model].d_model
        return len(entries) * dictionary_bytes(d_model, self._n_features(entries[0]))

    def flops_of_caching(self, deepest: Site) -> int:
        """Operations that make the activations of a model, down to its deepest site."""
        return self.corpus.train_tokens * through_blocks(self._model(deepest), deepest.layer + 1)

    def memory_of_caching(self, site: Site) -> int:
        """Bytes of the model and of one pass."""
        model = self._model(site)
        return FLOAT * model.n_parameters() + self._one_pass(self.activations.batch_contexts, model)

    def flops_of_group(self, group: Group) -> float:
        """Operations that train all dictionaries of a group, with the model's if it streams."""
        training, model = self.scale.training_of(group), self.scale.models[group.model]
        entries = self.scale.dictionaries_in(group)
        product = 2 * model.d_model * self._n_features(entries[0])
        dense = DENSE_SHARE_OF_STEPS if training.sparse_below_density else 1.0
        products = dense * PRODUCTS_OF_DENSE_STEP + (1 - dense) * PRODUCTS_OF_SPARSE_STEP
        streams = self.scale.streams(group)
        model_passes = through_blocks(model, group.deepest.layer + 1) if streams else 0
        contexts = training.epochs * self.scale.contexts_of(group)
        tokens = contexts * self.corpus.trained_positions
        return tokens * (model_passes + len(entries) * products * product)

    def memory_of_group(self, group: Group) -> int:
        """Bytes of a training job: its dictionaries, one step, and what streaming needs."""
        training, model = self.scale.training_of(group), self.scale.models[group.model]
        memory = step_bytes(model.d_model, training.expansion * model.d_model, training)
        if self.scale.streams(group):
            # The whole model stays in memory, and so does the buffer, which is full before a step.
            passing = self._one_pass(self.activations.batch_contexts, model)
            memory = max(memory, passing) + FLOAT * model.n_parameters()
            memory += cache_bytes(training.buffer_tokens, model.d_model, len(group.sites))
        return self.kept_by_group(group) + memory

    def flops_of_evaluation(self, site: Site) -> int:
        """Operations that evaluate all dictionaries of a site."""
        model, entries = self._model(site), self.scale.dictionaries_of(site)
        whole = through_blocks(model, model.n_layers) + 2 * TYPICAL_VOCABULARY * model.d_model
        after = whole - through_blocks(model, site.layer + 1)
        products = sum(map(self.dictionary_file, entries)) // 2
        rows = self.scale.rows_of_evaluation(site) or self.corpus.eval_contexts
        tokens = min(rows, self.corpus.eval_contexts) * self.corpus.context_length
        return tokens * (whole + (2 + len(entries)) * after + products)

    def memory_of_evaluation(self, site: Site) -> int:
        """Bytes of the model, all dictionaries of a site, their features and logits of a batch."""
        model, rows = self._model(site), self.evaluation.batch_contexts
        entries = self.scale.dictionaries_of(site)
        batch = rows * self.corpus.context_length
        return (
            FLOAT * model.n_parameters()
            + sum(map(self.dictionary_file, entries))
            + FLOAT * batch * (6 * TYPICAL_VOCABULARY + 2 * max(map(self._n_features, entries)))
            + self._one_pass(rows, model)
        )

    def memory_of_gathering(self) -> int:
        """Bytes of the model, all observed dictionaries, and their features of a batch."""
        wanted = self.scale.studied
        model, entries = self._model(wanted.rated_site), self.scale.observed_dictionaries
        batch = wanted.batch_contexts * self.corpus.context_length
        return (
            FLOAT * model.n_parameters()
            + sum(map(self.dictionary_file, entries))
            + FLOAT * batch * 2 * self._n_features(entries[0])
            + self._one_pass(wanted.batch_contexts, model)
        )

    def _model(self, site: Site) -> Model:
        return self.scale.models[site.model]

    def _n_features(self, entry: Dictionary) -> int:
        training = self.scale.training_of(self.scale.group(entry.group))
        return training.expansion * self._model(entry.site).d_model

    def _one_pass(self, rows: int, model: Model) -> int:
        """What one layer makes: an MLP four times as wide, patterns of heads that are 64 wide."""
        length = self.corpus.context_length
        patterns = 2 * (model.d_model // 64 + 1) * length
        return FLOAT * rows * length * (3 * 4 * model.d_model + 8 * model.d_model + patterns)


def through_blocks(model: Model, n_layers: int) -> int:
    """Operations a token in the first layers of a model."""
    return 2 * 12 * n_layers * model.d_model**2
