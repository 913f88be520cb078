//! What people type.

use std::{net::TcpListener, time::Duration};

use tempfile::TempDir;

use crate::kvd::{Kvd, Ports, free_port, free_ports, run};

#[test]
fn a_wrong_command_line_is_explained() {
    // What is typed, the exit code, and what the answer must say.
    let table: [(&[&str], i32, &[&str]); 15] = [
        (&["sevre"], 2, &["unrecognized subcommand 'sevre'", "serve"]),
        (&["serve", "--data-dri", "d"], 2, &["unexpected argument '--data-dri'", "--data-dir"]),
        (&["dev", "--member", "3"], 2, &["'--member'", "--members"]),
        (&["dev", "--members", "0"], 2, &["--members", "1..=9"]),
        (&["dev", "--base-port", "70000"], 2, &["--base-port"]),
        (&["serve"], 2, &["--data-dir"]),
        (&["serve", "--ordinal", "first"], 2, &["--ordinal", "invalid digit"]),
        (&["serve", "--listen-client", "2379"], 2, &["--listen-client", "invalid socket address"]),
        (&["serve", "--quota-bytes", "lots"], 2, &["--quota-bytes", "64MiB"]),
        (&["serve", "--max-request-bytes", "1GiB"], 2, &["--max-request-bytes", "32MiB"]),
        (&["serve", "--election-timeout", "5"], 2, &["--election-timeout", "500ms"]),
        (
            &["serve", "--data-dir", "d", "--ordinal", "1"],
            1,
            &["ordinal 1", "--peers", "--peer-template"],
        ),
        (
            &["serve", "--data-dir", "d", "--ordinal", "0", "--peers", "kv-0,kv-1"],
            1,
            &["\"kv-0\"", "host:port"],
        ),
        (
            &["serve", "--data-dir", "d", "--ordinal", "0", "--peer-template", "kv-0:2380"],
            1,
            &["--peer-template", "{ordinal}"],
        ),
        (
            &["serve", "--data-dir", "d", "--ordinal", "0", "--election-timeout", "1ms"],
            1,
            &["election timeout 1ms", "at least 50ms"],
        ),
    ];
    let scratch = TempDir::new().unwrap();
    for (args, code, says) in table {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_kvd"))
            .args(args)
            .current_dir(scratch.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "kvd {args:?}: {said}");
        for what in says {
            assert!(said.contains(what), "kvd {args:?} does not say {what:?}: {said}");
        }
    }
    let left = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 0, "a refused command line leaves nothing behind");
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let scratch = TempDir::new().unwrap();
    let data = scratch.path().join("data");
    let taken = free_port();
    let _holder = TcpListener::bind(taken).unwrap();
    let flags = ["--listen-client", "--listen-peer", "--listen-admin"];
    for flag in flags {
        let mut args: Vec<String> =
            vec!["serve".into(), "--ordinal=0".into(), format!("--data-dir={}", data.display())];
        let port = |f: &str| if f == flag { taken } else { free_port() };
        args.extend(flags.map(|f| format!("{f}={}", port(f))));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&taken.to_string()) && said.contains(flag), "{said}");
    }
    let first = free_ports(104);
    let _other = TcpListener::bind(first).unwrap();
    let base = first.port().to_string();
    let output = run(&["dev", "--base-port", &base, "--data-dir", data.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&first.to_string()) && said.contains("--base-port"), "{said}");
}

#[tokio::test]
async fn interrupted_while_it_waits_for_others_it_ends_at_once() {
    let scratch = TempDir::new().unwrap();
    let ports = Ports::free();
    let peers = format!("{},{},{}", ports.peer, free_port(), free_port());
    let listen = [ports.client, ports.peer, ports.admin].map(|a| a.to_string());
    let data = scratch.path().join("data");
    let mut args = vec!["serve", "--ordinal=0", "--data-dir", data.to_str().unwrap()];
    args.extend(["--peers", &peers, "--listen-client", &listen[0]]);
    args.extend(["--listen-peer", &listen[1], "--listen-admin", &listen[2]]);
    let mut kvd = Kvd::start(scratch.path(), ports, &args);
    kvd.says("founding a cluster").await;
    kvd.signal("INT");
    let status = kvd.ended(Duration::from_secs(2)).await;
    assert_eq!(status.code(), Some(0), "{}", kvd.said());
}
