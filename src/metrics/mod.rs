//! Metrics: instruments that cost one atomic addition, and Prometheus' text format.
//!
//! A leaf. Each layer keeps a struct of instruments in its own terms (such as `wal::WalMetrics`); only
//! `server::scrape` maps them to etcd's metric names.
//!
//! The text format is written by hand, because etcd's names break OpenMetrics' rules: etcd has counters
//! without `_total` (`etcd_server_health_success`) and gauges with it
//! (`etcd_server_proposals_committed_total`), which the OpenMetrics libraries do not write.
//!
//! ```text
//! let puts = Counter::default();
//! puts.add(2);
//! let mut text = Exposition::default();
//! text.counter("etcd_mvcc_put_total", "Puts applied.", puts.get());
//! assert!(text.finish().ends_with("# TYPE etcd_mvcc_put_total counter\netcd_mvcc_put_total 2\n"));
//! ```

mod exposition;
mod instruments;
mod labelled;
mod tracked_bytes;

pub use exposition::{Exposition, MetricKind, Number};
pub use instruments::{Counter, Gauge, Histogram, Unit, exponential_buckets};
pub use labelled::Labelled;
pub use tracked_bytes::{ByteAccount, track_bytes};
