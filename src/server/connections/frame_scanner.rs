//! Scans the headers of HTTP/2 frames for request trailers, which the HTTP/2 library accepts.
//!
//! A request has one block of headers. A second block would be trailers, which no gRPC client sends. They
//! are not flow-controlled and stay in memory until the request is read. etcd's transport ends a
//! connection that sends them, and so does this server.

/// The client's connection preface (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Length, type, flags and stream (RFC 9113, 4.1).
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;

/// The position in the bytes of one connection.
#[derive(Debug)]
pub struct FrameScanner {
    /// Bytes to skip before the next frame header: the preface, or the payload of a frame.
    skip: usize,
    header: [u8; FRAME_HEADER_BYTES],
    /// Bytes of the frame header received so far.
    have: usize,
    /// The newest stream.
    newest: u32,
}

/// A request has a second block of headers.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestTrailers;

impl FrameScanner {
    /// Starts at the first byte of a connection.
    pub fn new() -> FrameScanner {
        FrameScanner { skip: PREFACE_BYTES, header: [0; FRAME_HEADER_BYTES], have: 0, newest: 0 }
    }

    pub fn scan(&mut self, mut bytes: &[u8]) -> Result<(), RequestTrailers> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
                continue;
            }
            let part = (FRAME_HEADER_BYTES - self.have).min(bytes.len());
            self.header[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            (self.have, bytes) = (self.have + part, &bytes[part..]);
            if self.have == FRAME_HEADER_BYTES {
                self.have = 0;
                self.begin_frame()?;
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<(), RequestTrailers> {
        let [l0, l1, l2, kind, _flags, s0, s1, s2, s3] = self.header;
        self.skip = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // The first bit is reserved.
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        if kind != HEADERS {
            return Ok(());
        }
        if stream <= self.newest {
            return Err(RequestTrailers);
        }
        self.newest = stream;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u8, payload: usize) -> Vec<u8> {
        let length = u8::try_from(payload).unwrap();
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, stream];
        frame.resize(FRAME_HEADER_BYTES + payload, HEADERS);
        frame
    }

    /// Scans the frames in pieces of every length; the result does not depend on it.
    fn scanned(frames: &[Vec<u8>]) -> Result<(), RequestTrailers> {
        let bytes = [vec![b'P'; PREFACE_BYTES], frames.concat()].concat();
        let results: Vec<_> = (1..=bytes.len())
            .map(|length| {
                let mut frames = FrameScanner::new();
                bytes.chunks(length).try_for_each(|piece| frames.scan(piece))
            })
            .collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results.into_iter().next().unwrap()
    }

    #[test]
    fn headers_open_streams_and_nothing_else_does() {
        let (headers, data) = (|stream| frame(HEADERS, stream, 20), |stream| frame(0, stream, 3));
        assert_eq!(scanned(&[frame(4, 0, 6), headers(1), data(1), headers(3), data(1)]), Ok(()));
        assert_eq!(scanned(&[headers(1), data(1), headers(1)]), Err(RequestTrailers));
        assert_eq!(scanned(&[headers(1), headers(5), headers(3)]), Err(RequestTrailers));
        assert_eq!(scanned(&[headers(0)]), Err(RequestTrailers));
    }
}
