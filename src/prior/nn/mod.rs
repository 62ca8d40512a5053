//! Differentiable layers on candle tensors, each with an exact backward.
