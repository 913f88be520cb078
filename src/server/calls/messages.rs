//! Finds the messages in the bytes of a gRPC body: each is a flag, its length in four bytes, and the
//! payload. A frame of HTTP/2 may end anywhere.

/// Flag and length.
const PREFIX_BYTES: usize = 5;

/// Where in a body we are.
#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX_BYTES],
    /// How much of the prefix has come.
    have: usize,
    /// How much of the payload is still to come.
    left: usize,
}

/// What was in some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Begun here.
    pub(super) messages: u64,
    pub(super) payload_bytes: u64,
}

impl Messages {
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let payload = self.left.min(bytes.len());
                self.left -= payload;
                seen.payload_bytes += payload as u64;
                bytes = &bytes[payload..];
                continue;
            }
            let part = (PREFIX_BYTES - self.have).min(bytes.len());
            self.prefix[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            self.have += part;
            bytes = &bytes[part..];
            if self.have == PREFIX_BYTES {
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.have = 0;
                seen.messages += 1;
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_that_end_anywhere_change_no_count(
            lengths in prop::collection::vec(0u32..20, 0..6),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let mut body = Vec::new();
            for length in &lengths {
                body.push(0);
                body.extend(length.to_be_bytes());
                body.extend(vec![7; *length as usize]);
            }
            let (mut messages, mut sum) = (Messages::default(), Seen::default());
            let (mut rest, mut cuts) = (&body[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (frame, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                let seen = messages.see(frame);
                sum.messages += seen.messages;
                sum.payload_bytes += seen.payload_bytes;
                rest = more;
            }
            let payload_bytes = lengths.iter().map(|length| u64::from(*length)).sum();
            prop_assert_eq!(sum, Seen { messages: lengths.len() as u64, payload_bytes });
        }
    }
}
