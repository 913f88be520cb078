//! Single requests through tonic, without Ordinal's own client.

use std::net::SocketAddr;

use bytes::Bytes;
use ordinal::proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tonic::transport::Channel;

pub async fn connect(to: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{to}")).unwrap().connect().await.unwrap()
}

pub async fn put(kv: &mut KvClient<Channel>, key: &str, value: impl Into<Bytes>) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    kv.put(PutRequest { key, value: value.into(), ..Default::default() }).await.unwrap();
}

pub async fn get(kv: &mut KvClient<Channel>, key: &str) -> Option<Bytes> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let answer = kv.range(RangeRequest { key, ..Default::default() }).await.unwrap().into_inner();
    answer.kvs.into_iter().next().map(|kv| kv.value)
}
