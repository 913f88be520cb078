//! Refuses requests that are not gRPC before they reach a service.
//!
//! Codes, HTTP status and texts are those of etcd's transport (grpc-go), in its order: the content type,
//! then the headers, then the HTTP method. A refusal is one HEADERS frame: gRPC clients read the gRPC
//! status in it, HTTP clients the HTTP status.

use std::time::Duration;

use axum::body::Body;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use tonic::{Code, Status};

const GRPC: &[u8] = b"application/grpc";
const TIMEOUT: &str = "grpc-timeout";
/// Suffix of the names of headers that carry bytes in base64.
const BINARY: &str = "-bin";
/// Length of a timeout: digits and unit. (PROTOCOL-HTTP2 of gRPC: `Timeout`.)
const TIMEOUT_BYTES_MAX: usize = 9;

/// The reason why a request is not gRPC.
#[derive(Debug)]
pub struct NotGrpc {
    http: StatusCode,
    status: Status,
}

impl NotGrpc {
    fn new(http: StatusCode, code: Code, text: String) -> NotGrpc {
        NotGrpc { http, status: Status::new(code, text) }
    }

    pub fn into_response(self) -> Response<Body> {
        let mut response = self.status.into_http();
        *response.status_mut() = self.http;
        response
    }
}

/// Checks a request, and returns its timeout if it has one.
pub fn check<B>(request: &Request<B>) -> Result<Option<Duration>, NotGrpc> {
    let headers = request.headers();
    check_content_type(headers)?;
    let malformed = |text| NotGrpc::new(StatusCode::BAD_REQUEST, Code::Internal, text);
    let time_limit = match headers.get(TIMEOUT) {
        Some(value) => Some(
            parse_time_limit(value)
                .map_err(|why| malformed(format!("malformed grpc-timeout: {why}")))?,
        ),
        None => None,
    };
    check_binary(headers).map_err(malformed)?;
    if request.method() != Method::POST {
        let text = format!(
            "Received a HEADERS frame with :method {:?} which should be POST",
            request.method().as_str()
        );
        return Err(NotGrpc::new(StatusCode::METHOD_NOT_ALLOWED, Code::Internal, text));
    }
    Ok(time_limit)
}

fn check_content_type(headers: &HeaderMap) -> Result<(), NotGrpc> {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    // `application/grpc`, or that with a format: `application/grpc+proto`.
    match value.strip_prefix(GRPC) {
        Some([] | [b'+' | b';', ..]) => Ok(()),
        _ => {
            let value = String::from_utf8_lossy(value);
            let text = format!("invalid gRPC request content-type {value:?}");
            Err(NotGrpc::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, text))
        }
    }
}

fn parse_time_limit(value: &HeaderValue) -> Result<Duration, String> {
    let text = String::from_utf8_lossy(value.as_bytes());
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if value.len() > TIMEOUT_BYTES_MAX {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let (digits, unit) = value.as_bytes().split_at(value.len() - 1);
    let nanoseconds: u64 = match unit {
        b"H" => 3_600_000_000_000,
        b"M" => 60_000_000_000,
        b"S" => 1_000_000_000,
        b"m" => 1_000_000,
        b"u" => 1_000,
        b"n" => 1,
        _ => return Err(format!("transport: timeout unit is not recognized: {text:?}")),
    };
    // At most eight digits, so the number fits. The product may overflow, and is beyond any deadline then.
    let number = digits.iter().try_fold(0, |number: u64, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    });
    let Some(number) = number else {
        let digits = String::from_utf8_lossy(digits);
        return Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"));
    };
    Ok(Duration::from_nanos(number.saturating_mul(nanoseconds)))
}

fn check_binary(headers: &HeaderMap) -> Result<(), String> {
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().ends_with(BINARY)) {
        if let Some(at) = not_base64(value.as_bytes()) {
            let value = String::from_utf8_lossy(value.as_bytes());
            return Err(format!(
                "malformed binary metadata {value:?} in header {:?}: illegal base64 data at input \
                 byte {at}",
                name.as_str()
            ));
        }
    }
    Ok(())
}

/// The index of the first byte that is not valid base64. Padding is optional; a comma separates values.
fn not_base64(value: &[u8]) -> Option<usize> {
    let mut at = 0;
    for part in value.split(|byte| *byte == b',') {
        let data = part.trim_ascii_end();
        let unpadded = data.strip_suffix(b"==").or(data.strip_suffix(b"=")).unwrap_or(data);
        let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        if let Some(wrong) = unpadded.iter().position(|byte| !digit(byte)) {
            return Some(at + wrong);
        }
        // One digit holds only six bits.
        if unpadded.len() % 4 == 1 {
            return Some(at + unpadded.len() - 1);
        }
        at += part.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    /// HTTP status, code and text of a refusal; or the timeout.
    fn asked(method: &str, headers: &[(&'static str, &'static str)]) -> String {
        match check(&request(method, headers)) {
            Ok(limit) => format!("ok {limit:?}"),
            Err(refusal) => {
                let refusal = refusal.into_response();
                let status = Status::from_header_map(refusal.headers()).unwrap();
                assert!(http_body::Body::is_end_stream(refusal.body()));
                let code = status.code() as i32;
                format!("{} {code} {}", refusal.status().as_u16(), status.message())
            }
        }
    }

    fn limit(value: &'static str) -> String {
        asked("POST", &[("content-type", "application/grpc"), (TIMEOUT, value)])
    }

    #[test]
    fn time_limits_are_read_as_etcd_reads_them() {
        for (value, expected) in [
            ("5S", "ok Some(5s)"),
            ("500m", "ok Some(500ms)"),
            ("7u", "ok Some(7µs)"),
            ("0n", "ok Some(0ns)"),
            ("99999999H", "ok Some(18446744073.709551615s)"),
            (
                "abc",
                "400 13 malformed grpc-timeout: transport: timeout unit is not recognized: \"abc\"",
            ),
            ("", "400 13 malformed grpc-timeout: transport: timeout string is too short: \"\""),
            ("5", "400 13 malformed grpc-timeout: transport: timeout string is too short: \"5\""),
            (
                "-1S",
                "400 13 malformed grpc-timeout: strconv.ParseUint: parsing \"-1\": invalid syntax",
            ),
            (
                "123456789S",
                "400 13 malformed grpc-timeout: transport: timeout string is too long: \"123456789S\"",
            ),
            (
                "1 S",
                "400 13 malformed grpc-timeout: strconv.ParseUint: parsing \"1 \": invalid syntax",
            ),
        ] {
            assert_eq!(limit(value), expected, "{value:?}");
        }
    }

    #[test]
    fn requests_that_are_not_grpc_are_refused_in_etcds_words() {
        let json = [("content-type", "application/json"), (TIMEOUT, "x")];
        assert_eq!(
            asked("GET", &json),
            "415 3 invalid gRPC request content-type \"application/json\""
        );
        assert_eq!(asked("POST", &[]), "415 3 invalid gRPC request content-type \"\"");
        let web = [("content-type", "application/grpc-web")];
        assert_eq!(
            asked("POST", &web),
            "415 3 invalid gRPC request content-type \"application/grpc-web\""
        );
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;x=1"] {
            assert_eq!(asked("POST", &[("content-type", grpc)]), "ok None");
            let text = "405 13 Received a HEADERS frame with :method \"GET\" which should be POST";
            assert_eq!(asked("GET", &[("content-type", grpc)]), text);
        }
    }

    #[test]
    fn binary_headers_are_base64() {
        let asked =
            |value| asked("POST", &[("content-type", "application/grpc"), ("x-bin", value)]);
        for good in ["", "YQ==", "YQ", "YWI=", "YWI", "YWJj", "YQ,YWI="] {
            assert_eq!(asked(good), "ok None", "{good:?}");
        }
        let text = "400 13 malformed binary metadata \"!!!\" in header \"x-bin\": illegal base64 data \
                    at input byte 0";
        assert_eq!(asked("!!!"), text);
        assert!(asked("YQ,Y!").ends_with("byte 4"), "{}", asked("YQ,Y!"));
        assert!(asked("YWJjY").ends_with("byte 4"), "{}", asked("YWJjY"));
    }
}
