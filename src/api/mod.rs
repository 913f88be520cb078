//! The etcd v3 gRPC services. Thin: validate, call the node, map the error, fill the header.
