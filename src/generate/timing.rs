//! Wall time per part of a run.

use std::time::Instant;

use serde::Serialize;

/// One part's total.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// The part, `stage.part`.
    pub name: String,
    /// How many times it ran.
    pub calls: u32,
    /// Seconds in all.
    pub seconds: f64,
}

/// Totals in the order of their first appearance.
#[derive(Debug, Clone, Default)]
pub struct Timings(Vec<Timing>);

impl Timings {
    /// Runs `work` and adds its time to `name`.
    pub fn time<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = work();
        self.add(name, start.elapsed().as_secs_f64());
        out
    }

    /// Adds `seconds` to `name`.
    pub fn add(&mut self, name: &str, seconds: f64) {
        match self.0.iter_mut().find(|t| t.name == name) {
            Some(timing) => {
                timing.calls += 1;
                timing.seconds += seconds;
            }
            None => self.0.push(Timing { name: name.into(), calls: 1, seconds }),
        }
    }

    /// Seconds in all.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|t| t.seconds).sum()
    }

    /// The totals.
    pub fn into_vec(self) -> Vec<Timing> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_in_order_of_appearance() {
        let mut t = Timings::default();
        t.add("b", 1.0);
        t.add("a", 2.0);
        t.add("b", 0.5);
        assert_eq!(t.time("a", || 7), 7);
        let v = t.into_vec();
        assert_eq!((v[0].name.as_str(), v[0].calls, v[0].seconds), ("b", 2, 1.5));
        assert!(v[1].seconds >= 2.0 && v[1].calls == 2);
    }
}
