//! Samplers over any noise predictor.
