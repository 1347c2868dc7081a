"""Transcoders and sparse autoencoders for language models: training, evaluation, circuits.

The modules are listed here in the order in which data flows; each imports only those before it.

    errors       the one exception that a user is meant to read
    config       a scale file, typed, checked and frozen
    layout       where every file of a scale lives
    files        atomic writes, hashes, disk checks
    progress     progress bars on a terminal, plain lines in a log
    sources      files from a package wheel or a hub, checked by SHA-256
    models       language models, fetched and loaded; the tensors around their MLPs
    corpus       text -> documents -> rows of tokens, split by document
    activations  the inputs and outputs of MLPs, cached in shards
    kernels      inner loops of training on a CPU, compiled
    entries      the active entries of features, found and decoded
    loss         the loss of a dictionary and its gradients
    dictionaries transcoders and sparse autoencoders
    training     from cached activations to trained dictionaries
    splice       a dictionary in place of an MLP
    evaluation   L0, cross entropy and the other columns of ``evaluation.csv``
    fronts       two kinds of dictionary compared at the same sparsity
    plots        figures from tables
    tables       tables and sentences of the pages
    notebooks    execution and rendering of notebooks
    cli          one subcommand per workflow rule
"""
