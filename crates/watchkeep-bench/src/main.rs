//! Benchmarks and comparisons.
fn main() {}
