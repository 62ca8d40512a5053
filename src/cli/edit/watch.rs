//! Where the time goes, and how much is left: from steps that were measured.

use crate::video::job::{Stage, Update};

/// Seconds by part, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Watch {
    parts: Vec<Part>,
    last: f64,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    seconds: f64,
    /// Steps that were there before the first measured one, and now; the share of all work at both.
    steps: [usize; 2],
    shares: [f64; 2],
}

impl Watch {
    /// Takes in an update at `now` seconds; the time since the one before was spent on it. Returns the seconds
    /// that are left, as soon as a step was measured: of this part by its own steps, of later ones by the share
    /// of the work that they are.
    pub(super) fn tick(&mut self, update: Update, now: f64) -> Option<f64> {
        let spent = (now - self.last).max(0.0);
        self.last = now;
        let name = name(update);
        let (done, share) = update.step.map_or((0, update.share.unwrap_or(0.0)), |s| (s.done, s.share));
        match self.parts.iter_mut().find(|p| p.name == name) {
            Some(part) => {
                part.seconds += spent;
                (part.steps[1], part.shares[1]) = (done, share);
            }
            None => {
                // Its first step took this long; what a killed run had done took nothing.
                let (steps, shares) = ([done, done], [share, share]);
                self.parts.push(Part { name, seconds: spent, steps, shares });
                return None;
            }
        }
        let part = self.parts.iter().find(|p| p.name == name)?;
        let step = update.step?;
        let measured = (part.steps[1] - part.steps[0].min(part.steps[1])) as f64;
        let work = part.shares[1] - part.shares[0];
        if measured <= 0.0 || work <= 0.0 {
            return None;
        }
        // The first step's seconds count with it.
        let each = part.seconds / (measured + 1.0);
        let rate = each * measured / work;
        Some(each * (step.total - step.done.min(step.total)) as f64 + rate * (1.0 - step.until).max(0.0))
    }

    /// Seconds of each part.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.parts.iter().map(|p| (p.name, p.seconds))
    }
}

fn name(update: Update) -> &'static str {
    match (update.stage, update.step) {
        (Stage::Read, _) => "read",
        (Stage::Preview, _) => "preview",
        (Stage::Edit, Some(step)) => step.part,
        (Stage::Edit, None) => "edit",
        (Stage::Write, _) => "write",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::editor::Step;

    fn step(part: &'static str, done: usize, share: f64, until: f64) -> Update {
        let step = Step { part, done, total: 10, share, until };
        Update { stage: Stage::Edit, share: Some(share), step: Some(step) }
    }

    #[test]
    fn what_is_left_follows_the_measured_steps() {
        let mut watch = Watch::default();
        let read = Update { stage: Stage::Read, share: Some(1.0), step: None };
        assert_eq!(watch.tick(read, 3.0), None);
        // Two seconds a step of ten, half of the work; then the other half at the same rate.
        assert_eq!(watch.tick(step("invert", 1, 0.05, 0.5), 5.0), None, "one step is no measure yet");
        let left = watch.tick(step("invert", 2, 0.1, 0.5), 7.0).unwrap();
        assert!((left - (8.0 * 2.0 + 20.0)).abs() < 1e-9, "{left}");
        // A part that goes on where a killed run was does not count what that one did.
        let mut again = Watch::default();
        again.tick(step("denoise", 7, 0.85, 1.0), 4.0);
        let left = again.tick(step("denoise", 8, 0.9, 1.0), 8.0).unwrap();
        assert!((left - 8.0).abs() < 1e-9, "{left}");
        let spent: Vec<_> = watch.parts().collect();
        assert_eq!(spent, [("read", 3.0), ("invert", 4.0)]);
    }
}
