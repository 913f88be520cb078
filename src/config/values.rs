//! The values of flags: times, sizes and addresses, in our notation and in etcd's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{HostPort, HostPortError, MAX_REQUEST_BYTES_MAX};

/// etcd calls 0 "the default"; the default itself is ours.
const QUOTA_DEFAULT: u64 = 2 << 30;
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);

const TIME_UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
const BYTE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A number with a unit: `500ms`, `1.5s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration: write 500ms, 1s or 2m"))
}

/// A duration, or etcd's bare number of milliseconds. Zero is refused, as in etcd.
pub fn raft_interval(text: &str) -> Result<Duration, String> {
    let bare = || text.parse().ok().map(Duration::from_millis);
    let interval = bare().or_else(|| parse_duration(text)).ok_or_else(|| {
        format!("{text:?} is not a duration: write 500ms, 1s, or a number of milliseconds")
    })?;
    if interval.is_zero() { Err("must be longer than 0".into()) } else { Ok(interval) }
}

/// A duration; 0, with or without a unit, stands for the default, as in etcd.
pub fn progress_interval(text: &str) -> Result<Duration, String> {
    let interval = if text == "0" { Duration::ZERO } else { duration(text)? };
    match interval {
        Duration::ZERO => Ok(WATCH_PROGRESS_DEFAULT),
        interval if interval < WATCH_PROGRESS_MIN => Err("must be at least 100ms".into()),
        interval => Ok(interval),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let number: f64 = number.parse().ok()?;
    let (_, seconds) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// A number of bytes, with or without a unit.
pub fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text)
        .ok_or_else(|| format!("{text:?} is not a size: write 64MiB, 8GiB or a number of bytes"))
}

/// A size; 0 stands for the default, as in etcd. A quota cannot be switched off.
pub fn quota_bytes(text: &str) -> Result<u64, String> {
    if text.starts_with('-') {
        return Err("the quota cannot be disabled: write a large size, such as 1000GiB".into());
    }
    Ok(match bytes(text)? {
        0 => QUOTA_DEFAULT,
        bytes => bytes,
    })
}

pub fn request_bytes(text: &str) -> Result<u64, String> {
    let number = bytes(text)?;
    if number > MAX_REQUEST_BYTES_MAX as u64 {
        return Err(format!("must be at most {}MiB", MAX_REQUEST_BYTES_MAX >> 20));
    }
    Ok(number)
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text).unwrap_or((text, "B"));
    let number: u64 = number.parse().ok()?;
    let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    Some(text.split_at(at))
}

/// The one address that a list of listen URLs names; without a scheme it is an address of ours.
///
/// etcd listens on every URL of the list. kvd has one listener for each purpose, so URLs that differ
/// are refused.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let urls = text.split(',').map(|url| one_listen_address(url.trim()));
    let addresses: Vec<SocketAddr> = urls.collect::<Result<_, _>>()?;
    let first = addresses[0];
    if addresses.iter().any(|address| *address != first) {
        return Err(format!(
            "{text:?} names several addresses, and kvd listens on one: write http://[::]:{} to \
             listen on all addresses of this host",
            first.port()
        ));
    }
    Ok(first)
}

fn one_listen_address(url: &str) -> Result<SocketAddr, String> {
    let authority = plain_authority(url)?;
    if let Some(port) = authority.strip_prefix("localhost:")
        && let Ok(port) = port.parse()
    {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    authority.parse().map_err(|_| {
        format!("{url:?} is not a listen address: write http://IP:PORT, as in http://[::]:2379")
    })
}

/// One URL of a list that clients are given. TLS may end at a proxy, so `https` is possible here.
pub fn advertised_url(url: &str) -> Result<String, String> {
    let url = url.trim();
    let authority = match url.strip_prefix("https://") {
        Some(rest) => rest.trim_end_matches('/'),
        None => plain_authority(url)?,
    };
    match authority.parse::<HostPort>() {
        Ok(_) => Ok(url.into()),
        Err(HostPortError::Malformed(_)) => {
            Err(format!("{url:?} is not a client URL: write http://HOST:PORT"))
        }
        Err(wrong_address) => Err(wrong_address.to_string()),
    }
}

/// `HOST:PORT` of a URL without TLS, or of an address without a scheme.
fn plain_authority(url: &str) -> Result<&str, String> {
    match url.split_once("://") {
        None => Ok(url),
        Some(("http", rest)) => Ok(rest.trim_end_matches('/')),
        Some(("https", _)) => Err(format!("{url:?}: kvd does not serve TLS: write http://")),
        Some((scheme, _)) => Err(format!("{url:?}: kvd does not serve {scheme}: write http://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Result<Duration, String> {
        Ok(Duration::from_millis(millis))
    }

    fn says<T: std::fmt::Debug>(result: Result<T, String>, advice: &str) {
        let error = result.unwrap_err();
        assert!(error.contains(advice), "{error}");
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(bytes("1536KiB"), Ok(1_572_864));
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("2gib"), Ok(2 << 30));
        assert_eq!(duration("250ms"), millis(250));
        assert_eq!(duration("1.5s"), millis(1500));
        assert_eq!(duration("2m"), millis(120_000));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        says(bytes("lots"), "64MiB");
        says(bytes("99999999999GiB"), "64MiB");
        says(bytes("-1"), "64MiB");
        says(duration("5"), "500ms");
        says(duration("-1s"), "500ms");
        says(duration("1 week"), "500ms");
        says(request_bytes("1GiB"), "at most 32MiB");
    }

    #[test]
    fn raft_times_are_durations_or_etcds_milliseconds() {
        assert_eq!(raft_interval("100"), millis(100));
        assert_eq!(raft_interval("100ms"), millis(100));
        assert_eq!(raft_interval("1s"), millis(1000));
        says(raft_interval("0"), "longer than 0");
        says(raft_interval("0ms"), "longer than 0");
        says(raft_interval("1.5"), "number of milliseconds");
        says(raft_interval("-100"), "number of milliseconds");
        says(raft_interval("fast"), "500ms");
    }

    #[test]
    fn zero_is_the_default_where_etcd_says_so() {
        assert_eq!(quota_bytes("0"), bytes("2GiB"));
        assert_eq!(quota_bytes("2147483648"), bytes("2GiB"));
        says(quota_bytes("-1"), "cannot be disabled");
        says(quota_bytes("lots"), "64MiB");
        assert_eq!(progress_interval("0"), millis(600_000));
        assert_eq!(progress_interval("0s"), millis(600_000));
        assert_eq!(progress_interval("100ms"), millis(100));
        says(progress_interval("99ms"), "at least 100ms");
        says(progress_interval("5"), "500ms");
    }

    #[test]
    fn a_listen_address_is_etcds_urls_or_an_address() {
        let address = |text: &str| text.parse::<SocketAddr>().map_err(|e| e.to_string());
        assert_eq!(listen_address("http://0.0.0.0:2379"), address("0.0.0.0:2379"));
        assert_eq!(listen_address("http://10.0.0.1:2379/"), address("10.0.0.1:2379"));
        assert_eq!(listen_address("http://[::1]:2379"), address("[::1]:2379"));
        assert_eq!(listen_address("http://[::]:2379"), address("[::]:2379"));
        assert_eq!(listen_address("http://localhost:2379"), address("127.0.0.1:2379"));
        assert_eq!(listen_address("127.0.0.1:2379"), address("127.0.0.1:2379"));
        let twice = "http://localhost:2379, http://127.0.0.1:2379";
        assert_eq!(listen_address(twice), address("127.0.0.1:2379"));
    }

    #[test]
    fn a_listen_address_that_cannot_be_served_says_why() {
        says(listen_address("https://0.0.0.0:2379"), "does not serve TLS");
        says(listen_address("unix:///run/kvd"), "does not serve unix");
        says(listen_address("http://10.0.0.1:2379,http://10.0.0.1:4001"), "listens on one");
        says(listen_address("http://10.0.0.1:2379,http://127.0.0.1:2379"), "http://[::]:2379");
        for text in ["2379", "http://0.0.0.0", "http://kv-0:2379", "http://:2379", "", "a:1,"] {
            says(listen_address(text), "http://IP:PORT");
        }
    }

    #[test]
    fn advertised_urls_are_for_clients() {
        for url in ["http://kv-0.kv-peers:2379", "https://proxy:443", "http://[::1]:1", "kv-0:2379"]
        {
            assert_eq!(advertised_url(url), Ok(url.into()));
        }
        assert_eq!(advertised_url(" http://kv-0:2379"), Ok("http://kv-0:2379".into()));
        for url in ["", "kv-0", "http://kv-0", "http://:2379", "http://kv-0:port"] {
            says(advertised_url(url), "http://HOST:PORT");
        }
        says(advertised_url("unix:///run/kvd"), "does not serve unix");
        says(advertised_url("http://fd00::7:2379"), "brackets");
        says(advertised_url("https://[fe80::1%eth0]:2379"), "zone");
    }
}
