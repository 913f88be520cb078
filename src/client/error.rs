//! What can go wrong between asking and being answered, and what is known of the outcome then.

use std::{error::Error, fmt, io, time::Duration};

use tonic::{Code, ConnectError, Status};

/// Why a request has no answer.
///
/// What a caller needs to know is in the variant: whether the request was carried out certainly
/// not ([`Unreachable`](Self::Unreachable), [`Refused`](Self::Refused)), or whether nobody can tell
/// ([`Lost`](Self::Lost), [`TimedOut`](Self::TimedOut)).
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// Nothing was sent: no endpoint accepts connections.
    #[error("{}{}", list(.0), advice(.0))]
    Unreachable(Vec<Unreachable>),
    /// A member answered that it will not do it. The text is etcd's.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The connection broke, or the member gave up, after the request was sent.
    #[error("lost the answer from {endpoint}: {reason}{}", doubt(.kind))]
    Lost { endpoint: String, reason: String, kind: Kind },
    /// The answer did not come in time.
    #[error(
        "no answer from {endpoint} within {timeout:?}{}",
        match .kind {
            Kind::Read => " — does a majority of the members live? 'kvctl endpoint status --cluster' shows it",
            Kind::Write => doubt(.kind),
        }
    )]
    TimedOut { endpoint: String, timeout: Duration, kind: Kind },
}

/// Whether doing a request twice differs from doing it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

/// An endpoint that could not be connected to, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    pub endpoint: String,
    pub reason: String,
    /// Somebody answered at that address: nobody listens on the port.
    pub refused: bool,
}

impl ClientError {
    /// Whether it is certain that nothing happened.
    pub fn was_not_done(&self) -> bool {
        match self {
            ClientError::Unreachable(_) | ClientError::Refused { .. } => true,
            ClientError::Lost { kind, .. } | ClientError::TimedOut { kind, .. } => {
                *kind == Kind::Read
            }
        }
    }

    /// What a member answered instead.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What a failed call means for a request of this kind.
    pub(super) fn of_status(endpoint: &str, kind: Kind, status: &Status) -> ClientError {
        if let Some(connect) = cause::<ConnectError>(status) {
            return ClientError::Unreachable(vec![Unreachable::new(endpoint, connect)]);
        }
        let told = status.source().is_none();
        let message = status.message().to_owned();
        if told && (kind == Kind::Read || certainly_not_done(status)) {
            return ClientError::Refused { code: status.code(), message };
        }
        let reason = if told { message } else { innermost(status) };
        ClientError::Lost { endpoint: endpoint.into(), reason, kind }
    }

    /// Whether the endpoint, and not the request, is why: better to ask another one next time.
    pub(super) fn is_of_endpoint(&self) -> bool {
        match self {
            ClientError::Refused { code, .. } => *code == Code::Unavailable,
            _ => true,
        }
    }

    /// Whether asking another member may help, and cannot harm.
    pub(super) fn another_may_answer(&self, kind: Kind) -> bool {
        match self {
            ClientError::Unreachable(_) => true,
            ClientError::Refused { code, .. } => {
                // The latter: it is behind what the session has seen.
                let of_member = matches!(code, Code::Unavailable | Code::DeadlineExceeded);
                kind == Kind::Read && of_member
            }
            ClientError::Lost { .. } => kind == Kind::Read,
            // The time for the whole command is spent.
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

/// Answers that a member gives before it proposes anything.
fn certainly_not_done(status: &Status) -> bool {
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

fn doubt(kind: &Kind) -> &'static str {
    match kind {
        Kind::Read => "",
        Kind::Write => {
            " — the outcome is unknown: it may or may not have been done; read before you repeat it"
        }
    }
}

/// The first error of this type among an error and its sources.
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

/// What went wrong in the end: outer layers only say that something did.
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

    fn told(kind: Kind, code: Code, message: &str) -> ClientError {
        ClientError::of_status("a:1", kind, &Status::new(code, message))
    }

    #[test]
    fn a_write_that_may_have_happened_is_never_called_refused() {
        for message in ["etcdserver: leader changed", "etcdserver: request timed out"] {
            let error = told(Kind::Write, Code::Unavailable, message);
            assert!(matches!(error, ClientError::Lost { .. }), "{error}");
            assert!(!error.was_not_done());
            assert!(error.to_string().contains("outcome is unknown"), "{error}");
        }
        for code in [Code::Unknown, Code::Internal, Code::DeadlineExceeded, Code::Cancelled] {
            assert!(!told(Kind::Write, code, "x").was_not_done());
        }
    }

    #[test]
    fn a_write_that_was_refused_says_what_the_server_said() {
        let error = told(Kind::Write, Code::InvalidArgument, "etcdserver: key is not provided");
        assert_eq!(error.to_string(), "etcdserver: key is not provided");
        assert!(error.was_not_done());
        assert!(told(Kind::Write, Code::Unavailable, "etcdserver: no leader").was_not_done());
    }

    #[test]
    fn only_reads_go_on_to_the_next_member_after_an_answer() {
        let unavailable = "etcdserver: no leader";
        assert!(told(Kind::Read, Code::Unavailable, unavailable).another_may_answer(Kind::Read));
        assert!(!told(Kind::Write, Code::Unavailable, unavailable).another_may_answer(Kind::Write));
        assert!(!told(Kind::Read, Code::OutOfRange, "compacted").another_may_answer(Kind::Read));
    }

    #[test]
    fn nobody_listening_teaches_how_to_start_a_server() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let error = ClientError::of_status("127.0.0.1:2379", Kind::Write, &status);
        assert_eq!(
            error.to_string(),
            "cannot reach 127.0.0.1:2379: connection refused — is kvd running? start one with 'kvd dev'"
        );
        assert!(error.was_not_done() && error.another_may_answer(Kind::Write));
    }
}
