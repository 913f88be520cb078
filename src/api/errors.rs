//! Errors as gRPC knows them: the one place that knows codes. Codes and texts are etcd's.

use tonic::{Code, Status};

use crate::{
    node::{MembershipError, NodeError},
    proto::convert::WireError,
    types::CommandError,
};

/// Why a request is refused before the node sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// etcd's answer to an operation that is none.
    #[error("etcdserver: key not found")]
    EmptyOperation,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("RangeStream does not support custom sort orders")]
    StreamSorted,
    #[error("RangeStream does not support revision filters")]
    StreamFiltered,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = match refusal {
            Refusal::StreamSorted | Refusal::StreamFiltered => Code::Unimplemented,
            _ => Code::InvalidArgument,
        };
        Status::new(code, refusal.to_string())
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Status {
        let code = match &error {
            NodeError::Command(CommandError::Compacted | CommandError::FutureRevision) => {
                Code::OutOfRange
            }
            NodeError::Command(CommandError::KeyNotFound) => Code::InvalidArgument,
            NodeError::Command(CommandError::LeaseNotFound) => Code::NotFound,
            NodeError::Command(CommandError::LeaseExists) => Code::FailedPrecondition,
            NodeError::Command(CommandError::LeaseTtlTooLarge) => Code::OutOfRange,
            NodeError::Command(CommandError::OtherTerm | CommandError::DeadMember) => {
                Code::Unavailable
            }
            NodeError::Command(CommandError::NoSpace) => Code::ResourceExhausted,
            NodeError::NoLeader
            | NodeError::LeaderChanged
            | NodeError::Timeout
            | NodeError::Stopped => Code::Unavailable,
            NodeError::TooManyRequests => Code::ResourceExhausted,
            NodeError::RequestTooLarge => Code::InvalidArgument,
            NodeError::Corrupt => Code::DataLoss,
        };
        Status::new(code, error.to_string())
    }
}

impl From<MembershipError> for Status {
    fn from(error: MembershipError) -> Status {
        let code = match error {
            MembershipError::Node(error) => return error.into(),
            MembershipError::NotFound => Code::NotFound,
            MembershipError::BadUrls => Code::InvalidArgument,
            MembershipError::TransferTimedOut => Code::Unavailable,
            MembershipError::NotLeader
            | MembershipError::PlaceTaken
            | MembershipError::NotLearner
            | MembershipError::NotInSync
            | MembershipError::NotEnoughStarted
            | MembershipError::BadTransferee
            | MembershipError::Refused(_) => Code::FailedPrecondition,
        };
        Status::new(code, error.to_string())
    }
}

/// A client sent a value that this version of the API does not have.
impl From<WireError> for Status {
    fn from(error: WireError) -> Status {
        Status::invalid_argument(format!("etcdserver: {error}"))
    }
}

/// What the transport says of a message that is longer than it takes.
const MESSAGE_TOO_LONG: &str = "Error, decoded message length too large: found ";

/// The transport's own refusals, in the words and with the code of etcd's transport.
pub(super) fn of_transport(status: &Status) -> Option<Status> {
    let lengths = status.message().strip_prefix(MESSAGE_TOO_LONG)?;
    let mut numbers = lengths.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let (found, limit) = (numbers.next()?, numbers.next()?);
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    Some(Status::resource_exhausted(text))
}

/// The node answered a command with the reply of another: a fault of ours, and the command was applied.
pub(super) fn mismatched(command: &'static str) -> Status {
    Status::internal(format!("ordinal: a {command} was answered by the reply of another command"))
}

/// A method of etcd's that is not here; `instead` says what to do.
pub(super) fn not_implemented(method: &'static str, instead: &'static str) -> Status {
    Status::unimplemented(format!("ordinal: {method} is not implemented: {instead}"))
}
