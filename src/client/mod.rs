//! The library's own client of the etcd v3 API.
