//! Whether a server may listen where it was asked to.

use crate::serve::Listen;

/// Refuses an address that others can reach, unless they must say who they are, and nobody in between hears it.
///
/// ```
/// use watchkeep_server::{Listen, may_listen};
/// let everywhere: Listen = "0.0.0.0:7460".parse()?;
/// assert!(may_listen(&Listen::default(), false, false, false).is_ok());
/// assert!(may_listen(&everywhere, false, true, false).is_err());
/// assert!(may_listen(&everywhere, true, false, false).is_err());
/// assert!(may_listen(&everywhere, true, true, false).is_ok());
/// assert!(may_listen(&everywhere, false, false, true).is_ok());
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
///
/// A sentence that says what is missing.
pub fn may_listen(listen: &Listen, has_tls: bool, has_tokens: bool, insecure: bool) -> Result<(), String> {
    if insecure || listen.is_private() {
        return Ok(());
    }
    let missing = match (has_tls, has_tokens) {
        (true, true) => return Ok(()),
        (true, false) => "no token exists: make one with `watchkeep token create`, or give --require-token",
        (false, true) => "tokens would cross the network in the clear: give --tls-cert and --tls-key",
        (false, false) => {
            "there are neither tokens nor TLS: make one with `watchkeep token create`, and give --tls-cert and --tls-key"
        }
    };
    Err(format!(
        "{listen} can be reached from other machines, and {missing}. Or listen on 127.0.0.1, behind a proxy with TLS; \
         or give --insecure-listen where the network itself is trusted"
    ))
}
