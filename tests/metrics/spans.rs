//! The path of a request through a member, as the log shows it at `debug`.

use serde_json::Value;

use crate::{metrics::cluster::Cluster, support::retry::with_retry};

/// The lines of a log in JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The closed spans of this name.
fn ended<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    let is = |line: &&Value| line["span"]["name"] == name && line["fields"]["message"] == "close";
    lines.iter().filter(is).collect()
}

#[test]
fn a_write_is_followed_from_its_request_to_its_entry() {
    with_retry(async || {
        let cluster = Cluster::start_with(1, &["--log-format=json"], "ordinal=debug").await;
        cluster.exercise().await;
        let lines = lines(&cluster.stop().await);

        let puts: Vec<&Value> = ended(&lines, "propose")
            .into_iter()
            .filter(|line| line["spans"][0]["method"] == "/etcdserverpb.KV/Put")
            .collect();
        assert_eq!(puts.len(), 3, "{puts:#?}");
        for put in puts {
            assert!(put["spans"][0]["id"].is_u64(), "{put:#}");
            let (term, index) = (&put["span"]["term"], &put["span"]["index"]);
            assert!(term.as_u64() > Some(0) && index.as_u64() > Some(0), "{put:#}");

            let replicated = ended(&lines, "replicate")
                .into_iter()
                .any(|line| line["span"]["index"] == *index && line["spans"][0]["name"] == "batch");
            let applied = lines.iter().any(|line| {
                let fields = &line["fields"];
                let here = fields["term"] == *term && fields["index"] == *index;
                here && line["span"]["name"] == "apply" && fields["message"] == "applying"
            });
            assert!(replicated && applied, "entry {index}: {replicated} {applied}");
        }
        let reads = ended(&lines, "read_index");
        assert!(reads.iter().any(|line| line["span"]["index"].as_u64() > Some(0)), "{reads:#?}");
    });
}

#[test]
fn the_log_has_no_spans_unless_asked() {
    with_retry(async || {
        let cluster = Cluster::start_with(1, &["--log-format=json"], "info").await;
        cluster.exercise().await;
        let lines = lines(&cluster.stop().await);
        let ours = |line: &&Value| line["span"]["name"] != Value::Null;
        assert!(!lines.is_empty());
        assert_eq!(lines.iter().find(ours), None);
    });
}
