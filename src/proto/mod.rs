//! The wire: generated protobuf types and services, and the one place that converts them.
//!
//! The etcd packages are etcd's to the letter (`etcd_surface.txt` pins them); [`peer`] is ours, and its
//! numbers are for ever, since they are on disk. Everything above works with [`crate::types`];
//! [`convert`] maps one to the other.

pub mod convert;
#[cfg(test)]
mod descriptor_test;

/// Generated from `proto/`; one module for each protobuf package.
macro_rules! package {
    ($(#[$doc:meta])* $module:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_debug_implementations, unreachable_pub, clippy::all, clippy::unwrap_used)]
        pub mod $module {
            tonic::include_proto!($package);
        }
    };
}

package!(
    /// etcd's client API.
    etcdserverpb, "etcdserverpb");
package!(
    /// etcd's keys, values and events.
    mvccpb, "mvccpb");
package!(
    /// etcd's users, roles and permissions.
    authpb, "authpb");
package!(
    /// etcd's lock service.
    v3lockpb, "v3lockpb");
package!(
    /// etcd's election service.
    v3electionpb, "v3electionpb");

/// Generated code refers to other packages by their full path, so this one needs its own.
mod ordinal {
    pub(super) mod peer {
        package!(
            /// What members say to each other, and what they keep on disk.
            v1, "ordinal.peer.v1");
    }

    package!(
        /// What our own members tell clients beside etcd's API.
        v1, "ordinal.v1");
}
pub use ordinal::{peer::v1 as peer, v1 as own};

/// What clients may call and send, as an encoded `FileDescriptorSet` for gRPC reflection: all of the
/// above but [`peer`].
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("descriptors");
