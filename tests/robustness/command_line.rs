//! Wrong command lines.

use std::{net::TcpListener, time::Duration};

use tempfile::TempDir;

use crate::support::{
    kvd::{Kvd, run},
    ports::{Ports, free_port, free_ports},
    retry::{with_retry, with_retry_blocking},
};

#[test]
fn a_wrong_command_line_is_explained() {
    with_retry_blocking(|| {
        // The arguments, the exit code, and the texts that stderr must contain.
        let table: [(&[&str], i32, &[&str]); 15] = [
            (&["sevre"], 2, &["unrecognized subcommand 'sevre'", "serve"]),
            (&["serve", "--data-dri", "d"], 2, &["unexpected argument '--data-dri'", "--data-dir"]),
            (&["dev", "--member", "3"], 2, &["'--member'", "--members"]),
            (&["dev", "--members", "0"], 2, &["--members", "1..=9"]),
            (&["dev", "--base-port", "70000"], 2, &["--base-port"]),
            (&["serve"], 2, &["--data-dir"]),
            (&["serve", "--ordinal", "first"], 2, &["--ordinal", "invalid digit"]),
            (
                &["serve", "--listen-client-urls", "2379"],
                2,
                &["--listen-client-urls", "http://IP:PORT"],
            ),
            (&["serve", "--quota-backend-bytes", "lots"], 2, &["--quota-backend-bytes", "64MiB"]),
            (&["serve", "--max-request-bytes", "1GiB"], 2, &["--max-request-bytes", "32MiB"]),
            (&["serve", "--election-timeout", "soon"], 2, &["--election-timeout", "500ms"]),
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
        for (args, code, texts) in table {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_kvd"))
                .args(args)
                .current_dir(scratch.path())
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "kvd {args:?}: {stderr}");
            for text in texts {
                assert!(stderr.contains(text), "kvd {args:?} does not print {text:?}: {stderr}");
            }
        }
        let left = std::fs::read_dir(scratch.path()).unwrap().count();
        assert_eq!(left, 0, "a refused command line leaves nothing behind");
    });
}

#[test]
fn a_renamed_environment_variable_still_holds() {
    with_retry_blocking(|| {
        let scratch = TempDir::new().unwrap();
        let error = |variables: &[(&str, &str)]| {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_kvd"))
                .args(["serve", "--data-dir", "d", "--ordinal", "1"])
                .envs(variables.iter().copied())
                .current_dir(scratch.path())
                .output()
                .unwrap();
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let old = ("KVD_GRACE", "soon");
        assert!(error(&[old]).contains("\"soon\" is not a duration"), "{}", error(&[old]));
        let both = [old, ("KVD_TERMINATION_GRACE_PERIOD", "5s")];
        assert!(error(&both).contains("--peers"), "{}", error(&both));
    });
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    with_retry_blocking(|| {
        let scratch = TempDir::new().unwrap();
        let data = scratch.path().join("data");
        let taken = free_port();
        let _holder = TcpListener::bind(taken).unwrap();
        let flags = ["--listen-client-urls", "--listen-peer-urls", "--listen-admin"];
        for flag in flags {
            let mut args: Vec<String> = vec![
                "serve".into(),
                "--ordinal=0".into(),
                format!("--data-dir={}", data.display()),
            ];
            let port = |f: &str| if f == flag { taken } else { free_port() };
            args.extend(flags.map(|f| format!("{f}={}", port(f))));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = run(&args);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(&taken.to_string()) && stderr.contains(flag), "{stderr}");
        }
        let first = free_ports(104);
        let _other = TcpListener::bind(first).unwrap();
        let base = first.port().to_string();
        let output = run(&["dev", "--base-port", &base, "--data-dir", data.to_str().unwrap()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&first.to_string()) && stderr.contains("--base-port"), "{stderr}");
    });
}

#[test]
fn interrupted_while_it_waits_for_others_it_ends_at_once() {
    with_retry(async || {
        let scratch = TempDir::new().unwrap();
        let ports = Ports::free();
        let peers = format!("{},{},{}", ports.peer, free_port(), free_port());
        let listen = [ports.client, ports.peer, ports.admin].map(|a| a.to_string());
        let data = scratch.path().join("data");
        let mut args = vec!["serve", "--ordinal=0", "--data-dir", data.to_str().unwrap()];
        args.extend(["--peers", &peers, "--listen-client-urls", &listen[0]]);
        args.extend(["--listen-peer-urls", &listen[1], "--listen-admin", &listen[2]]);
        let mut kvd = Kvd::start(scratch.path(), ports, &args);
        kvd.logs("founding a cluster").await;
        kvd.signal("INT");
        let status = kvd.exited(Duration::from_secs(2)).await;
        assert_eq!(status.code(), Some(0), "{}", kvd.log());
    });
}
