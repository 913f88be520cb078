//! One behaviour per script, over a real connection to a fake node that answers from a table.
//!
//! In each block of a script, the first lines are the calls of the node, the last is the client's result.

mod client;
mod fake;
mod members;
mod ops;
mod watch;

use axum::{
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use client::Client;
use tonic::service::Routes;

/// Adds the translation of transport errors, as the server does.
fn as_served(routes: Routes) -> Routes {
    let translated = async |request: Request, next: Next| -> Response {
        let path = request.uri().path().to_owned();
        super::translate_transport_error(&path, next.run(request).await)
    };
    routes.into_axum_router().layer(from_fn(translated)).into()
}

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
    alarm_lists_raised_alarms,
    compact_waits_only_when_physical,
    delete_is_validated_and_answered,
    hash_kv_names_the_hashed_revision,
    headers_are_filled,
    leader_may_be_required,
    lease_grant_is_answered,
    lease_keep_alive_answers_in_order,
    lease_keep_alive_ends_with_an_error,
    lease_revoke_is_answered,
    lease_time_to_live_of_a_missing_lease,
    leases_are_listed,
    member_list_has_no_revision,
    members_are_changed_in_etcds_words,
    cluster_answers_every_field,
    node_errors_have_etcds_codes_and_texts,
    put_is_validated,
    range_is_validated,
    range_maps_every_option,
    range_stream_merges_to_a_range,
    range_stream_refuses_requests_that_need_all_keys,
    range_stream_stays_at_its_revision,
    request_size_is_bounded,
    session_is_waited_for,
    status_fills_every_field,
    txn_counts_operations,
    txn_is_validated,
    txn_nested_must_not_write_twice,
    txn_must_not_write_twice,
    txn_of_reads_avoids_the_log,
    unimplemented_names_the_method,
);
