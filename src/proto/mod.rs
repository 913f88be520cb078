//! Generated protobuf types and services, and their conversions.
//!
//! The etcd packages are exactly etcd's (`etcd_surface.txt` pins them). [`peer`] is our own; its field
//! numbers must never change, because they are on disk. All modules above use [`crate::types`];
//! [`convert`] maps one to the other.

pub(crate) mod convert;
#[cfg(test)]
mod descriptor_test;

/// Generated from `proto/`; one module per protobuf package.
macro_rules! package {
    ($(#[$doc:meta])* $module:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_debug_implementations, clippy::all, clippy::unwrap_used)]
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
package!(
    /// gRPC's health service.
    health, "grpc.health.v1");

/// Generated code refers to other packages by their full path, so this module must exist.
mod ordinal {
    pub(super) mod peer {
        package!(
            /// The messages between members, and on disk.
            v1, "ordinal.peer.v1");
    }

    package!(
        /// Our administration service for clients, beyond etcd's API.
        v1, "ordinal.v1");
}
pub use ordinal::{peer::v1 as peer, v1 as cluster_admin};

/// All of the above except [`peer`], as an encoded `FileDescriptorSet` for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("descriptors");
