//! HTTP/2 by hand: what no library would send.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use prost::Message;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// HPACK without any compression.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // Seven bits hold any length here; longer ones would need a prefix integer.
        bytes.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A call of a gRPC method, as two frames.
pub(crate) fn call(stream: u32, method: &str, body: &[u8]) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "kv"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let headers: Vec<u8> = headers.iter().flat_map(|(name, value)| header(name, value)).collect();
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
    bytes.extend(frame(DATA, END_STREAM, stream, body));
    bytes
}

/// A message with gRPC's five bytes before it.
pub(crate) fn message(message: &impl Message) -> Vec<u8> {
    let encoded = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
    bytes.extend(encoded);
    bytes
}

/// A connection that has greeted, with this window for each answer.
pub(crate) fn greet(to: SocketAddr, window_bytes: u32) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut settings = 4u16.to_be_bytes().to_vec();
    settings.extend(window_bytes.to_be_bytes());
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &settings))?;
    Ok(stream)
}

/// Reads until the other side closes, or says nothing for a while. Whatever comes is fine.
pub(crate) fn hear_out(mut stream: &TcpStream, patience: Duration) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut buf = [0; 4096];
    if stream.set_read_timeout(Some(patience)).is_ok() {
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            heard.extend_from_slice(&buf[..n]);
        }
    }
    heard
}
