//! The optimisation loop: stages, checkpoints, events, previews.
