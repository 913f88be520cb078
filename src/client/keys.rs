//! The keys of a request: one, a range, a prefix, or all.

use bytes::Bytes;

/// The `range_end` of an open range.
const OPEN_END: &[u8] = b"\0";

/// One key or several, as `key` and `range_end` in etcd's requests. Bytes and strings convert to a single
/// key, so most requests accept a `"key"` as well.
///
/// ```
/// use ordinal::client::{Get, Keys};
/// let one = Get::new("config/color");
/// let all_of_them = Get::new(Keys::prefix("config/"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keys {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
}

impl Keys {
    pub fn one(key: impl AsRef<[u8]>) -> Keys {
        Keys { key: copy(key), range_end: Bytes::new() }
    }

    /// From the first key to the second, exclusive.
    pub fn range(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Keys {
        Keys { key: copy(from), range_end: copy(to) }
    }

    /// All keys with this prefix. An empty prefix: all keys.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Keys {
        let prefix = prefix.as_ref();
        if prefix.is_empty() {
            return Keys::all();
        }
        Keys { key: copy(prefix), range_end: prefix_end(prefix) }
    }

    /// This key and all later ones.
    pub fn from(key: impl AsRef<[u8]>) -> Keys {
        let key = key.as_ref();
        if key.is_empty() {
            return Keys::all();
        }
        Keys { key: copy(key), range_end: OPEN_END.into() }
    }

    pub fn all() -> Keys {
        Keys { key: OPEN_END.into(), range_end: OPEN_END.into() }
    }

    /// `key` and `range_end` of a request.
    pub fn bounds(self) -> (Bytes, Bytes) {
        (self.key, self.range_end)
    }
}

impl<K: AsRef<[u8]>> From<K> for Keys {
    fn from(key: K) -> Keys {
        Keys::one(key)
    }
}

pub fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// The first key after all keys with this prefix.
fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => OPEN_END.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff"), OPEN_END);
    }

    #[test]
    fn an_empty_prefix_is_every_key() {
        assert_eq!(Keys::prefix(""), Keys::all());
        assert_eq!(Keys::from(""), Keys::all());
    }
}
