//! Configuration that reaches a running process: the keys under a prefix, read once and then
//! watched.
//!
//!     cargo run --example config_watch
//!     kvctl put config/color blue          (in another terminal)
//!
//! The read returns its revision, and the watch starts right after that revision: no change is
//! missed, and none comes twice. The client resumes the watch by itself when connections break or
//! members come and go. Only a compaction past the last seen revision makes the process read
//! everything again.

use std::{collections::BTreeMap, ops::ControlFlow};

use clap::Parser;
use ordinal::{
    client::{Client, Endpoint, Keys, Put, Txn, Watch, WatchError},
    proto::mvccpb::event::EventType,
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Config = BTreeMap<String, String>;

#[derive(Parser)]
struct Args {
    /// Members, separated by commas
    #[arg(long, value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383")]
    endpoints: Vec<Endpoint>,
    #[arg(long, default_value = "config/")]
    prefix: String,
    /// Change some keys, check that the changes arrive, and exit
    #[arg(long)]
    demo: bool,
}

#[tokio::main]
async fn main() -> Outcome {
    let args = Args::parse();
    let client = Client::new(args.endpoints, Default::default());
    if args.demo {
        return demo(&client).await;
    }
    follow(&client, &args.prefix, |config| {
        println!("{config:?}");
        ControlFlow::Continue(())
    })
    .await
}

/// Calls `act` with the configuration, and again after each change, until `act` breaks.
async fn follow(
    client: &Client,
    prefix: &str,
    mut act: impl FnMut(&Config) -> ControlFlow<()>,
) -> Outcome {
    loop {
        let read = client.range(Keys::prefix(prefix)).await?;
        let mut config: Config =
            read.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
        if act(&config).is_break() {
            return Ok(());
        }

        let next = read.header.unwrap_or_default().revision + 1;
        let watch = Watch::new(Keys::prefix(prefix)).from_revision(next);
        let mut watcher = match client.watch(watch).await {
            Err(WatchError::Compacted { .. }) => continue,
            watcher => watcher?,
        };
        loop {
            let batch = match watcher.next().await {
                Err(WatchError::Compacted { .. }) => break,
                batch => batch?,
            };
            for event in batch.events {
                let deleted = event.r#type() == EventType::Delete;
                let kv = event.kv.unwrap_or_default();
                if deleted {
                    config.remove(&text(&kv.key));
                } else {
                    config.insert(text(&kv.key), text(&kv.value));
                }
            }
            // A batch never splits a transaction, so `act` never sees half a change.
            if act(&config).is_break() {
                return Ok(());
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One process watches while another one writes.
async fn demo(client: &Client) -> Outcome {
    const PREFIX: &str = "examples/config/";
    let key = |name: &str| format!("{PREFIX}{name}");
    client.delete_range(Keys::prefix(PREFIX)).await?;

    let mut seen = Vec::new();
    let follower = follow(client, PREFIX, |config| {
        println!("{config:?}");
        seen.push(config.clone());
        if config.contains_key(&key("end")) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let writer = async {
        client.put(Put::new(key("color"), "blue")).await?;
        let both = Txn::new().then(Put::new(key("color"), "red")).then(Put::new(key("size"), "10"));
        client.txn(both).await?;
        client.delete_range(Keys::one(key("size"))).await?;
        client.put(Put::new(key("end"), "")).await?;
        Ok(())
    };
    tokio::try_join!(follower, writer)?;

    let together = |config: &Config| {
        let is = |name, value: &str| config.get(&key(name)).is_some_and(|is| is == value);
        !is("size", "10") || is("color", "red")
    };
    assert!(seen.iter().all(together), "half a transaction was seen");
    let last = Config::from([(key("color"), "red".into()), (key("end"), String::new())]);
    assert_eq!(seen.last(), Some(&last));
    println!("ok: {} states of the configuration, the last as it was written", seen.len());
    Ok(())
}
