//! The address of a member's client port.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use tonic::transport::Uri;

/// The default client port of etcd and `kvd`.
const DEFAULT_PORT: u16 = 2379;

/// A valid address: `host:port` or `http://host:port`.
///
/// ```
/// let endpoint: ordinal::client::Endpoint = "localhost:2379".parse().unwrap();
/// assert_eq!(endpoint.to_string(), "localhost:2379");
/// assert!("localhost".parse::<ordinal::client::Endpoint>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    uri: Uri,
}

/// Why an address is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("the endpoint is empty; write host:port, as in 127.0.0.1:{DEFAULT_PORT}")]
    Empty,
    #[error("endpoint {0}: {1}:// is not supported; use http:// (TLS is not built in yet)")]
    Scheme(String, String),
    #[error("endpoint {0} has no port; did you mean {1}:{DEFAULT_PORT}?")]
    NoPort(String, String),
    #[error("endpoint {0}: an IPv6 address needs brackets, as in [::1]:{DEFAULT_PORT}")]
    Brackets(String),
    #[error("endpoint {0}: zones of IPv6 addresses are not supported; write an address without %")]
    Zone(String),
    #[error("endpoint {0} is not an address; write host:port, as in 127.0.0.1:{DEFAULT_PORT}")]
    Malformed(String),
}

impl Endpoint {
    /// The URI to connect to.
    pub(super) fn uri(&self) -> Uri {
        self.uri.clone()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        let (scheme, address) = text.split_once("://").unwrap_or(("http", text));
        if scheme != "http" {
            return Err(EndpointError::Scheme(text.into(), scheme.into()));
        }
        let address = address.trim_end_matches('/');
        if address.is_empty() {
            return Err(EndpointError::Empty);
        }
        let malformed = || EndpointError::Malformed(text.into());
        if address.contains('%') {
            return Err(EndpointError::Zone(text.into()));
        }
        let without_port = address.rsplit_once(':').map_or(address, |(host, _)| host);
        if [address, without_port].iter().any(|host| host.parse::<Ipv6Addr>().is_ok()) {
            return Err(EndpointError::Brackets(text.into()));
        }
        let uri: Uri = format!("http://{address}").parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.host().is_empty() || uri.path() != "/" {
            return Err(malformed());
        }
        match authority.port() {
            // `port()` is also absent for a colon without a number.
            None if authority.as_str() == authority.host() => {
                Err(EndpointError::NoPort(text.into(), authority.host().into()))
            }
            Some(port) if port.as_str().parse::<u16>().is_ok() => {
                Ok(Endpoint { text: text.into(), uri })
            }
            _ => Err(malformed()),
        }
    }
}

/// The text as given.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_text_and_connect_with_http() {
        for (text, uri) in [
            ("127.0.0.1:2379", "http://127.0.0.1:2379/"),
            ("http://kv-0.kv-peers:2379/", "http://kv-0.kv-peers:2379/"),
            ("[::1]:2379", "http://[::1]:2379/"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(
                (endpoint.to_string().as_str(), endpoint.uri().to_string()),
                (text, uri.into())
            );
        }
    }

    #[test]
    fn an_invalid_address_names_the_expected_form() {
        for (text, error) in [
            ("", "the endpoint is empty; write host:port, as in 127.0.0.1:2379"),
            ("localhost", "endpoint localhost has no port; did you mean localhost:2379?"),
            (
                "a:99999",
                "endpoint a:99999 is not an address; write host:port, as in 127.0.0.1:2379",
            ),
            (
                "fd00::7:2379",
                "endpoint fd00::7:2379: an IPv6 address needs brackets, as in [::1]:2379",
            ),
            ("[::1]", "endpoint [::1] has no port; did you mean [::1]:2379?"),
            (
                "http://[fe80::1%eth0]:2379",
                "endpoint http://[fe80::1%eth0]:2379: zones of IPv6 addresses are not supported; write an \
                 address without %",
            ),
            ("a:1/b", "endpoint a:1/b is not an address; write host:port, as in 127.0.0.1:2379"),
            (":2379", "endpoint :2379 is not an address; write host:port, as in 127.0.0.1:2379"),
            (
                "https://a:1",
                "endpoint https://a:1: https:// is not supported; use http:// (TLS is not built in yet)",
            ),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap_err().to_string(), error);
        }
    }
}
