//! A key-value store that tells you what changed.
