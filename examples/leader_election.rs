//! Leader election: one of several processes does the work, and another one takes over when it is
//! gone.
//!
//!     cargo run --example leader_election -- --name a
//!     cargo run --example leader_election -- --name b       (in another terminal; stop the first)
//!
//! The leader is the process that has put the one key, with a lease. All other processes watch that
//! key, and try again when it is gone. A leader that was cut off for longer than its lease may not
//! know yet that it has lost leadership, so it writes in transactions that hold only while the key
//! is its own.

use std::time::Duration;

use clap::Parser;
use ordinal::client::{Client, Compare, Endpoint, Get, Keys, LeaseKeeper, Put, Txn, Watch};
use tokio::{select, signal::ctrl_c, time::sleep};

/// The TTL of a task's lease.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TTL: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    /// Members, separated by commas
    #[arg(long, value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383")]
    endpoints: Vec<Endpoint>,
    #[arg(long, default_value = "election")]
    key: String,
    #[arg(long, default_value_t = format!("process {}", std::process::id()))]
    name: String,
    /// Let three candidates lead one after the other, and exit
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
    loop {
        let mut term = select! {
            term = Leadership::campaign(&client, &args.key, &args.name) => term?,
            _ = ctrl_c() => return Ok(()),
        };
        println!("{} leads", args.name);
        select! {
            end = term.keeper.ended() => println!("leads no more: {end}"),
            _ = ctrl_c() => return term.resign().await,
        }
    }
}

/// The leadership of this process.
struct Leadership {
    client: Client,
    key: String,
    /// The revision that created the key: unique to this leadership.
    since: i64,
    keeper: LeaseKeeper,
}

impl Leadership {
    /// Waits until this process leads.
    async fn campaign(client: &Client, key: &str, name: &str) -> Outcome<Leadership> {
        let lease = client.lease_grant(TTL).await?.id;
        let keeper = client.lease_keep_alive(lease).await?;
        loop {
            let lead = Txn::new()
                .when(Compare::version(key).equals(0))
                .then(Put::new(key, name).lease(lease))
                .otherwise(Get::new(key));
            let answer = client.txn(lead).await?;
            let revision = answer.header.unwrap_or_default().revision;
            if answer.succeeded {
                let (client, key) = (client.clone(), key.to_owned());
                return Ok(Leadership { client, key, since: revision, keeper });
            }
            // From right after the read: the key may be gone already.
            let mut changes =
                client.watch(Watch::new(key).from_revision(revision + 1).only_deletes()).await?;
            changes.next().await?;
        }
    }

    /// Puts a key, if this process still leads.
    async fn put(&self, key: &str, value: &str) -> Outcome {
        let guarded = Txn::new()
            .when(Compare::create_revision(&self.key).equals(self.since))
            .then(Put::new(key, value));
        if self.client.txn(guarded).await?.succeeded {
            return Ok(());
        }
        Err("leads no more".into())
    }

    async fn resign(self) -> Outcome {
        self.client.lease_revoke(self.keeper.id()).await?;
        Ok(())
    }
}

/// Three candidates. Each leads for a moment: one resigns, one crashes, and one is deposed without
/// noticing.
async fn demo(client: &Client) -> Outcome {
    const KEY: &str = "examples/election/leader";
    const WORK: &str = "examples/election/work";
    client.delete_range(Keys::prefix("examples/election/")).await?;

    let candidates = ["resigns", "crashes", "is deposed"].map(|name| {
        let client = client.clone();
        tokio::spawn(async move {
            let term = Leadership::campaign(&client, KEY, name).await?;
            println!("the one that {name} leads since revision {}", term.since);
            let worked = format!("{WORK}/{}", term.since);
            term.put(&worked, name).await?;
            sleep(TTL / 10).await;
            match name {
                "resigns" => term.resign().await?,
                // The lease is not renewed any more.
                "crashes" => drop(term),
                _ => {
                    client.delete_range(Keys::one(KEY)).await?;
                    let late = term.put(&worked, "written by a leader that is none").await;
                    assert!(late.is_err(), "a deposed leader has written");
                }
            }
            Outcome::Ok(())
        })
    });
    for candidate in candidates {
        candidate.await??;
    }

    let work = client.range(Keys::prefix(format!("{WORK}/"))).await?;
    assert_eq!(work.count, 3, "each of them led once");
    assert!(work.kvs.iter().all(|kv| kv.version == 1), "one leader at a time wrote");
    println!("ok: three leaders, one at a time");
    Ok(())
}
