//! The methods whose calls are counted: our own, the health service, and all of etcd's API, including those
//! that return `Unimplemented`.

/// The sides of a call that may send more than one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    Unary,
    ServerStream,
    BidiStream,
}

impl MethodKind {
    pub fn label(self) -> &'static str {
        match self {
            MethodKind::Unary => "unary",
            MethodKind::ServerStream => "server_stream",
            MethodKind::BidiStream => "bidi_stream",
        }
    }

    pub fn streams(self) -> bool {
        self != MethodKind::Unary
    }
}

#[derive(Debug)]
pub struct Method {
    path: &'static str,
    pub kind: MethodKind,
}

impl Method {
    pub fn path(&self) -> &'static str {
        self.path
    }

    pub fn service(&self) -> &'static str {
        self.parts().0
    }

    pub fn name(&self) -> &'static str {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, &'static str) {
        self.path[1..].split_once('/').unwrap_or_default()
    }
}

const fn unary(path: &'static str) -> Method {
    Method { path, kind: MethodKind::Unary }
}

const fn server_stream(path: &'static str) -> Method {
    Method { path, kind: MethodKind::ServerStream }
}

const fn bidi_stream(path: &'static str) -> Method {
    Method { path, kind: MethodKind::BidiStream }
}

/// Sorted by path.
pub static METHODS: &[Method] = &[
    unary("/etcdserverpb.Auth/AuthDisable"),
    unary("/etcdserverpb.Auth/AuthEnable"),
    unary("/etcdserverpb.Auth/AuthStatus"),
    unary("/etcdserverpb.Auth/Authenticate"),
    unary("/etcdserverpb.Auth/RoleAdd"),
    unary("/etcdserverpb.Auth/RoleDelete"),
    unary("/etcdserverpb.Auth/RoleGet"),
    unary("/etcdserverpb.Auth/RoleGrantPermission"),
    unary("/etcdserverpb.Auth/RoleList"),
    unary("/etcdserverpb.Auth/RoleRevokePermission"),
    unary("/etcdserverpb.Auth/UserAdd"),
    unary("/etcdserverpb.Auth/UserChangePassword"),
    unary("/etcdserverpb.Auth/UserDelete"),
    unary("/etcdserverpb.Auth/UserGet"),
    unary("/etcdserverpb.Auth/UserGrantRole"),
    unary("/etcdserverpb.Auth/UserList"),
    unary("/etcdserverpb.Auth/UserRevokeRole"),
    unary("/etcdserverpb.Cluster/MemberAdd"),
    unary("/etcdserverpb.Cluster/MemberList"),
    unary("/etcdserverpb.Cluster/MemberPromote"),
    unary("/etcdserverpb.Cluster/MemberRemove"),
    unary("/etcdserverpb.Cluster/MemberUpdate"),
    unary("/etcdserverpb.KV/Compact"),
    unary("/etcdserverpb.KV/DeleteRange"),
    unary("/etcdserverpb.KV/Put"),
    unary("/etcdserverpb.KV/Range"),
    server_stream("/etcdserverpb.KV/RangeStream"),
    unary("/etcdserverpb.KV/Txn"),
    unary("/etcdserverpb.Lease/LeaseGrant"),
    bidi_stream("/etcdserverpb.Lease/LeaseKeepAlive"),
    unary("/etcdserverpb.Lease/LeaseLeases"),
    unary("/etcdserverpb.Lease/LeaseRevoke"),
    unary("/etcdserverpb.Lease/LeaseTimeToLive"),
    unary("/etcdserverpb.Maintenance/Alarm"),
    unary("/etcdserverpb.Maintenance/Defragment"),
    unary("/etcdserverpb.Maintenance/Downgrade"),
    unary("/etcdserverpb.Maintenance/Hash"),
    unary("/etcdserverpb.Maintenance/HashKV"),
    unary("/etcdserverpb.Maintenance/MoveLeader"),
    server_stream("/etcdserverpb.Maintenance/Snapshot"),
    unary("/etcdserverpb.Maintenance/Status"),
    bidi_stream("/etcdserverpb.Watch/Watch"),
    unary("/grpc.health.v1.Health/Check"),
    unary("/grpc.health.v1.Health/List"),
    server_stream("/grpc.health.v1.Health/Watch"),
    unary("/ordinal.v1.ClusterAdmin/Cluster"),
    unary("/ordinal.v1.ClusterAdmin/Recover"),
    unary("/v3electionpb.Election/Campaign"),
    unary("/v3electionpb.Election/Leader"),
    server_stream("/v3electionpb.Election/Observe"),
    unary("/v3electionpb.Election/Proclaim"),
    unary("/v3electionpb.Election/Resign"),
    unary("/v3lockpb.Lock/Lock"),
    unary("/v3lockpb.Lock/Unlock"),
];

/// The index of a method in [`METHODS`].
pub fn find(path: &str) -> Option<usize> {
    METHODS.binary_search_by(|method| method.path.cmp(path)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::proto::FILE_DESCRIPTOR_SET;

    #[test]
    fn every_method_of_the_api_is_counted_as_what_it_is() {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let mut api = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let kind = match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => MethodKind::Unary,
                        (false, true) => MethodKind::ServerStream,
                        (true, true) => MethodKind::BidiStream,
                        (true, false) => panic!("etcd has no such method"),
                    };
                    let service = format!("{}.{}", file.package(), service.name());
                    api.insert((format!("/{service}/{}", method.name()), kind.label()));
                }
            }
        }
        let counted = METHODS.iter().map(|method| (method.path.to_string(), method.kind.label()));
        assert_eq!(api, counted.collect());
    }

    #[test]
    fn a_method_is_found_by_its_path() {
        assert!(METHODS.is_sorted_by(|a, b| a.path < b.path));
        for (at, method) in METHODS.iter().enumerate() {
            assert_eq!(find(method.path), Some(at));
        }
        assert_eq!(find("/etcdserverpb.KV/Nothing"), None);
    }
}
