//! Says again what still holds: Events expire after an hour. Pure, with `now` passed in.

use std::time::Duration;

use tokio::time::Instant;

/// A condition that holds is said again after this time. Well within the hour for which Kubernetes keeps
/// Events.
pub const REMINDER_INTERVAL: Duration = Duration::from_secs(600);

/// Decides when to say a message that is repeated as long as its condition holds.
#[derive(Debug, Default)]
pub struct Reminder {
    message: String,
    said: Option<Instant>,
}

impl Reminder {
    /// Whether to say `message` now: it is a new one, or was said long ago.
    pub fn is_due(&mut self, message: &str, now: Instant) -> bool {
        let said = self.said.filter(|_| self.message == message);
        if said.is_some_and(|said| now.saturating_duration_since(said) < REMINDER_INTERVAL) {
            return false;
        }
        message.clone_into(&mut self.message);
        self.said = Some(now);
        true
    }

    /// The condition does not hold any more.
    pub fn clear(&mut self) {
        *self = Reminder::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_said_again_while_it_holds() {
        let (mut reminder, begun) = (Reminder::default(), Instant::now());
        let mut said = |minute: u64, message: &str| {
            reminder.is_due(message, begun + Duration::from_secs(60 * minute))
        };
        assert!(said(0, "a"));
        assert!(!said(9, "a"));
        assert!(said(10, "a"));
        assert!(!said(19, "a"), "ten minutes after the last time");
        assert!(said(19, "b"), "another message is said at once");
        assert!(said(19, "a"), "and so is the first one again");
        assert!(said(29, "a"));
        reminder.clear();
        assert!(reminder.is_due("a", begun));
    }
}
