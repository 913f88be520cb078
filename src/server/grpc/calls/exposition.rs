//! Writes the call metrics in Prometheus' text format.

use super::{CODES, CallMetrics, MethodCounters, methods::METHODS};
use crate::metrics::{Counter, Exposition, MetricKind};

/// The names that Go gives to gRPC's codes, in their order.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl CallMetrics {
    /// Writes all methods from the start, as etcd does: so a rate includes the first error.
    pub fn expose(&self, text: &mut Exposition) {
        self.each(
            text,
            "grpc_server_started_total",
            "Total number of RPCs started on the server.",
            |counts| &counts.started,
        );
        self.each(
            text,
            "grpc_server_msg_received_total",
            "Total number of RPC messages received on the server.",
            |counts| &counts.received,
        );
        self.each(
            text,
            "grpc_server_msg_sent_total",
            "Total number of RPC messages sent by the server.",
            |counts| &counts.sent,
        );
        self.handled(text);
        self.durations(text);
        text.counter(
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes of messages received from clients.",
            self.counters.received_bytes.get(),
        );
        text.counter(
            "etcd_network_client_grpc_sent_bytes_total",
            "Bytes of messages sent to clients.",
            self.counters.sent_bytes.get(),
        );
        self.counters.versions.expose(text);
    }

    fn each(
        &self,
        text: &mut Exposition,
        name: &str,
        help: &str,
        counter: impl Fn(&MethodCounters) -> &Counter,
    ) {
        let mut family = text.family(name, MetricKind::Counter, help);
        for (labels, counts) in self.labelled() {
            family.sample(&labels, counter(counts).get());
        }
    }

    fn handled(&self, text: &mut Exposition) {
        let help =
            "Total number of RPCs completed on the server, regardless of success or failure.";
        let mut family = text.family("grpc_server_handled_total", MetricKind::Counter, help);
        for ([method, service, kind], counts) in self.labelled() {
            for (code, handled) in CODE_NAMES.iter().zip(&counts.handled) {
                let labels = [("grpc_code", *code), method, service, kind];
                family.sample(&labels, handled.get());
            }
        }
    }

    /// Writes only methods that were called: each takes a dozen lines.
    fn durations(&self, text: &mut Exposition) {
        let help = "Time from the request to the end of the response.";
        let mut family = text.family("grpc_server_handling_seconds", MetricKind::Histogram, help);
        for (labels, counts) in self.labelled().filter(|(_, counts)| counts.duration.count() > 0) {
            family.histogram(&labels, &counts.duration);
        }
    }

    fn labelled(
        &self,
    ) -> impl Iterator<Item = ([(&'static str, &'static str); 3], &MethodCounters)> {
        METHODS.iter().zip(&self.counters.methods).map(|(method, counts)| {
            let labels = [
                ("grpc_method", method.name()),
                ("grpc_service", method.service()),
                ("grpc_type", method.kind.label()),
            ];
            (labels, counts)
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn codes_have_the_names_that_alerts_ask_for() {
        let name = |code: Code| CODE_NAMES[code as usize];
        assert_eq!(name(Code::Ok), "OK");
        assert_eq!(name(Code::Cancelled), "Canceled");
        assert_eq!(name(Code::DeadlineExceeded), "DeadlineExceeded");
        assert_eq!(name(Code::Unavailable), "Unavailable");
        assert_eq!(name(Code::Unauthenticated), "Unauthenticated");
    }
}
