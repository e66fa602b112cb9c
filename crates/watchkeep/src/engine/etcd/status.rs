//! What it means that a call failed.

use std::error::Error as StdError;
use std::sync::Arc;

use tonic::{Code, ConnectError, Status};

use crate::types::error::{Error, Reason};

use super::address::Access;

/// One end of a connection does not trust the other: it is so however often it is tried.
#[derive(Debug, thiserror::Error)]
#[error("one end does not trust the other")]
struct Distrust(#[source] Status);

/// What TLS says of a certificate: the member of ours, in an alert of one of these names, and this process of the member's.
const ALERT: &str = "received fatal alert: ";
const OURS: [&str; 8] = [
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRevoked",
    "CertificateExpired",
    "CertificateUnknown",
    "UnknownCA",
    "AccessDenied",
    "CertificateRequired",
];
const THEIRS: &str = "invalid peer certificate";
/// How it is said that a connection ended.
const HUNG_UP: [&str; 4] = ["broken pipe", "reset by peer", "handshake eof", "connection closed"];

/// Puts what is at the bottom of a failed connection where it is shown, and what to do about it. `is_known`: this member,
/// or another of them, has answered before, so that the address is right.
pub(super) fn explained(status: Status, access: &Access, is_known: bool) -> Status {
    let Some(cause) = causes(&status).last().map(ToString::to_string) else { return status };
    let is_over = HUNG_UP.iter().any(|words| cause.to_lowercase().contains(words));
    let (is_distrust, said) = match &access.tls {
        Some(_) if is_of_ours(&cause) => {
            (true, format!("{cause}: the certificate that it asks for is that of WATCHKEEP_ETCD_CERT"))
        }
        Some(_) if cause.contains(THEIRS) => {
            (true, format!("{cause}: who signed the member's certificate stands in WATCHKEEP_ETCD_CA"))
        }
        None if is_over && !is_known => {
            (false, format!("{cause}: if it speaks TLS, the address begins with etcds://"))
        }
        Some(_) if is_over && !is_known => {
            let said = format!(
                "{cause}: if it asks for certificates, ours is that of WATCHKEEP_ETCD_CERT; if it does not speak TLS, the \
                 address begins with etcd://"
            );
            (false, said)
        }
        _ => (false, cause),
    };
    let mut explained = Status::new(status.code(), said);
    let source: Arc<dyn StdError + Send + Sync> =
        if is_distrust { Arc::new(Distrust(status)) } else { Arc::new(status) };
    explained.set_source(source);
    explained
}

/// Whether the member says that it does not take our certificate. Other alerts may be over the next time.
fn is_of_ours(cause: &str) -> bool {
    cause.split_once(ALERT).is_some_and(|(_, alert)| OURS.iter().any(|name| alert.starts_with(name)))
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

/// Whether one end does not trust the other.
pub(super) fn is_distrust(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<Distrust>())
}

/// Whether another member may know more.
pub(super) fn is_no_answer(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => true,
        // A member that is behind was asked for a revision that it has not seen yet.
        Code::OutOfRange => status.message().contains("future revision"),
        _ => false,
    }
}

/// A call was not sent, for there was no token for it.
#[derive(Debug, thiserror::Error)]
#[error("no token")]
struct Tokenless(#[source] Status);

/// What came of asking for a token is said of a call that needed one, and was not sent.
pub(super) fn tokenless(status: Status) -> Status {
    let mut said = Status::new(status.code(), status.message());
    let source: Arc<dyn StdError + Send + Sync> = Arc::new(Tokenless(status));
    said.set_source(source);
    said
}

/// Whether a call never left this process: there was no connection, or no token.
pub(super) fn is_unsent(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<ConnectError>() || cause.is::<Tokenless>())
}

/// Whether the revision that was asked for is compacted.
pub(super) fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("compacted")
}

/// Whether a call was refused for its token.
pub(super) fn is_unauthenticated(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || is_nameless(status)
        || status.message().contains("revision of auth store is old")
}

/// Whether it had no token, and needed one.
fn is_nameless(status: &Status) -> bool {
    status.message().contains("user name is empty")
}

/// Whether a cluster asks nobody for a password.
pub(super) fn is_open_to_all(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("authentication is not enabled")
}

/// What a user is told of a call that failed.
pub(super) fn refused(status: &Status) -> Error {
    let said = status.message().to_owned();
    match status.code() {
        _ if is_distrust(status) => Reason::Forbidden { said }.into(),
        _ if is_nameless(status) => {
            Reason::Forbidden { said: format!("{said}: name the user in WATCHKEEP_ETCD_USER") }.into()
        }
        Code::InvalidArgument if said.contains("authentication failed") => {
            let said = format!(
                "{said}: they stand in WATCHKEEP_ETCD_USER, and in WATCHKEEP_ETCD_PASSWORD or the file that \
                 WATCHKEEP_ETCD_PASSWORD_FILE names"
            );
            Reason::Forbidden { said }.into()
        }
        Code::PermissionDenied => {
            let said =
                format!("{said}: the user needs a role with readwrite on the whole prefix of the store");
            Reason::Forbidden { said }.into()
        }
        Code::ResourceExhausted if said.contains("space") => Reason::ClusterFull.into(),
        Code::OutOfRange if is_compacted(status) => Reason::HistoryGone.into(),
        Code::Unauthenticated => Reason::Forbidden { said }.into(),
        Code::InvalidArgument if said.contains("too large") || said.contains("too many") => {
            Reason::TooLargeForEtcd { said }.into()
        }
        _ => Reason::Unreachable { said }.into(),
    }
}
