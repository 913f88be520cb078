//! HTTP/2 frames by hand, also those that no library sends.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use prost::Message;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An HPACK literal, uncompressed.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // Seven bits hold any length used here; a longer one would need a prefix integer.
        bytes.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The HEADERS frame that opens a call of a gRPC method.
pub fn open(stream: u32, method: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "kv"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let headers: Vec<u8> = headers.iter().flat_map(|(name, value)| header(name, value)).collect();
    frame(HEADERS, END_HEADERS, stream, &headers)
}

/// A call of a gRPC method, as two frames.
pub fn call(stream: u32, method: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = open(stream, method);
    bytes.extend(frame(DATA, END_STREAM, stream, body));
    bytes
}

/// A message after gRPC's prefix of five bytes.
pub fn message(message: &impl Message) -> Vec<u8> {
    let encoded = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
    bytes.extend(encoded);
    bytes
}

/// A connection after the preface and SETTINGS, with this initial window for each answer.
pub fn greet(to: SocketAddr, window_bytes: u32) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut settings = 4u16.to_be_bytes().to_vec();
    settings.extend(window_bytes.to_be_bytes());
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &settings))?;
    Ok(stream)
}

/// Reads until the peer closes the connection, or is silent for this long. Any content is fine.
pub fn read_until_closed(mut stream: &TcpStream, patience: Duration) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut buf = [0; 4096];
    if stream.set_read_timeout(Some(patience)).is_ok() {
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            heard.extend_from_slice(&buf[..n]);
        }
    }
    heard
}
