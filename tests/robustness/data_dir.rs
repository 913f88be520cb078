//! Data directories that belong to another member, or are incomplete.

use std::{fs, path::Path, process::Output, time::Duration};

use ordinal::proto::peer::{Identity, identity::Stage};
use prost::Message;
use tempfile::TempDir;

use crate::support::{
    grpc::{get, put},
    kvd::{Kvd, lone_member, readiness, run},
    ports::Ports,
    retry::with_retry,
};

/// Runs a member on this directory, and asserts that it refuses.
fn serve(data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let ports = Ports::free();
    let listen = [ports.client, ports.peer, ports.admin].map(|a| a.to_string());
    let mut args = vec!["serve", "--data-dir", data.to_str().unwrap()];
    args.extend(["--listen-client-urls", &listen[0], "--listen-peer-urls", &listen[1]]);
    args.extend(["--listen-admin", &listen[2]]);
    args.extend(more);
    let Output { status, stderr, .. } = run(&args);
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn refused(data: &Path, more: &[&str], says: &[&str]) {
    let (code, stderr) = serve(data, more);
    assert_eq!(code, Some(1), "{stderr}");
    for what in says {
        assert!(stderr.contains(what), "does not say {what:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// The fields of the `identity` file.
fn change_identity(data: &Path, change: impl FnOnce(&mut [u8], &mut Identity)) {
    let path = data.join("identity");
    let bytes = fs::read(&path).unwrap();
    let mut magic = bytes[..8].to_vec();
    let mut identity = Identity::decode(&bytes[8..bytes.len() - 4]).unwrap();
    change(&mut magic, &mut identity);
    let mut bytes = [magic, identity.encode_to_vec()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_directory_in_use_is_refused() {
    with_retry(async || {
        let (kvd, scratch) = lone_member().await;
        let data = scratch.path().join("data");
        let says = ["in use by another kvd", "--data-dir", data.to_str().unwrap()];
        refused(&data, &["--ordinal=0"], &says);
        put(&mut kvd.kv().await, "still", "here").await;
        kvd.stop().await;
    });
}

#[test]
fn a_foreign_or_incomplete_directory_is_refused_and_left_unchanged() {
    with_retry(async || {
        let (kvd, scratch) = lone_member().await;
        put(&mut kvd.kv().await, "k", "v").await;
        kvd.stop().await;
        let data = scratch.path().join("data");
        let identity = data.join("identity");
        let (wal, away) = (data.join("wal"), scratch.path().join("away"));
        let own = fs::read(&identity).unwrap();
        let restore = || fs::write(&identity, &own).unwrap();
        let here = ["--ordinal=0"];

        // The directory of another ordinal. (With peers, so that ordinal 1 can look for its
        // cluster.)
        let peers = "--peers=127.0.0.1:1,127.0.0.1:2";
        refused(&data, &["--ordinal=1", peers], &["belongs to ordinal 0, this is ordinal 1"]);
        change_identity(&data, |_, identity| identity.home = "prod/kv".into());
        refused(&data, &here, &["belongs to \"prod/kv\""]);
        // The log of another incarnation.
        restore();
        change_identity(&data, |_, identity| identity.member_id += 7);
        refused(&data, &here, &[".wal", "a segment of member"]);
        // Another format version.
        restore();
        change_identity(&data, |magic, _| magic[7] = 9);
        refused(&data, &here, &["identity: format version 9, this program reads version 1"]);
        // A damaged identity, and none.
        restore();
        let mut damaged = own.clone();
        damaged[12] ^= 0x40;
        fs::write(&identity, damaged).unwrap();
        refused(&data, &here, &["identity: damaged", "offset"]);
        fs::write(&identity, b"hello").unwrap();
        refused(&data, &here, &["not an identity file of Ordinal"]);
        fs::remove_file(&identity).unwrap();
        refused(&data, &here, &["has wal but no identity"]);
        // A lost log.
        restore();
        fs::rename(&wal, &away).unwrap();
        refused(&data, &here, &["its log is gone"]);
        fs::rename(&away, &wal).unwrap();
        // A file where a directory should be.
        refused(&identity, &here, &[identity.to_str().unwrap()]);
        restore();

        let mut kvd = Kvd::serve(scratch.path(), &data, Ports::free());
        kvd.ready().await;
        assert_eq!(get(&mut kvd.kv().await, "k").await.unwrap(), "v");
        kvd.stop().await;
    });
}

#[test]
fn a_member_of_another_cluster_is_kept_out() {
    with_retry(async || {
        let scratch = TempDir::new().unwrap();
        let ports = [Ports::free(), Ports::free(), Ports::free()];
        let peers = ports.map(|p| p.peer.to_string()).join(",");
        let start = |i: usize| {
            let listen = [ports[i].client, ports[i].peer, ports[i].admin].map(|a| a.to_string());
            let (data, ordinal) = (scratch.path().join(format!("data-{i}")), i.to_string());
            let mut args = vec!["serve", "--data-dir", data.to_str().unwrap(), "--peers", &peers];
            args.extend(["--ordinal", &ordinal, "--election-timeout=5s"]);
            args.extend(["--listen-client-urls", &listen[0], "--listen-peer-urls", &listen[1]]);
            args.extend(["--listen-admin", &listen[2]]);
            Kvd::start(scratch.path(), ports[i], &args)
        };
        let mut members: Vec<Kvd> = (0..3).map(start).collect();
        for member in &mut members {
            member.ready().await;
        }
        put(&mut members[0].kv().await, "k", "v").await;
        members.pop().unwrap().stop().await;
        // The volume of the same ordinal in another cluster.
        change_identity(&scratch.path().join("data-2"), |_, identity| {
            assert_eq!(identity.stage(), Stage::Member);
            identity.cluster_id ^= 1;
        });
        let mut stranger = start(2);
        stranger.logs("the call is from cluster").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_ne!(readiness(stranger.ports.admin), Some(200), "{}", stranger.log());
        for member in &members {
            let mut kv = member.kv().await;
            assert_eq!(get(&mut kv, "k").await.unwrap(), "v");
            put(&mut kv, "k", "v").await;
        }
        stranger.signal("TERM");
        stranger.exited(Duration::from_secs(20)).await;
        for member in members {
            member.stop().await;
        }
    });
}
