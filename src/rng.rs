//! Counter-based random numbers: every draw is a pure function of `(seed, stream, step, index)`.
//!
//! Nothing is consumed, so the order in which threads ask, and whether a run was resumed, cannot
//! change a value. The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC 2011); the same function stands in `shaders/shared/rng.wgsl`.

use std::f32::consts::TAU;

/// What a random number is for. Different streams are independent at equal step and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial values of parameters.
    Init = 0,
    /// Camera positions.
    Camera = 1,
    /// Stratified jitter along rays.
    Jitter = 2,
    /// Background colours.
    Background = 3,
    /// Diffusion timesteps.
    Timestep = 4,
    /// Diffusion noise.
    Noise = 5,
    /// Lights.
    Light = 6,
    /// Occupancy grid sample positions.
    Occupancy = 7,
    /// Training data: which object, caption, composition.
    Data = 8,
    /// Dropout of conditioning during training.
    Dropout = 9,
    /// Samplers of `gen3d image` and sample sheets.
    Sampler = 10,
    /// Points drawn by tests and tools.
    Probe = 11,
}

/// Philox4x32-10: four random words of a 128-bit counter under a 64-bit key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9);
            key[1] = key[1].wrapping_add(0xBB67_AE85);
        }
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
    }
    counter
}

/// The random numbers of one `(seed, stream, step)`; see the module's text.
#[derive(Debug, Clone, Copy)]
pub struct Rng {
    key: [u32; 2],
    stream: u32,
    step: u32,
}

impl Rng {
    /// The generator of one `(seed, stream, step)`.
    pub fn new(seed: u64, stream: Stream, step: u32) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], stream: stream as u32, step }
    }

    /// Seed (low and high half), step and stream, for a generator on a device.
    pub fn key_and_counter(&self) -> [u32; 4] {
        [self.key[0], self.key[1], self.step, self.stream]
    }

    /// Four random words at `index`.
    pub fn words(&self, index: u64) -> [u32; 4] {
        philox([index as u32, (index >> 32) as u32, self.step, self.stream], self.key)
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&self, index: u64) -> f32 {
        (self.words(index)[0] >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [low, high).
    pub fn range(&self, index: u64, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform(index)
    }

    /// Uniform integer in 0..n (n ≥ 1).
    pub fn below(&self, index: u64, n: u32) -> u32 {
        ((u64::from(self.words(index)[0]) * u64::from(n)) >> 32) as u32
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&self, index: u64) -> f32 {
        let w = self.words(index);
        // (0, 1]: the logarithm must not see zero.
        let u = ((w[0] >> 8) as f32 + 1.0) * (1.0 / 16_777_216.0);
        let v = (w[1] >> 8) as f32 * (1.0 / 16_777_216.0);
        (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
    }

    /// `n` standard normals at indices `offset..offset + n`.
    pub fn normals(&self, offset: u64, n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| self.normal(offset + i)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_known_answers() {
        // The published known-answer vectors of Random123 for philox4x32-10.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn normals_have_unit_moments_and_streams_differ() {
        let n = 100_000;
        let x = Rng::new(7, Stream::Noise, 3).normals(0, n);
        let mean = x.iter().sum::<f32>() / n as f32;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n as f32;
        // Five standard errors: 1/√n and √(2/n).
        assert!(mean.abs() < 5.0 / (n as f32).sqrt(), "{mean}");
        assert!((var - 1.0).abs() < 5.0 * (2.0 / n as f32).sqrt(), "{var}");
        let y = Rng::new(7, Stream::Camera, 3).normals(0, n);
        let cov = x.iter().zip(&y).map(|(a, b)| a * b).sum::<f32>() / n as f32;
        assert!(cov.abs() < 5.0 / (n as f32).sqrt(), "{cov}");
    }
}
