//! The address of each ordinal: the only part of the membership that is configured.

use std::{collections::BTreeSet, fmt};

use crate::{
    config::{HostPort, HostPortError},
    types::Ordinal,
};

/// A template covers every ordinal; a new member asks this many of the lowest ones for a cluster.
const PROBED_ORDINALS: u32 = 9;
/// And this many on each side of its own: the first pod may have another ordinal than 0.
const PROBED_NEIGHBORS: u32 = 4;

/// Maps ordinals to `host:port`. Host names are resolved at each connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddresses {
    /// By position.
    List(Vec<String>),
    /// Contains `{ordinal}` in place of the number.
    Template(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("--peer-template {0:?} has no {{ordinal}} in it")]
    NoPlaceholder(String),
    #[error(transparent)]
    HostPort(#[from] HostPortError),
}

impl PeerAddresses {
    pub fn list(addresses: Vec<String>) -> Result<PeerAddresses, AddressError> {
        addresses.iter().try_for_each(|a| check(a))?;
        Ok(PeerAddresses::List(addresses))
    }

    pub fn template(template: String) -> Result<PeerAddresses, AddressError> {
        if !template.contains("{ordinal}") {
            return Err(AddressError::NoPlaceholder(template));
        }
        check(&template.replace("{ordinal}", "0"))?;
        Ok(PeerAddresses::Template(template))
    }

    /// `None` for an ordinal beyond the list.
    pub fn of(&self, ordinal: Ordinal) -> Option<String> {
        match self {
            PeerAddresses::List(list) => list.get(ordinal.0 as usize).cloned(),
            PeerAddresses::Template(t) => Some(t.replace("{ordinal}", &ordinal.to_string())),
        }
    }

    /// The ordinal that has this address.
    pub fn find(&self, address: &str) -> Option<Ordinal> {
        match self {
            PeerAddresses::List(list) => {
                let at = list.iter().position(|known| known == address)?;
                u32::try_from(at).ok().map(Ordinal)
            }
            PeerAddresses::Template(template) => {
                let (before, _) = template.split_once("{ordinal}")?;
                let number = address.strip_prefix(before)?;
                // The text after the number may start with digits, too.
                let digits = number.bytes().take_while(u8::is_ascii_digit).count();
                let mut candidates = (1..=digits).filter_map(|n| number[..n].parse().ok());
                candidates.find_map(|n| {
                    let ordinal = Ordinal(n);
                    (self.of(ordinal).as_deref() == Some(address)).then_some(ordinal)
                })
            }
        }
    }

    /// The ordinals that the member at `me` asks for a cluster to join: all listed ones; with a template, the
    /// lowest ones and its neighbors.
    pub fn probe_candidates(&self, me: Ordinal) -> BTreeSet<Ordinal> {
        let around = me.0.saturating_sub(PROBED_NEIGHBORS)..=me.0.saturating_add(PROBED_NEIGHBORS);
        match self {
            PeerAddresses::List(_) => (0..self.listed()).map(Ordinal).collect(),
            PeerAddresses::Template(_) => (0..PROBED_ORDINALS).chain(around).map(Ordinal).collect(),
        }
    }

    /// The number of listed ordinals; zero with a template.
    pub fn listed(&self) -> u32 {
        match self {
            PeerAddresses::List(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
            PeerAddresses::Template(_) => 0,
        }
    }
}

/// For error texts.
impl fmt::Display for PeerAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddresses::List(list) => f.write_str(&list.join(", ")),
            PeerAddresses::Template(template) => f.write_str(template),
        }
    }
}

fn check(address: &str) -> Result<(), AddressError> {
    address.parse::<HostPort>()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_every_ordinal() {
        let t = PeerAddresses::template("kv-{ordinal}.kv-peers:2380".into()).unwrap();
        assert_eq!(t.of(Ordinal(17)).unwrap(), "kv-17.kv-peers:2380");
    }

    #[test]
    fn each_address_leads_back_to_its_ordinal() {
        let list = PeerAddresses::list(vec!["a:1".into(), "b:1".into()]).unwrap();
        assert_eq!(list.find("b:1"), Some(Ordinal(1)));
        assert_eq!(list.find("c:1"), None);
        let ports = PeerAddresses::template("localhost:1{ordinal}80".into()).unwrap();
        let hosts = PeerAddresses::template("kv-{ordinal}.n{ordinal}:2380".into()).unwrap();
        for ordinal in [0, 8, 80, 180].map(Ordinal) {
            for addresses in [&ports, &hosts] {
                assert_eq!(addresses.find(&addresses.of(ordinal).unwrap()), Some(ordinal));
            }
        }
        assert_eq!(hosts.find("kv-1.n2:2380"), None);
        assert_eq!(hosts.find("kv-.n:2380"), None);
    }

    #[test]
    fn addresses_of_ipv6_are_literals_in_brackets() {
        let t = PeerAddresses::template("[fd00::{ordinal}]:2380".into()).unwrap();
        assert_eq!(t.of(Ordinal(3)).unwrap(), "[fd00::3]:2380");
        assert_eq!(t.find("[fd00::3]:2380"), Some(Ordinal(3)));
    }

    #[test]
    fn a_list_ends_where_it_ends() {
        let list = PeerAddresses::list(vec!["a:1".into(), "[::1]:2".into()]).unwrap();
        assert_eq!(list.of(Ordinal(1)).unwrap(), "[::1]:2");
        assert_eq!(list.of(Ordinal(2)), None);
    }

    #[test]
    fn addresses_without_port_or_ordinal_are_refused() {
        assert!(PeerAddresses::list(vec!["host".into()]).is_err());
        assert!(PeerAddresses::list(vec!["host:http".into()]).is_err());
        assert!(PeerAddresses::template("kv-0:2380".into()).is_err());
        let error = PeerAddresses::list(vec!["fd00::7:2380".into()]).unwrap_err().to_string();
        assert!(error.contains("brackets"), "{error}");
        let error = PeerAddresses::template("[fe80::{ordinal}%eth0]:1".into()).unwrap_err();
        assert!(error.to_string().contains("zone"), "{error}");
    }
}
