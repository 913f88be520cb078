//! Maps errors to gRPC statuses. Codes and texts are etcd's. No other file of the API chooses a code for
//! an error of the node.

use tonic::{Code, Status};

use crate::{
    node::{MembershipError, NodeError},
    proto::convert::WireError,
    types::CommandError,
};

/// Why validation refuses a request before the node sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// An empty operation; the text is etcd's.
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

impl From<ValidationError> for Status {
    fn from(error: ValidationError) -> Status {
        let code = match error {
            ValidationError::StreamSorted | ValidationError::StreamFiltered => Code::Unimplemented,
            _ => Code::InvalidArgument,
        };
        Status::new(code, error.to_string())
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
            NodeError::Command(CommandError::StaleTerm | CommandError::MemberIdUsed) => {
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
            MembershipError::BadUrls | MembershipError::OtherCluster(_) => Code::InvalidArgument,
            MembershipError::TransferTimedOut => Code::Unavailable,
            MembershipError::NotLeader
            | MembershipError::OrdinalTaken
            | MembershipError::NotLearner
            | MembershipError::NotInSync
            | MembershipError::NotEnoughStarted
            | MembershipError::BadTransferee
            | MembershipError::Refused(_) => Code::FailedPrecondition,
        };
        Status::new(code, error.to_string())
    }
}

/// A request has a value that this version of the API does not define.
impl From<WireError> for Status {
    fn from(error: WireError) -> Status {
        Status::invalid_argument(format!("etcdserver: {error}"))
    }
}

/// The text of [`request_aborted`].
const ABORTED: &str = "ordinal: the client aborted the request";

/// The error that a service reads when its client resets the stream or the connection breaks. The final
/// status is `Cancelled`. This one is not, because the message decoder takes `Cancelled` for the regular
/// end of a request.
pub fn request_aborted() -> Status {
    Status::unknown(ABORTED)
}

/// The prefix of the message decoder's errors; the reason follows.
const UNDECODABLE: &str = "failed to decode Protobuf message: ";

/// Translates an error on a stream. As [`translate_transport_status`], except for a message that cannot be
/// decoded: for streams, etcd's transport has another text.
pub fn translate_stream_status(status: Status) -> Status {
    if let Some(why) = status.message().strip_prefix(UNDECODABLE) {
        return Status::internal(format!("grpc: failed to unmarshal the received message: {why}"));
    }
    translate_transport_status(&status).unwrap_or(status)
}

/// Translates an error of our transport (tonic) into code and text of etcd's transport (grpc-go). `None`:
/// the status is not an error of the transport.
///
/// For a message that cannot be decoded, the reason keeps the words of our decoder.
pub fn translate_transport_status(status: &Status) -> Option<Status> {
    let text = status.message();
    if let Some(lengths) = text.strip_prefix("Error, decoded message length too large: found ") {
        let mut numbers = lengths.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (found, limit) = (numbers.next()?, numbers.next()?);
        let text = format!("grpc: received message larger than max ({found} vs. {limit})");
        return Some(Status::resource_exhausted(text));
    }
    if let Some(limit) = text.strip_prefix("Error decompressing: size limit, of ") {
        let limit = limit.split(' ').next()?;
        let text = format!("grpc: received message after decompression larger than max {limit}");
        return Some(Status::resource_exhausted(text));
    }
    if let Some(why) = text.strip_prefix("Error decompressing: ") {
        let why = why.trim_end_matches(", while sending request");
        let why = why.replace("unexpected end of file", "unexpected EOF");
        let text = format!("grpc: failed to decompress the message: {why}");
        return Some(Status::internal(text));
    }
    if let Some(encoding) = text.strip_prefix("Content is compressed with `") {
        let encoding = encoding.split('`').next()?;
        return Some(unknown_encoding(encoding));
    }
    if text.starts_with("protocol error: received message with compressed-flag") {
        return Some(Status::internal("grpc: compressed flag set with identity or empty encoding"));
    }
    if let Some(flag) =
        text.strip_prefix("protocol error: received message with invalid compression flag: ")
    {
        let flag = flag.split(' ').next()?;
        return Some(Status::internal(format!("grpc: received unexpected payload format {flag}")));
    }
    if let Some(why) = text.strip_prefix(UNDECODABLE) {
        return Some(Status::internal(format!("grpc: error unmarshalling request: {why}")));
    }
    match text {
        ABORTED => Some(Status::cancelled("context canceled")),
        "Unexpected EOF decoding stream." => Some(Status::unknown("unexpected EOF")),
        "Missing request message." => Some(Status::unknown("EOF")),
        _ => None,
    }
}

/// A compression that etcd does not know either.
pub fn unknown_encoding(encoding: &str) -> Status {
    let text = format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
    Status::unimplemented(text)
}

/// The node applied a command and returned the reply of another kind of command: a bug.
pub fn mismatched_reply(command: &'static str) -> Status {
    Status::internal(format!("ordinal: mismatched reply to a {command}"))
}

/// A method of etcd's that is not implemented; `instead` is the alternative.
pub fn not_implemented(method: &'static str, instead: &'static str) -> Status {
    Status::unimplemented(format!("ordinal: {method} is not implemented: {instead}"))
}
