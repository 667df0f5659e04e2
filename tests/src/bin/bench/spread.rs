//! Many measurements in a few numbers.

use serde_json::{Value, json};

/// Milliseconds.
pub struct Spread {
    pub p50: f64,
    pub p95: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |share: usize| {
            let index = (nanos.len() * share / 100).min(nanos.len().saturating_sub(1));
            nanos.get(index).map_or(0.0, |&nanos| nanos as f64 / 1e6)
        };
        Self { p50: at(50), p95: at(95), min: at(0), max: at(100) }
    }

    pub fn json(&self) -> Value {
        json!({ "p50": self.p50, "p95": self.p95, "min": self.min, "max": self.max })
    }
}
