//! Finds message boundaries in the bytes of a gRPC body: each message is a flag, its length in four bytes,
//! and the payload. An HTTP/2 frame may end anywhere.

/// Flag and length.
const PREFIX_BYTES: usize = 5;

/// The position in one body.
#[derive(Debug, Default)]
pub struct MessageScanner {
    prefix: [u8; PREFIX_BYTES],
    /// Received bytes of the prefix.
    have: usize,
    /// Missing bytes of the payload.
    left: usize,
}

/// The messages in a piece of a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ScannedMessages {
    /// Messages that start in the piece.
    pub messages: u64,
    pub payload_bytes: u64,
}

impl MessageScanner {
    /// Received bytes of the incomplete message, with its prefix.
    pub fn unfinished_bytes(&self) -> usize {
        if self.left == 0 {
            return self.have;
        }
        PREFIX_BYTES + self.payload_bytes() - self.left
    }

    /// The payload length in the last prefix.
    fn payload_bytes(&self) -> usize {
        let [_, a, b, c, d] = self.prefix;
        u32::from_be_bytes([a, b, c, d]) as usize
    }

    pub fn scan(&mut self, mut bytes: &[u8]) -> ScannedMessages {
        let mut scanned = ScannedMessages::default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let payload = self.left.min(bytes.len());
                self.left -= payload;
                scanned.payload_bytes += payload as u64;
                bytes = &bytes[payload..];
                continue;
            }
            let part = (PREFIX_BYTES - self.have).min(bytes.len());
            self.prefix[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            self.have += part;
            bytes = &bytes[part..];
            if self.have == PREFIX_BYTES {
                self.left = self.payload_bytes();
                self.have = 0;
                scanned.messages += 1;
            }
        }
        scanned
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
            let ends: Vec<usize> = lengths
                .iter()
                .scan(0, |end, length| {
                    *end += PREFIX_BYTES + *length as usize;
                    Some(*end)
                })
                .collect();
            let (mut messages, mut sum) = (MessageScanner::default(), ScannedMessages::default());
            let (mut rest, mut cuts) = (&body[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (frame, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                let seen = messages.scan(frame);
                sum.messages += seen.messages;
                sum.payload_bytes += seen.payload_bytes;
                rest = more;
                let read = body.len() - rest.len();
                let begun = ends.iter().rfind(|end| **end <= read).copied().unwrap_or(0);
                prop_assert_eq!(messages.unfinished_bytes(), read - begun);
            }
            let payload_bytes = lengths.iter().map(|length| u64::from(*length)).sum();
            prop_assert_eq!(sum, ScannedMessages { messages: lengths.len() as u64, payload_bytes });
        }
    }
}
