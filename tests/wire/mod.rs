//! The wire, frame by frame: the client speaks HTTP/2 itself, and the tests assert frames, not the
//! reading of a gRPC library.
//!
//! Our own client and server share a library that tolerates frames that others refuse: a stream
//! that ended in the wrong place passed hundreds of tests, and no program in Go or Python could
//! read it.
//!
//! ```text
//! frames    one call, and the frames of its answer
//! methods   every method, answered and refused
//! requests  invalid and damaged gRPC requests
//! bounds    the bounds of one connection, and their cost
//! attacks   attempts to break the member, or to make other clients wait
//! ```

mod attacks;
mod bounds;
mod frames;
mod methods;
mod requests;
