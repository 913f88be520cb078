//! Each script is one behaviour, over a real connection to a node that answers from a table.
//!
//! A script's first lines of a block are what reached the node, the last what the client got.

mod client;
mod fake;
mod members;
mod ops;
mod watch;

use client::Client;

/// One test for each script, by its name.
macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                let path = concat!("tests/scripts/api/", stringify!($name));
                goldenscript::run(&mut Client::start(), path).unwrap();
            }
        )*
    };
}

scripts!(
    alarm_lists_what_is_raised,
    compact_waits_only_when_physical,
    delete_is_validated_and_answered,
    hash_kv_names_the_hashed_revision,
    headers_are_filled,
    leader_may_be_required,
    lease_grant_is_answered,
    lease_keep_alive_answers_in_order,
    lease_keep_alive_ends_with_an_error,
    lease_revoke_is_answered,
    lease_time_to_live_of_what_is_gone,
    leases_are_listed,
    member_list_has_no_revision,
    members_are_changed_in_etcds_words,
    cluster_tells_all_that_is_known,
    node_errors_have_etcds_codes_and_texts,
    put_is_validated,
    range_is_validated,
    range_maps_every_option,
    range_stream_merges_to_a_range,
    range_stream_refuses_what_needs_all_keys,
    range_stream_stays_at_its_revision,
    request_size_is_bounded,
    session_is_waited_for,
    status_fills_every_field,
    txn_counts_operations,
    txn_is_validated,
    txn_nested_must_not_write_twice,
    txn_must_not_write_twice,
    txn_of_reads_avoids_the_log,
    unimplemented_says_what,
);
