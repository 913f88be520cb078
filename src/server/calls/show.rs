//! The calls as Prometheus reads them.

use super::{CODES, Calls, MethodCounts, methods::METHODS};
use crate::metrics::{Counter, Exposition, Kind};

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

impl Calls {
    /// All methods from the beginning, as etcd has them: a rate can be taken of the first error too.
    pub(in crate::server) fn show(&self, text: &mut Exposition) {
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
        self.took(text);
        text.counter(
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes of messages received from clients.",
            self.all.received_bytes.get(),
        );
        text.counter(
            "etcd_network_client_grpc_sent_bytes_total",
            "Bytes of messages sent to clients.",
            self.all.sent_bytes.get(),
        );
        self.all.versions.show(text);
    }

    fn each(
        &self,
        text: &mut Exposition,
        name: &str,
        help: &str,
        counter: impl Fn(&MethodCounts) -> &Counter,
    ) {
        let mut family = text.family(name, Kind::Counter, help);
        for (labels, counts) in self.labelled() {
            family.sample(&labels, counter(counts).get());
        }
    }

    fn handled(&self, text: &mut Exposition) {
        let help =
            "Total number of RPCs completed on the server, regardless of success or failure.";
        let mut family = text.family("grpc_server_handled_total", Kind::Counter, help);
        for ([method, service, kind], counts) in self.labelled() {
            for (code, handled) in CODE_NAMES.iter().zip(&counts.handled) {
                let labels = [("grpc_code", *code), method, service, kind];
                family.sample(&labels, handled.get());
            }
        }
    }

    /// Only of methods that were called: each is a dozen lines.
    fn took(&self, text: &mut Exposition) {
        let help = "How long the server took to answer, from the request to the end of the answer.";
        let mut family = text.family("grpc_server_handling_seconds", Kind::Histogram, help);
        for (labels, counts) in self.labelled().filter(|(_, counts)| counts.took.count() > 0) {
            family.histogram(&labels, &counts.took);
        }
    }

    fn labelled(&self) -> impl Iterator<Item = ([(&'static str, &'static str); 3], &MethodCounts)> {
        METHODS.iter().zip(&self.all.methods).map(|(method, counts)| {
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
