//! Checks all versions in a store against the record of attempted writes.

use std::collections::BTreeMap;

use ordinal::proto::mvccpb::KeyValue;

use crate::support::{
    oracle::{Attempt, Outcome},
    retry::promise,
};

/// Asserts that these versions, all that exist, match the attempts: each acknowledged write at its
/// revision, each unknown write once or not at all, and nothing else.
pub fn check_versions(versions: &[KeyValue], attempts: &[Attempt]) {
    promise(|| versions_match(versions, attempts));
}

fn versions_match(versions: &[KeyValue], attempts: &[Attempt]) {
    let mut found: BTreeMap<&[u8], &KeyValue> = BTreeMap::new();
    for version in versions {
        let twice = found.insert(&version.value, version);
        assert!(twice.is_none(), "written twice: {version:?} and {twice:?}");
    }
    for attempt in attempts {
        let there = found.remove(attempt.value.as_bytes());
        let here = there.is_none_or(|kv| kv.key == attempt.key.as_bytes());
        assert!(here, "found under another key: {attempt:?}: {there:?}");
        let revision = there.map(|kv| kv.mod_revision);
        match attempt.outcome {
            Outcome::Acknowledged(at) => assert_eq!(revision, Some(at), "lost: {attempt:?}"),
            Outcome::Refused => assert_eq!(revision, None, "refused, and yet done: {attempt:?}"),
            Outcome::Unknown => {}
        }
    }
    assert!(found.is_empty(), "not written by any client: {found:?}");
}

/// Asserts that a write acknowledged before another write began has the lower revision.
pub fn check_real_time(attempts: &[Attempt]) {
    promise(|| revisions_follow_time(attempts));
}

fn revisions_follow_time(attempts: &[Attempt]) {
    let revision = |attempt: &Attempt| match attempt.outcome {
        Outcome::Acknowledged(revision) => Some(revision),
        _ => None,
    };
    let mut done: Vec<(i64, &Attempt)> =
        attempts.iter().filter_map(|attempt| Some((revision(attempt)?, attempt))).collect();
    done.sort_by_key(|(revision, _)| *revision);
    let mut earliest_end: Option<&Attempt> = None;
    for (_, attempt) in done.into_iter().rev() {
        if let Some(later) = earliest_end {
            assert!(
                later.ended >= attempt.began,
                "acknowledged before the other began, and has the higher revision: {later:?}, \
                 {attempt:?}"
            );
        }
        if earliest_end.is_none_or(|earliest| attempt.ended < earliest.ended) {
            earliest_end = Some(attempt);
        }
    }
}
