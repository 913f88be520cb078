//! Errors of requests, and the certainty about their outcome.

use std::{error::Error, fmt, io, time::Duration};

use tonic::{Code, ConnectError, Status};

/// Why a request failed.
///
/// After [`Unreachable`](Self::Unreachable) and [`Refused`](Self::Refused), the request certainly was not
/// applied. After [`Lost`](Self::Lost) and [`TimedOut`](Self::TimedOut), the outcome is unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The client could not connect to any endpoint, and sent nothing.
    #[error("{}{}", list(.0), advice(.0))]
    Unreachable(Vec<Unreachable>),
    /// A member refused the request. The text is etcd's.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The connection broke, or the member gave up, after the request was sent.
    #[error("lost the answer from {endpoint}: {reason}{}", doubt(.kind))]
    Lost { endpoint: String, reason: String, kind: RequestKind },
    /// No response within the timeout.
    #[error(
        "no answer from {endpoint} within {timeout:?}{}",
        match .kind {
            RequestKind::Read => " — does a majority of the members live? 'kvctl endpoint status --cluster' shows it",
            RequestKind::Write => doubt(.kind),
        }
    )]
    TimedOut { endpoint: String, timeout: Duration, kind: RequestKind },
}

/// Whether repeating a request could change its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    Read,
    Write,
}

/// An endpoint to which the client could not connect, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    pub endpoint: String,
    pub reason: String,
    /// The host refused the connection: no process listens on the port.
    pub refused: bool,
}

impl ClientError {
    /// Whether the request certainly was not applied.
    pub fn certainly_not_applied(&self) -> bool {
        match self {
            ClientError::Unreachable(_) | ClientError::Refused { .. } => true,
            ClientError::Lost { kind, .. } | ClientError::TimedOut { kind, .. } => {
                *kind == RequestKind::Read
            }
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The error for a failed call of this kind.
    pub(super) fn of_status(endpoint: &str, kind: RequestKind, status: &Status) -> ClientError {
        if let Some(connect) = cause::<ConnectError>(status) {
            return ClientError::Unreachable(vec![Unreachable::new(endpoint, connect)]);
        }
        // A status with a source comes from our transport, one without comes from the member.
        let from_member = status.source().is_none();
        let message = status.message().to_owned();
        if from_member && (kind == RequestKind::Read || is_refused_before_proposal(status)) {
            return ClientError::Refused { code: status.code(), message };
        }
        let reason = if from_member { message } else { innermost(status) };
        ClientError::Lost { endpoint: endpoint.into(), reason, kind }
    }

    /// Whether the endpoint caused the error, not the request: the client must prefer another endpoint.
    pub(super) fn is_of_endpoint(&self) -> bool {
        match self {
            ClientError::Refused { code, .. } => *code == Code::Unavailable,
            _ => true,
        }
    }

    /// Whether another member may succeed, and trying it cannot do harm.
    pub(super) fn may_try_next_endpoint(&self, kind: RequestKind) -> bool {
        match self {
            ClientError::Unreachable(_) => true,
            ClientError::Refused { code, .. } => {
                // `DeadlineExceeded`: the member has not applied the session's revision.
                let of_member = matches!(code, Code::Unavailable | Code::DeadlineExceeded);
                kind == RequestKind::Read && of_member
            }
            ClientError::Lost { .. } => kind == RequestKind::Read,
            // The timeout covers the whole command.
            ClientError::TimedOut { .. } => false,
        }
    }
}

impl Unreachable {
    pub(super) fn new(endpoint: &str, error: &(dyn Error + 'static)) -> Unreachable {
        let io = cause::<io::Error>(error).map(io::Error::kind);
        let reason = match io {
            Some(io::ErrorKind::ConnectionRefused) => "connection refused".into(),
            Some(io::ErrorKind::TimedOut) => "no connection in time".into(),
            _ => innermost(error),
        };
        let refused = io == Some(io::ErrorKind::ConnectionRefused);
        Unreachable { endpoint: endpoint.into(), reason, refused }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot reach {}: {}", self.endpoint, self.reason)
    }
}

/// Whether a member returns this status before it proposes a command.
fn is_refused_before_proposal(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => true,
        Code::Unavailable => status.message() == "etcdserver: no leader",
        _ => false,
    }
}

fn list(unreachable: &[Unreachable]) -> String {
    unreachable.iter().map(Unreachable::to_string).collect::<Vec<_>>().join("; ")
}

fn advice(unreachable: &[Unreachable]) -> &'static str {
    if unreachable.iter().all(|u| u.refused) {
        " — is kvd running? start one with 'kvd dev'"
    } else {
        " — is the address right? name others with --endpoints"
    }
}

fn doubt(kind: &RequestKind) -> &'static str {
    match kind {
        RequestKind::Read => "",
        RequestKind::Write => {
            " — the outcome is unknown: it may or may not have been done; read before you repeat it"
        }
    }
}

/// The first error of this type in the chain of sources.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The text of the last source: the outer errors have no details.
fn innermost(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: RequestKind, code: Code, message: &str) -> ClientError {
        ClientError::of_status("a:1", kind, &Status::new(code, message))
    }

    #[test]
    fn a_write_that_may_be_applied_is_never_called_refused() {
        for message in ["etcdserver: leader changed", "etcdserver: request timed out"] {
            let error = refusal(RequestKind::Write, Code::Unavailable, message);
            assert!(matches!(error, ClientError::Lost { .. }), "{error}");
            assert!(!error.certainly_not_applied());
            assert!(error.to_string().contains("outcome is unknown"), "{error}");
        }
        for code in [Code::Unknown, Code::Internal, Code::DeadlineExceeded, Code::Cancelled] {
            assert!(!refusal(RequestKind::Write, code, "x").certainly_not_applied());
        }
    }

    #[test]
    fn a_refused_write_has_the_text_of_the_member() {
        let error =
            refusal(RequestKind::Write, Code::InvalidArgument, "etcdserver: key is not provided");
        assert_eq!(error.to_string(), "etcdserver: key is not provided");
        assert!(error.certainly_not_applied());
        assert!(
            refusal(RequestKind::Write, Code::Unavailable, "etcdserver: no leader")
                .certainly_not_applied()
        );
    }

    #[test]
    fn only_reads_try_the_next_member_after_a_response() {
        let unavailable = "etcdserver: no leader";
        assert!(
            refusal(RequestKind::Read, Code::Unavailable, unavailable)
                .may_try_next_endpoint(RequestKind::Read)
        );
        assert!(
            !refusal(RequestKind::Write, Code::Unavailable, unavailable)
                .may_try_next_endpoint(RequestKind::Write)
        );
        assert!(
            !refusal(RequestKind::Read, Code::OutOfRange, "compacted")
                .may_try_next_endpoint(RequestKind::Read)
        );
    }

    #[test]
    fn a_refused_connection_names_the_command_that_starts_a_server() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let error = ClientError::of_status("127.0.0.1:2379", RequestKind::Write, &status);
        assert_eq!(
            error.to_string(),
            "cannot reach 127.0.0.1:2379: connection refused — is kvd running? start one with 'kvd dev'"
        );
        assert!(error.certainly_not_applied() && error.may_try_next_endpoint(RequestKind::Write));
    }
}
