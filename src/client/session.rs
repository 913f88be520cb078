//! What a client has seen, told to whichever member it asks next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Request;

use crate::proto::etcdserverpb::ResponseHeader;

const METADATA: &str = "ordinal-session";

/// The newest revision that a client was told of, and of which cluster. Clones are the same session.
///
/// A client in a session ([`Client::in_session`](super::Client::in_session)) never goes back in time,
/// though it reads serializably, from one member and then another: each waits until it has applied what
/// the session has seen. Members of etcd pay it no attention.
#[derive(Debug, Clone, Default)]
pub struct Session(Arc<Mutex<Option<Seen>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    cluster: u64,
    revision: i64,
}

impl Session {
    /// One that somebody else begins to go on with: a [`token`](Session::token). `None`: it is none.
    pub fn of_token(token: &str) -> Option<Session> {
        let (cluster, revision) = token.split_once(':')?;
        let cluster = u64::from_str_radix(cluster, 16).ok()?;
        let seen = Seen { cluster, revision: revision.parse().ok()? };
        Some(Session(Arc::new(Mutex::new(Some(seen)))))
    }

    /// `CLUSTER_ID:REVISION`, once an answer has told both: what a web application may keep for its
    /// visitor, say in a cookie.
    pub fn token(&self) -> Option<String> {
        let seen = *self.seen();
        seen.map(|Seen { cluster, revision }| format!("{cluster:x}:{revision}"))
    }

    pub(super) fn saw(&self, header: Option<&ResponseHeader>) {
        let Some(header) = header.filter(|header| header.revision > 0) else { return };
        let told = Seen { cluster: header.cluster_id, revision: header.revision };
        let mut seen = self.seen();
        let newer = |seen: &Seen| seen.cluster != told.cluster || seen.revision < told.revision;
        if seen.as_ref().is_none_or(newer) {
            *seen = Some(told);
        }
    }

    pub(super) fn mark<M>(&self, request: &mut Request<M>) {
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
            session.saw(Some(&header(0xc1, seen)));
            assert_eq!(session.token().as_deref(), Some(token));
        }
        session.saw(None);
        assert_eq!(session.token().as_deref(), Some("c1:9"));
    }

    #[test]
    fn a_token_goes_on_elsewhere() {
        let session = Session::of_token("c1:9").unwrap();
        let mut request = Request::new(());
        session.mark(&mut request);
        assert_eq!(request.metadata().get(METADATA).unwrap(), "c1:9");
        assert!(Session::of_token("c1").is_none() && Session::of_token("x:1").is_none());
    }
}
