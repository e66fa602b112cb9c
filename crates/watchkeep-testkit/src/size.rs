//! How large a test is.

/// The variable that says how large.
pub(crate) const VARIABLE: &str = "WATCHKEEP_TEST_SCALE";

/// How many times larger the tests are than they need to be; 1 unless `WATCHKEEP_TEST_SCALE` says otherwise.
///
/// # Panics
///
/// When the variable is not a number above 0: a run that was meant to be large must not pass as a small one.
pub fn scale() -> u64 {
    let Some(given) = std::env::var_os(VARIABLE) else { return 1 };
    let scale = given.to_str().and_then(|given| given.parse().ok()).filter(|scale| *scale > 0);
    assert!(scale.is_some(), "{VARIABLE} is {given:?}; set it to a number above 0");
    scale.unwrap_or(1)
}

/// A size that grows with [`scale`].
///
/// ```
/// assert_eq!(watchkeep_testkit::size::scaled(20), 20 * watchkeep_testkit::size::scale());
/// ```
pub fn scaled(size: u64) -> u64 {
    size * scale()
}
