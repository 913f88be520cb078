//! Sessions: reads that never go back in time, on any member.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Request;

use crate::proto::etcdserverpb::ResponseHeader;

const METADATA: &str = "ordinal-session";

/// The newest revision that a client has seen, and its cluster. Clones share the session.
///
/// In a session ([`Client::in_session`](super::Client::in_session)), serializable reads never go back in
/// time, even from different members: each member waits until it has applied the session's revision.
/// etcd ignores the session.
#[derive(Debug, Clone, Default)]
pub struct Session(Arc<Mutex<Option<Seen>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    cluster: u64,
    revision: i64,
}

impl Session {
    /// Continues the session of a [`token`](Session::token). `None`: the token is malformed.
    pub fn from_token(token: &str) -> Option<Session> {
        let (cluster, revision) = token.split_once(':')?;
        let cluster = u64::from_str_radix(cluster, 16).ok()?;
        let seen = Seen { cluster, revision: revision.parse().ok()? };
        Some(Session(Arc::new(Mutex::new(Some(seen)))))
    }

    /// `CLUSTER_ID:REVISION`; `None` before the first response. A web application may keep the token for
    /// its visitor, for instance in a cookie.
    pub fn token(&self) -> Option<String> {
        let seen = *self.seen();
        seen.map(|Seen { cluster, revision }| format!("{cluster:x}:{revision}"))
    }

    pub(super) fn observe(&self, header: Option<&ResponseHeader>) {
        let Some(header) = header.filter(|header| header.revision > 0) else { return };
        let new = Seen { cluster: header.cluster_id, revision: header.revision };
        let mut seen = self.seen();
        let is_older = |seen: &Seen| seen.cluster != new.cluster || seen.revision < new.revision;
        if seen.as_ref().is_none_or(is_older) {
            *seen = Some(new);
        }
    }

    pub(super) fn add_token<M>(&self, request: &mut Request<M>) {
        if let Some(token) = self.token().and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert(METADATA, token);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster_id: u64, revision: i64) -> ResponseHeader {
        ResponseHeader { cluster_id, revision, ..ResponseHeader::default() }
    }

    #[test]
    fn a_session_never_goes_back() {
        let session = Session::default();
        assert_eq!(session.token(), None);
        for (seen, token) in [(7, "c1:7"), (5, "c1:7"), (9, "c1:9"), (0, "c1:9")] {
            session.observe(Some(&header(0xc1, seen)));
            assert_eq!(session.token().as_deref(), Some(token));
        }
        session.observe(None);
        assert_eq!(session.token().as_deref(), Some("c1:9"));
    }

    #[test]
    fn a_token_continues_a_session() {
        let session = Session::from_token("c1:9").unwrap();
        let mut request = Request::new(());
        session.add_token(&mut request);
        assert_eq!(request.metadata().get(METADATA).unwrap(), "c1:9");
        assert!(Session::from_token("c1").is_none() && Session::from_token("x:1").is_none());
    }
}
