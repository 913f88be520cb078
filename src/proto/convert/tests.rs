//! Round trips of all messages of peers and disks, and refusals of invalid ones.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::{
    proto::{etcdserverpb as pb, peer},
    types::*,
};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from)
}

fn revision() -> impl Strategy<Value = Revision> {
    any::<i64>().prop_map(Revision)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    // Every range that the wire can express; the log contains no other.
    (bytes(), prop_oneof![bytes(), Just(Bytes::from_static(b"\0"))]).prop_map(KeyRange::from)
}

prop_compose! {
    fn range()(
        keys in key_range(),
        limit in any::<i64>(),
        order in 0..3i32,
        target in 0..5i32,
        keys_only in any::<bool>(),
        count_only in any::<bool>(),
        revisions in prop::array::uniform5(revision()),
    ) -> Range {
        let sort = pb::RangeRequest {
            sort_order: order,
            sort_target: target,
            ..Default::default()
        };
        let sort = Range::try_from(sort).unwrap();
        let [revision, min_mod, max_mod, min_create, max_create] = revisions;
        Range {
            keys,
            limit,
            revision,
            sort_order: sort.sort_order,
            sort_target: sort.sort_target,
            keys_only,
            count_only,
            min_mod_revision: min_mod,
            max_mod_revision: max_mod,
            min_create_revision: min_create,
            max_create_revision: max_create,
        }
    }
}

prop_compose! {
    fn put()(
        key in bytes(),
        value in bytes(),
        lease in any::<i64>(),
        [prev_kv, ignore_value, ignore_lease] in any::<[bool; 3]>(),
    ) -> Put {
        Put { key, value, lease: LeaseId(lease), prev_kv, ignore_value, ignore_lease }
    }
}

fn delete_range() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(keys, prev_kv)| DeleteRange { keys, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let op = prop::sample::select(vec![
        CompareOp::Equal,
        CompareOp::Greater,
        CompareOp::Less,
        CompareOp::NotEqual,
    ]);
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::Create),
        revision().prop_map(CompareTarget::Mod),
        bytes().prop_map(CompareTarget::Value),
        any::<i64>().prop_map(|id| CompareTarget::Lease(LeaseId(id))),
    ];
    (key_range(), op, target).prop_map(|(keys, op, target)| Compare { keys, op, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        range().prop_map(TxnOp::Range),
        put().prop_map(TxnOp::Put),
        delete_range().prop_map(TxnOp::DeleteRange),
    ];
    let op =
        leaf.prop_recursive(3, 12, 3, |op| txn_of(op).prop_map(|txn| TxnOp::Txn(Box::new(txn))));
    txn_of(op)
}

fn txn_of(op: impl Strategy<Value = TxnOp>) -> impl Strategy<Value = Txn> {
    let ops = prop::collection::vec(op, 0..3);
    (prop::collection::vec(compare(), 0..3), ops).prop_map(|(compare, mut success)| {
        let failure = success.split_off(success.len() / 2);
        Txn { compare, success, failure }
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        put().prop_map(Command::Put),
        delete_range().prop_map(Command::DeleteRange),
        txn().prop_map(Command::Txn),
        revision().prop_map(Command::Compact),
        (any::<u64>(), any::<u32>(), any::<String>()).prop_map(|(member, ordinal, name)| {
            Command::SetMemberAttributes(MemberAttributes {
                member: MemberId(member),
                ordinal: Ordinal(ordinal),
                peer_urls: vec![name.clone()],
                client_urls: vec![name.clone(), name.clone()],
                name,
                boot: member,
            })
        }),
        any::<u64>().prop_map(|member| Command::AdmitMember(MemberId(member))),
        (any::<String>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
            |(set, generation, start, replicas)| {
                Command::SetDesiredReplicas(DesiredReplicas { set, generation, start, replicas })
            }
        ),
        (any::<u32>(), any::<u64>()).prop_map(|(ordinal, nonce)| {
            Command::AssignMember { ordinal: Ordinal(ordinal), nonce }
        }),
        lease_command(),
    ]
}

fn lease_command() -> impl Strategy<Value = Command> {
    let id = || any::<i64>().prop_map(LeaseId);
    let lease = || (id(), any::<u64>()).prop_map(|(id, epoch)| LeaseRef { id, epoch });
    let checkpoint =
        (lease(), any::<i64>()).prop_map(|(lease, remaining)| LeaseCheckpoint { lease, remaining });
    let term = || any::<u64>().prop_map(Term);
    prop_oneof![
        (id(), any::<i64>()).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
        id().prop_map(Command::LeaseRevoke),
        (term(), prop::collection::vec(lease(), 0..3))
            .prop_map(|(term, leases)| Command::LeaseExpire { term, leases }),
        (term(), prop::collection::vec(checkpoint, 0..3))
            .prop_map(|(term, checkpoints)| Command::LeaseCheckpoint { term, checkpoints }),
        (term(), prop::collection::vec(id(), 0..3))
            .prop_map(|(term, leases)| Command::LeaseRenew { term, leases }),
    ]
}

prop_compose! {
    fn key_value()(
        (key, value) in (bytes(), bytes()),
        [create_revision, mod_revision] in [revision(), revision()],
        version in any::<i64>(),
        lease in any::<i64>(),
    ) -> KeyValue {
        KeyValue { key, value, create_revision, mod_revision, version, lease: LeaseId(lease) }
    }
}

fn op_reply() -> impl Strategy<Value = OpReply> {
    let kvs = || prop::collection::vec(key_value(), 0..2);
    let leaf = prop_oneof![
        (kvs(), any::<bool>(), any::<i64>())
            .prop_map(|(kvs, more, count)| OpReply::Range(RangeReply { kvs, more, count })),
        prop::option::of(key_value()).prop_map(|prev_kv| OpReply::Put(PutReply { prev_kv })),
        (any::<i64>(), kvs()).prop_map(|(deleted, prev_kvs)| {
            OpReply::DeleteRange(DeleteRangeReply { deleted, prev_kvs })
        }),
    ];
    leaf.prop_recursive(3, 12, 3, |op| txn_reply(op).prop_map(OpReply::Txn))
}

fn txn_reply(op: impl Strategy<Value = OpReply>) -> impl Strategy<Value = TxnReply> {
    (any::<bool>(), prop::collection::vec(op, 0..3), revision())
        .prop_map(|(succeeded, responses, revision)| TxnReply { succeeded, responses, revision })
}

fn reply() -> impl Strategy<Value = Result<Reply, CommandError>> {
    let errors = vec![
        CommandError::Compacted,
        CommandError::FutureRevision,
        CommandError::KeyNotFound,
        CommandError::LeaseNotFound,
        CommandError::LeaseExists,
        CommandError::LeaseTtlTooLarge,
        CommandError::NoSpace,
        CommandError::StaleTerm,
    ];
    prop_oneof![
        4 => (revision(), op_reply()).prop_map(|(revision, op)| Ok(match op {
            OpReply::Put(reply) => Reply::Put { revision, reply },
            OpReply::DeleteRange(reply) => Reply::DeleteRange { revision, reply },
            OpReply::Txn(reply) => Reply::Txn { revision: reply.revision, reply },
            OpReply::Range(_) => Reply::Compact { revision },
        })),
        1 => Just(Ok(Reply::MembersUpdated)),
        1 => any::<u64>().prop_map(|id| Ok(Reply::Assigned(MemberId(id)))),
        1 => (revision(), any::<i64>())
            .prop_map(|(revision, ttl)| Ok(Reply::LeaseGrant { revision, ttl })),
        1 => revision().prop_map(|revision| Ok(Reply::LeaseRevoke { revision })),
        1 => Just(Ok(Reply::LeasesUpdated)),
        1 => prop::sample::select(errors).prop_map(Err),
    ]
}

proptest! {
    #[test]
    fn a_command_is_applied_as_it_was_proposed(
        commands in prop::collection::vec(command(), 0..4)
    ) {
        let batch = encode_commands(commands.clone());
        prop_assert_eq!(decode_commands(batch), Ok(commands));
    }

    #[test]
    fn a_forwarded_command_is_answered_as_the_leader_answered(reply in reply()) {
        let wire = peer::CommandReply::from(reply.clone()).encode_to_vec();
        let wire = peer::CommandReply::decode(Bytes::from(wire)).unwrap();
        prop_assert_eq!(Result::<Reply, CommandError>::try_from(wire), Ok(reply));
    }

    #[test]
    fn batches_that_are_concatenated_hold_the_commands_of_both(
        first in prop::collection::vec(command(), 0..3),
        second in prop::collection::vec(command(), 0..3),
    ) {
        let mut batch = BytesMut::from(&encode_commands(first.clone())[..]);
        batch.extend_from_slice(&encode_commands(second.clone()));
        prop_assert_eq!(decode_commands(batch.freeze()), Ok([first, second].concat()));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(garbage in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode_commands(garbage.into());
    }

    #[test]
    fn entries_and_votes_survive_the_wire(
        [term, index, voted_for] in any::<[u64; 3]>(),
        kind in prop::sample::select(vec![
            EntryKind::Blank, EntryKind::Commands, EntryKind::Membership,
        ]),
        data in bytes(),
        committed in any::<bool>(),
    ) {
        let position = LogPosition { term: Term(term), index };
        prop_assert_eq!(LogPosition::from(peer::LogPosition::from(position)), position);

        let entry = LogEntry { position, kind, data };
        prop_assert_eq!(LogEntry::try_from(peer::Entry::from(entry.clone())), Ok(entry));

        let voted_for = (voted_for != 0).then_some(MemberId(voted_for));
        for voted_for in [voted_for, None] {
            let vote = Vote { term: Term(term), voted_for, committed };
            prop_assert_eq!(Vote::from(peer::Vote::from(vote)), vote);
        }
    }
}

#[test]
fn range_end_means_what_etcd_says_it_means() {
    let range = |key: &'static [u8], end: &'static [u8]| {
        KeyRange::from((Bytes::from_static(key), Bytes::from_static(end)))
    };
    let bytes = Bytes::from_static;
    assert_eq!(range(b"a", b""), KeyRange::One(bytes(b"a")));
    assert_eq!(range(b"a", b"\0"), KeyRange::From(bytes(b"a")));
    assert_eq!(range(b"\0", b"\0"), KeyRange::From(bytes(b"\0")));
    assert_eq!(
        range(b"b", b"a"),
        KeyRange::Span { start: bytes(b"b"), end: bytes(b"a") },
        "a range that ends before it starts is empty, not an error"
    );
}

#[test]
fn an_operand_for_another_target_counts_as_zero() {
    let wire = pb::Compare {
        target: pb::compare::CompareTarget::Mod.into(),
        target_union: Some(pb::compare::TargetUnion::Version(7)),
        ..Default::default()
    };
    let compare = Compare::try_from(wire).unwrap();
    assert_eq!(compare.target, CompareTarget::Mod(Revision::ZERO));
}

#[test]
fn a_peer_of_another_version_is_refused_by_name() {
    let unknown_command = peer::CommandBatch { commands: vec![peer::Command::default()] };
    assert_eq!(
        decode_commands(unknown_command.encode_to_vec().into()),
        Err(WireError::Missing("Command.command"))
    );

    let op = pb::RequestOp { request: None };
    let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
    assert_eq!(Txn::try_from(txn), Err(WireError::Missing("RequestOp.request")));

    let range = pb::RangeRequest { sort_order: 3, ..Default::default() };
    assert_eq!(
        Range::try_from(range),
        Err(WireError::UnknownValue { field: "RangeRequest.sort_order", value: 3 })
    );

    type Answer = Result<Reply, CommandError>;
    let reply = peer::CommandReply { reply: None };
    assert_eq!(Answer::try_from(reply), Err(WireError::Missing("CommandReply.reply")));

    let failure = peer::CommandFailure { kind: 99 };
    let reply = peer::CommandReply { reply: Some(peer::command_reply::Reply::Failure(failure)) };
    assert_eq!(
        Answer::try_from(reply),
        Err(WireError::UnknownValue { field: "CommandFailure.kind", value: 99 })
    );

    let entry = peer::Entry { kind: 9, ..Default::default() };
    assert_eq!(
        LogEntry::try_from(entry),
        Err(WireError::UnknownValue { field: "Entry.kind", value: 9 })
    );
}

/// In etcd the header of an operation in a transaction has the revision that it saw or made; that of
/// a nested transaction has none.
#[test]
fn parts_of_a_transaction_say_the_revision_they_saw() {
    let nested = TxnReply {
        succeeded: true,
        responses: vec![OpReply::DeleteRange(DeleteRangeReply { deleted: 1, prev_kvs: vec![] })],
        revision: Revision(9),
    };
    let reply = TxnReply {
        succeeded: true,
        responses: vec![
            OpReply::Range(RangeReply::default()),
            OpReply::DeleteRange(DeleteRangeReply::default()),
            OpReply::Txn(nested),
            OpReply::Range(RangeReply::default()),
            OpReply::Put(PutReply::default()),
        ],
        revision: Revision(9),
    };
    let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 9, raft_term: 3 };
    let response = response::txn(header, reply);

    assert_eq!(response.header, Some(header));
    assert_eq!(revisions(&response), [8, 8, 0, 9, 9, 9]);
}

#[test]
fn parts_of_a_transaction_that_wrote_nothing_say_its_revision() {
    let reply = TxnReply {
        succeeded: false,
        responses: vec![OpReply::Range(RangeReply::default())],
        revision: Revision(9),
    };
    let header = pb::ResponseHeader { revision: 9, ..Default::default() };
    assert_eq!(revisions(&response::txn(header, reply)), [9]);
}

/// The revisions of the headers, depth first; a nested transaction comes before its operations.
fn revisions(txn: &pb::TxnResponse) -> Vec<i64> {
    use pb::response_op::Response;
    let revision = |header: Option<pb::ResponseHeader>| header.unwrap().revision;
    let mut all = Vec::new();
    for op in &txn.responses {
        match op.response.as_ref().unwrap() {
            Response::ResponseRange(range) => all.push(revision(range.header)),
            Response::ResponsePut(put) => all.push(revision(put.header)),
            Response::ResponseDeleteRange(delete) => all.push(revision(delete.header)),
            Response::ResponseTxn(nested) => {
                all.push(revision(nested.header));
                all.extend(revisions(nested));
            }
        }
    }
    all
}
