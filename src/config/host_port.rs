//! `HOST:PORT` of another process, where the host is a name or an IP address.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// A host and a port to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an IP address; an IPv6 address is without its brackets.
    pub host: String,
    pub port: u16,
}

/// Why a text is no `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    #[error("{0:?} is no host:port")]
    Malformed(String),
    #[error(
        "{0:?}: an IPv6 address needs brackets: write [ADDRESS]:PORT, as in [2001:db8::1]:2380"
    )]
    Brackets(String),
    #[error(
        "{0:?}: an address with a zone is valid on this host only: write a global or unique local address, \
         or a name"
    )]
    Zone(String),
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<HostPort, HostPortError> {
        let malformed = || HostPortError::Malformed(text.into());
        if text.contains('%') {
            return Err(HostPortError::Zone(text.into()));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(HostPortError::Brackets(text.into()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let port = port.parse().map_err(|_| malformed())?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').ok_or_else(malformed)?;
                address.parse::<Ipv6Addr>().map_err(|_| malformed())?;
                address
            }
            None if host.contains(':') => return Err(HostPortError::Brackets(text.into())),
            None if host.is_empty() || host.contains(['[', ']', '/', '@']) => {
                return Err(malformed());
            }
            None => host,
        };
        Ok(HostPort { host: host.into(), port })
    }
}

/// With the brackets of an IPv6 address.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostPort, HostPortError> {
        text.parse()
    }

    #[test]
    fn hosts_are_names_or_addresses_of_both_families() {
        for (text, host) in [
            ("kv-0.kv-peers:2380", "kv-0.kv-peers"),
            ("10.0.0.1:2380", "10.0.0.1"),
            ("[::1]:2380", "::1"),
            ("[fd00:10:244::7]:2380", "fd00:10:244::7"),
            ("[::ffff:10.0.0.1]:2380", "::ffff:10.0.0.1"),
        ] {
            let parsed = parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, 2380));
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn an_ipv6_address_without_brackets_is_named_as_the_mistake() {
        for text in ["::1:2380", "fd00::7:2380", "::1", "fd00::7", "fe80:0:0:0:0:0:0:1:2380"] {
            assert_eq!(parse(text), Err(HostPortError::Brackets(text.into())));
        }
    }

    #[test]
    fn a_zone_is_refused() {
        for text in ["[fe80::1%eth0]:2380", "[fe80::1%25eth0]:2380", "fe80::1%2", "kv%0:1"] {
            assert_eq!(parse(text), Err(HostPortError::Zone(text.into())));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "host", "host:", "host:http", "host:99999", ":1", "[::1]", "[::1:1", "[a]:1"]
        {
            assert_eq!(parse(text), Err(HostPortError::Malformed(text.into())), "{text}");
        }
        for text in ["a/b:1", "user@a:1", "]:1", "[]:1"] {
            assert_eq!(parse(text), Err(HostPortError::Malformed(text.into())), "{text}");
        }
    }
}
