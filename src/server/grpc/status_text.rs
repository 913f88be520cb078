//! The encoding of a status text in `grpc-message`.
//!
//! gRPC percent-encodes only `%` and characters outside printable ASCII (PROTOCOL-HTTP2:
//! `Percent-Encoded`). tonic encodes more, spaces among them. Every gRPC client decodes that, but the wire
//! and HTTP tools show `etcdserver:%20no%20leader`.

use hyper::{HeaderMap, header::HeaderValue};

const MESSAGE: &str = "grpc-message";
/// `%20`
const ESCAPE_BYTES: usize = 3;

/// Reduces the encoding of a status text, if there is one, to what gRPC requires.
pub fn make_readable(headers: &mut HeaderMap) {
    let Some(text) = headers.get_mut(MESSAGE) else { return };
    if let Some(readable) = readable(text.as_bytes())
        && let Ok(readable) = HeaderValue::from_bytes(&readable)
    {
        *text = readable;
    }
}

/// The text without needless escapes; `None` if it has none.
fn readable(text: &[u8]) -> Option<Vec<u8>> {
    let mut readable = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        // A value neither starts nor ends with a space (RFC 9113, 8.2.1).
        let at_an_end = readable.is_empty() || rest.len() == ESCAPE_BYTES;
        let (byte, after) = match needless(rest) {
            Some((b' ', _)) if at_an_end => (*first, after),
            Some(needless) => needless,
            None => (*first, after),
        };
        readable.push(byte);
        rest = after;
    }
    (readable.len() < text.len()).then_some(readable)
}

/// The needlessly escaped byte at the start of the text, and the text after it.
fn needless(text: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, after @ ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    (matches!(byte, b' '..=b'~') && byte != b'%').then_some((byte, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grpc_escapes_stays_escaped() {
        for (encoded, expected) in [
            ("etcdserver:%20no%20leader", "etcdserver: no leader"),
            ("50%25%20of%20%22x%22", "50%25 of \"x\""),
            ("%e2%82%ac%0A", "%e2%82%ac%0A"),
            ("plain", "plain"),
            ("%20a%20b%20", "%20a b%20"),
            ("%2", "%2"),
            ("%zz%20x", "%zz x"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(MESSAGE, encoded.parse().unwrap());
            make_readable(&mut headers);
            assert_eq!(headers[MESSAGE], expected);
        }
    }
}
