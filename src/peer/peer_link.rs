//! The current connection of one channel: its address, and whether the peer has accepted a hello on it.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{self, AtomicBool},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::{Code, Status};

use super::dial_hints::DialHints;
use crate::types::{MemberId, Ordinal};

/// A connection on which a hello was refused is replaced after this time: DNS may know better by then.
const REDIAL_INTERVAL: Duration = Duration::from_secs(1);

/// The state of one channel, which has one connection at a time.
#[derive(Debug)]
pub struct PeerLink {
    ordinal: Ordinal,
    hints: Arc<DialHints>,
    connection: Mutex<Option<Connection>>,
    /// The peer is not at the other end: calls need another channel.
    misdirected: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    address: IpAddr,
    since: Instant,
    accepted: bool,
}

impl PeerLink {
    pub fn new(ordinal: Ordinal, hints: Arc<DialHints>) -> PeerLink {
        let (connection, misdirected) = (Mutex::default(), AtomicBool::new(false));
        PeerLink { ordinal, hints, connection, misdirected }
    }

    pub fn note_open(&self, address: IpAddr) {
        let (since, accepted) = (Instant::now(), false);
        *self.connection() = Some(Connection { address, since, accepted });
    }

    /// The connection, if there was one, has ended.
    pub fn note_closed(&self) {
        let unaccepted = self.connection().take().filter(|connection| !connection.accepted);
        if let Some(Connection { address, .. }) = unaccepted {
            self.hints.note_suspect(self.ordinal, address);
        }
    }

    /// Notes whether the peer `to` has accepted the hello of a call, as far as the answer shows that.
    pub fn note_answer<T>(&self, to: MemberId, answer: &Result<T, Status>) {
        match answer {
            Ok(_) => self.note_accepted(),
            Err(status) if status.code() == Code::FailedPrecondition => self.note_refused(to),
            Err(_) => {}
        }
    }

    fn note_accepted(&self) {
        let mut connection = self.connection();
        if let Some(connection) = connection.as_mut().filter(|connection| !connection.accepted) {
            connection.accepted = true;
            self.hints.note_accepted(self.ordinal, connection.address);
        }
    }

    /// A process that has accepted a hello is the one that this channel is for: it refuses calls to its
    /// former incarnation, or from a removed member. Otherwise another address may be the right one: at once
    /// if a hint led here, or later, when DNS may have changed.
    fn note_refused(&self, to: MemberId) {
        let unaccepted = self.connection().filter(|connection| !connection.accepted);
        let Some(Connection { address, since, .. }) = unaccepted else { return };
        let was_hint = self.hints.note_refused(self.ordinal, to, address);
        if was_hint || since.elapsed() >= REDIAL_INTERVAL {
            self.misdirected.store(true, atomic::Ordering::Relaxed);
        }
    }

    pub fn is_misdirected(&self) -> bool {
        self.misdirected.load(atomic::Ordering::Relaxed)
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dial_hints::DialHint;
    use super::*;

    const AT: Ordinal = Ordinal(2);
    const PEER: MemberId = MemberId(3);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn link() -> (PeerLink, Arc<DialHints>) {
        let hints = Arc::<DialHints>::default();
        hints.note(AT, DialHint::new(PEER, 1, "10.0.0.1").unwrap());
        (PeerLink::new(AT, hints.clone()), hints)
    }

    /// As if the connection were older than [`REDIAL_INTERVAL`].
    fn open_for_a_while(link: &PeerLink) {
        if let Some(connection) = link.connection().as_mut() {
            connection.since -= REDIAL_INTERVAL;
        }
    }

    fn refusal() -> Result<(), Status> {
        Err(Status::failed_precondition("the call is for another member"))
    }

    #[test]
    fn a_refusal_where_the_hint_led_needs_another_channel_at_once() {
        let (link, hints) = link();
        link.note_open(ip(1));
        link.note_answer::<()>(PEER, &Err(Status::unavailable("this member is starting")));
        assert!(!link.is_misdirected() && hints.of(AT).hint.is_some());
        link.note_answer(PEER, &refusal());
        assert!(link.is_misdirected() && hints.of(AT).hint.is_none());
    }

    #[test]
    fn a_refusal_where_dns_led_needs_another_channel_after_a_while() {
        let (link, hints) = link();
        link.note_open(ip(9));
        link.note_answer(PEER, &refusal());
        assert!(!link.is_misdirected());
        open_for_a_while(&link);
        link.note_answer(PEER, &refusal());
        assert!(link.is_misdirected() && hints.of(AT).hint.is_some());
        assert_eq!(hints.of(AT).suspect, Some(ip(9)));
    }

    #[test]
    fn the_right_process_may_refuse_other_calls() {
        let (link, hints) = link();
        link.note_open(ip(1));
        link.note_answer(PEER, &Ok(()));
        open_for_a_while(&link);
        link.note_answer(MemberId(2), &refusal());
        assert!(!link.is_misdirected() && hints.of(AT).hint_is_best());
        link.note_closed();
        assert_eq!(hints.of(AT).suspect, None);
    }

    #[test]
    fn an_address_where_no_hello_was_accepted_is_tried_last() {
        let (link, hints) = link();
        link.note_open(ip(1));
        link.note_closed();
        assert_eq!(hints.of(AT).suspect, Some(ip(1)));
        assert!(!hints.of(AT).hint_is_best());
        link.note_closed();
        link.note_open(ip(1));
        link.note_answer(PEER, &Ok(()));
        assert!(hints.of(AT).hint_is_best());
    }
}
