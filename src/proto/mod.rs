//! The wire: generated protobuf types and services, and the one place that converts them.
