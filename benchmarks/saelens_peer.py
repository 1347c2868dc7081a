"""Steps of SAELens's own trainer, on a standard SAE, as a process of its own.

    .venv-saelens/bin/python benchmarks/saelens_peer.py '{"d_model": 768, ...}'

`SAETrainer.fit` with its defaults: float32, no autocast, nothing logged. It is given batches that
are ready-made slices of the activations, so it pays nothing for shuffling.
The C library's settings are left alone; MALLOC_MMAP_THRESHOLD_=1073741824 and
MALLOC_TRIM_THRESHOLD_=2147483647 in the environment give it ours.
"""

from collections.abc import Callable, Iterator

import torch
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor
from training_peers import (
    CALIBRATION_TOKENS,
    LEARNING_RATE,
    Size,
    activations,
    bias_for,
    run_peer,
)


def train(size: Size, mark: Callable[[], None]) -> float:
    tokens = activations(size)
    sae = StandardTrainingSAE(
        StandardTrainingSAEConfig(
            d_in=size.d_model, d_sae=size.n_features, dtype="float32", device="cpu"
        )
    )
    with torch.no_grad():
        _, products = sae.encode_with_hidden_pre(tokens[:CALIBRATION_TOKENS].float())
        sae.b_enc.fill_(bias_for(products, size.l0))
    del products

    def data() -> Iterator[Tensor]:
        while True:
            for batch in tokens.split(size.batch):
                mark()
                yield batch.to(torch.float32)

    n_steps = size.warm_up + size.steps
    config = SAETrainerConfig(
        total_training_samples=n_steps * size.batch,
        train_batch_size_samples=size.batch,
        lr=LEARNING_RATE,
        lr_end=LEARNING_RATE,
        device="cpu",
    )
    trainer = SAETrainer(config, sae, data())
    trainer.fit()
    mark()
    return trainer.feature_sparsity.sum().item()


if __name__ == "__main__":
    run_peer(train)
