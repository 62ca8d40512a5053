//! What `gen3d bench` and the criterion benches time: one workload a file, all sizes fixed, so that two
//! machines or two days can be compared; ratios within a run mean more than its milliseconds.

pub mod particles;
pub mod prior;
pub mod raster;
pub mod render;

use std::time::{Duration, Instant};

use crate::Result;

/// Median time of `work` over repetitions that fill at least `budget` (and are at least five), after
/// one that is not counted.
///
/// # Errors
/// The first error of `work`.
pub fn median(budget: Duration, mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
    work()?;
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || start.elapsed() < budget {
        let begin = Instant::now();
        work()?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_the_first_run_and_stragglers() {
        let mut calls = 0;
        let time = median(Duration::ZERO, || {
            calls += 1;
            if calls <= 2 {
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        });
        assert_eq!(calls, 6, "one to warm up and five that count");
        assert!(time.unwrap() < Duration::from_millis(100));
    }
}
