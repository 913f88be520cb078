//! Bytes that are counted for as long as they are in memory.

use std::sync::Arc;

use bytes::Bytes;

/// An account of bytes in memory.
pub trait ByteAccount: Send + Sync + 'static {
    fn add(&self, bytes: usize);

    fn release(&self, bytes: usize);
}

/// Counts `bytes`, which occupy `memory_bytes`, on `account` until the last reference to them is dropped.
pub fn track_bytes<T, A>(bytes: T, memory_bytes: usize, account: &Arc<A>) -> Bytes
where
    T: AsRef<[u8]> + Send + 'static,
    A: ByteAccount,
{
    account.add(memory_bytes);
    Bytes::from_owner(TrackedBytes { bytes, memory_bytes, account: account.clone() })
}

struct TrackedBytes<T, A: ByteAccount> {
    bytes: T,
    memory_bytes: usize,
    account: Arc<A>,
}

impl<T: AsRef<[u8]>, A: ByteAccount> AsRef<[u8]> for TrackedBytes<T, A> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T, A: ByteAccount> Drop for TrackedBytes<T, A> {
    fn drop(&mut self) {
        self.account.release(self.memory_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[derive(Default)]
    struct Account(AtomicUsize);

    impl ByteAccount for Account {
        fn add(&self, bytes: usize) {
            self.0.fetch_add(bytes, Relaxed);
        }

        fn release(&self, bytes: usize) {
            self.0.fetch_sub(bytes, Relaxed);
        }
    }

    #[test]
    fn bytes_count_until_the_last_slice_is_dropped() {
        let account = Arc::<Account>::default();
        let bytes = track_bytes(vec![1, 2, 3], 100, &account);
        let slice = bytes.slice(1..);
        drop(bytes);
        assert_eq!((&slice[..], account.0.load(Relaxed)), (&[2, 3][..], 100));
        drop(slice);
        assert_eq!(account.0.load(Relaxed), 0);
    }
}
