//! Counting and measuring: instruments that cost an atomic addition, and the text that Prometheus
//! reads.
//!
//! A leaf. Each layer keeps a struct of instruments in its own words (`wal::WalMetrics` and the
//! like); only `server::scrape` knows under which of etcd's names they are shown.
//!
//! We write the text ourselves because etcd's names need it: it has counters without `_total`
//! (`etcd_server_health_success`) and gauges with it (`etcd_server_proposals_committed_total`), which
//! OpenMetrics forbids and its libraries do not write.
//!
//! ```
//! use std::time::Duration;
//! use ordinal::metrics::{Counter, Exposition, Kind};
//!
//! let puts = Counter::default();
//! puts.add(2);
//! let mut text = Exposition::default();
//! text.counter("etcd_mvcc_put_total", "Puts applied.", puts.get());
//! assert!(text.finish().ends_with("# TYPE etcd_mvcc_put_total counter\netcd_mvcc_put_total 2\n"));
//! ```

mod exposition;
mod instruments;
mod labelled;

pub use exposition::{Exposition, Family, Kind, Number};
pub use instruments::{Counter, Gauge, Histogram, Raised, Unit, doubling};
pub use labelled::Labelled;
