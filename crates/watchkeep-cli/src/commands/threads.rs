//! Threads of ours, of which the system may give none.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use crate::exit::{FAILURE, Failure, Result};

/// Starts a thread that nobody need wait for.
pub(super) fn start<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().spawn(f).map_err(refused)
}

/// Starts a thread that ends before the scope does.
pub(super) fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    f: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, f).map_err(refused)
}

fn refused(error: io::Error) -> Failure {
    let what =
        format!("no thread can be started: {error}; end other processes, or raise their limit (ulimit -u)");
    Failure::new(FAILURE, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_cannot_be_had_is_an_error_in_words() {
        // No address space has room for it.
        let error = Builder::new().stack_size(usize::MAX / 2).spawn(|| ()).map_err(refused).unwrap_err();
        assert_eq!(error.code(), FAILURE);
        let text = error.to_string();
        assert!(text.starts_with("no thread can be started: ") && text.ends_with("(ulimit -u)"), "{text}");
    }
}
