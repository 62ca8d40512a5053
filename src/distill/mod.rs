//! Score distillation: gradients on latents from a noise predictor.
