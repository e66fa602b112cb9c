//! Times that were taken, and their percentiles.

use std::time::Duration;

/// Times in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn extend(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// In nanoseconds; 0 when there are none.
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<u64>() as f64 / self.0.len().max(1) as f64
    }

    /// The time below which this many of a thousand lie, in nanoseconds; 0 when there are none.
    pub(crate) fn permille(&mut self, permille: usize) -> f64 {
        let place = self.0.len().saturating_sub(1) * permille.min(1000) / 1000;
        if self.0.is_empty() {
            return 0.0;
        }
        let (_, found, _) = self.0.select_nth_unstable(place);
        *found as f64
    }
}

/// The median; 0 when there is nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    if sorted.len() % 2 == 1 || sorted.is_empty() { at(middle) } else { (at(middle - 1) + at(middle)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_medians() {
        let mut samples = Samples::default();
        assert!(samples.permille(500).abs() < f64::EPSILON);
        (1..=1001).rev().for_each(|time| samples.add(Duration::from_nanos(time)));
        assert!((samples.mean() - 501.0).abs() < f64::EPSILON);
        for (permille, expected) in [(0, 1.0), (500, 501.0), (990, 991.0), (1000, 1001.0)] {
            assert!((samples.permille(permille) - expected).abs() < f64::EPSILON, "{permille}");
        }
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
