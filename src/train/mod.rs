//! Training of the embedded models: data, VAE, text encoder and U-Net.
