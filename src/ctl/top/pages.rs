//! The addresses of metrics pages, and fetching a page.

use std::{str::FromStr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// A healthy member renders its page within milliseconds.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd's pages have 100 KiB.
const PAGE_BYTES_MAX: u64 = 8 << 20;
/// The admin port of `kvd serve`.
const ADMIN_PORT: u16 = 2381;
/// `kvd dev`: member i has clients at base + 2i, and its admin port at base + 100 + i.
const DEV_CLIENT_STEP: u16 = 2;
const DEV_ADMIN_OFFSET: u16 = 100;

/// A value of `--metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    Port(u16),
    Url(MetricsPage),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsPage {
    host: String,
    port: u16,
    path: String,
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<MetricsAddress, String> {
        if let Ok(port) = text.parse() {
            return Ok(MetricsAddress::Port(port));
        }
        let page = MetricsPage::parse(text).ok_or_else(|| {
            format!("{text:?} is neither a port nor a URL: write 2381 or http://kv-0:2381/metrics")
        })?;
        Ok(MetricsAddress::Url(page))
    }
}

impl MetricsPage {
    /// `http://host:port/path`; without a path, `/metrics`.
    fn parse(text: &str) -> Option<MetricsPage> {
        let address = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = address.split_once('/').unwrap_or((address, "metrics"));
        let (host, port) = authority.rsplit_once(':')?;
        let path = if path.is_empty() { "metrics" } else { path };
        if host.is_empty() || host.contains("//") {
            return None;
        }
        Some(MetricsPage { host: host.into(), port: port.parse().ok()?, path: format!("/{path}") })
    }

    fn at(host: &str, port: u16) -> MetricsPage {
        MetricsPage { host: host.into(), port, path: "/metrics".into() }
    }

    pub fn url(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.path)
    }

    /// The error is a text for the user.
    pub async fn fetch(&self) -> Result<String, String> {
        match timeout(PAGE_TIMEOUT, self.get()).await {
            Ok(Ok(answer)) => body(&answer),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// HTTP/1.0: the response is not chunked, and ends with the connection.
    async fn get(&self) -> std::io::Result<String> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((host, self.port)).await?;
        let request = format!(
            "GET {} HTTP/1.0\r\nHost: {}:{}\r\nAccept: text/plain\r\n\r\n",
            self.path, self.host, self.port
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// The body of an HTTP response.
fn body(answer: &str) -> Result<String, String> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Err("no web page is there".into());
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.into()) } else { Err(format!("HTTP status {status}")) }
}

/// The possible pages of each member, the likeliest first.
pub fn candidates(endpoints: &[String], configured: &[MetricsAddress]) -> Vec<Vec<MetricsPage>> {
    let clients: Vec<Option<MetricsPage>> =
        endpoints.iter().map(|e| MetricsPage::parse(e)).collect();
    let of = |at: usize| {
        let Some(client) = &clients[at] else { return vec![] };
        match configured {
            [] => guesses(client, &clients),
            [MetricsAddress::Port(port)] => vec![MetricsPage::at(&client.host, *port)],
            configured => match configured.get(at) {
                Some(MetricsAddress::Port(port)) => vec![MetricsPage::at(&client.host, *port)],
                Some(MetricsAddress::Url(page)) => vec![page.clone()],
                None => vec![],
            },
        }
    };
    (0..endpoints.len()).map(of).collect()
}

fn guesses(client: &MetricsPage, all: &[Option<MetricsPage>]) -> Vec<MetricsPage> {
    let own = MetricsPage::at(&client.host, client.port);
    let neighbours = all.iter().flatten().filter(|page| page.host == client.host);
    let ports: Vec<u16> = neighbours.map(|page| page.port).collect();
    let base = ports.iter().copied().min().unwrap_or(client.port);
    let index = (client.port - base) / DEV_CLIENT_STEP;
    let dev =
        base.checked_add(DEV_ADMIN_OFFSET + index).map(|port| MetricsPage::at(&client.host, port));
    // Several members on one host cannot share the port; it may be another member's client port.
    let serve = (ports.len() == 1).then(|| MetricsPage::at(&client.host, ADMIN_PORT));
    [Some(own), serve, dev].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(endpoints: &[&str], configured: &[&str]) -> Vec<Vec<String>> {
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        let configured: Vec<_> = configured.iter().map(|value| value.parse().unwrap()).collect();
        let pages = candidates(&endpoints, &configured);
        pages.iter().map(|pages| pages.iter().map(MetricsPage::url).collect()).collect()
    }

    #[test]
    fn pages_are_guessed_as_etcd_and_kvd_serve_them() {
        assert_eq!(
            urls(&["http://127.0.0.1:2379", "http://127.0.0.1:2381"], &[]),
            [
                ["http://127.0.0.1:2379/metrics", "http://127.0.0.1:2479/metrics"],
                ["http://127.0.0.1:2381/metrics", "http://127.0.0.1:2480/metrics"],
            ]
        );
        assert_eq!(
            urls(&["kv-0:2379", "kv-1:2379"], &[])[1][..2],
            ["http://kv-1:2379/metrics", "http://kv-1:2381/metrics"]
        );
    }

    #[test]
    fn pages_may_be_configured() {
        assert_eq!(
            urls(&["kv-0:2379", "[::1]:1"], &["9000"]),
            [["http://kv-0:9000/metrics"], ["http://[::1]:9000/metrics"]]
        );
        assert_eq!(
            urls(&["a:1", "b:1"], &["http://x:2/y", "z:3"]),
            [["http://x:2/y"], ["http://z:3/metrics"]]
        );
        assert!(
            "nowhere".parse::<MetricsAddress>().unwrap_err().contains("http://kv-0:2381/metrics")
        );
    }

    #[test]
    fn a_response_without_a_page_is_an_error() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nx: y\r\n\r\na 1\n"), Ok("a 1\n".into()));
        assert_eq!(body("HTTP/1.1 404 Not Found\r\n\r\n"), Err("HTTP status 404".into()));
        assert_eq!(body("\0\0\x12"), Err("no web page is there".into()));
    }
}
