//! A lock that several processes share, in order of arrival.
//!
//!     cargo run --example distributed_lock -- --name backup sleep 10
//!     cargo run --example distributed_lock -- --name backup echo mine      (in another terminal)
//!
//! A process that wants the lock puts a key of its own under the lock's name, with a lease, and
//! holds the lock once no older key exists. Each process waits only for the key right before its
//! own, so a release wakes one waiter. The key of a holder that crashes expires with its lease.

use std::{process::Command, time::Duration};

use clap::Parser;
use ordinal::client::{
    Client, ClientError, Compare, Endpoint, Get, Keys, LeaseKeeper, Put, Txn, Watch,
};

/// The TTL of a task's lease.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TTL: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    /// Members, separated by commas
    #[arg(long, value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383")]
    endpoints: Vec<Endpoint>,
    #[arg(long, default_value = "lock")]
    name: String,
    /// Let five tasks count together, and exit
    #[arg(long)]
    demo: bool,
    /// The command to run while holding the lock
    #[arg(trailing_var_arg = true, required_unless_present = "demo")]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> Outcome {
    let args = Args::parse();
    let client = Client::new(args.endpoints, Default::default());
    if args.demo {
        return demo(&client).await;
    }
    let lock = Lock::acquire(&client, &args.name).await?;
    let status = Command::new(&args.command[0]).args(&args.command[1..]).status();
    lock.release().await?;
    std::process::exit(status?.code().unwrap_or(1));
}

/// The lock, held by this process.
struct Lock {
    client: Client,
    key: String,
    /// The revision that created the key. It grows from holder to holder, so a resource that the
    /// lock guards can refuse a late holder.
    since: i64,
    keeper: LeaseKeeper,
}

impl Lock {
    /// Waits until this process holds the lock.
    async fn acquire(client: &Client, name: &str) -> Outcome<Lock> {
        let lease = client.lease_grant(TTL).await?.id;
        let mut keeper = client.lease_keep_alive(lease).await?;
        let key = format!("{name}/{lease:016x}");
        let since = client.put(Put::new(&key, "").lease(lease)).await?;
        let since = since.header.unwrap_or_default().revision;
        tokio::select! {
            end = keeper.ended() => return Err(end.into()),
            turn = wait_for_turn(client, name, since) => turn?,
        }
        Ok(Lock { client: client.clone(), key, since, keeper })
    }

    /// A comparison that holds while this process holds the lock, for transactions.
    fn is_held(&self) -> Compare {
        Compare::create_revision(&self.key).equals(self.since)
    }

    async fn release(self) -> Outcome {
        self.client.lease_revoke(self.keeper.id()).await?;
        Ok(())
    }
}

/// Waits until no key of the lock is older than this revision.
async fn wait_for_turn(client: &Client, name: &str, since: i64) -> Outcome {
    loop {
        let keys = client.range(Keys::prefix(format!("{name}/"))).await?;
        let older = keys.kvs.iter().filter(|kv| kv.create_revision < since);
        let Some(before) = older.max_by_key(|kv| kv.create_revision) else { return Ok(()) };
        let next = keys.header.unwrap_or_default().revision + 1;
        let gone = Watch::new(&before.key).from_revision(next).only_deletes();
        client.watch(gone).await?.next().await?;
    }
}

/// Five tasks each increment a number twenty times, by reading and then writing it. Without the
/// lock, they would lose increments.
async fn demo(client: &Client) -> Outcome {
    const NUMBER: &str = "examples/lock/number";
    const TASKS: usize = 5;
    const TIMES: usize = 4;
    client.delete_range(Keys::prefix("examples/lock/")).await?;
    let read = async |client: &Client| -> Result<usize, ClientError> {
        let number = client.get(NUMBER).await?.map(|kv| kv.value).unwrap_or_default();
        Ok(String::from_utf8_lossy(&number).parse().unwrap_or(0))
    };

    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..TIMES {
                    let lock = Lock::acquire(&client, "examples/lock/holders").await?;
                    let number = read(&client).await? + 1;
                    let write =
                        Txn::new().when(lock.is_held()).then(Put::new(NUMBER, number.to_string()));
                    assert!(client.txn(write).await?.succeeded, "the lock was lost");
                    lock.release().await?;
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let number = read(client).await?;
    assert_eq!(number, TASKS * TIMES, "a task counted without the lock");
    let left = client.range(Get::new(Keys::prefix("examples/lock/holders/")).count_only()).await?;
    assert_eq!(left.count, 0, "a holder left something behind");
    println!("ok: {TASKS} tasks counted to {number} together");
    Ok(())
}
