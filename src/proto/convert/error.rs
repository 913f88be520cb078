//! The error of all conversions.

/// Bytes that are not what the decoder expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("malformed protobuf: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A mandatory part is missing. An unknown variant of a `oneof`, which a newer version may send,
    /// looks the same.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    #[error("{field}: {value} is not a value we know")]
    UnknownValue { field: &'static str, value: i32 },
}
