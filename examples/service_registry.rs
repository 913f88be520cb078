//! A service registry: a service is listed while it lives, and nothing has to clean up.
//!
//!     cargo run --example service_registry
//!     cargo run --example service_registry -- register web/1 10.0.0.1:80     (in another terminal)
//!
//! A service puts its entry with a lease, and keeps the lease alive. A service that exits cleanly
//! revokes the lease, and its entry goes at once. The lease of a service that crashes expires, and
//! its entry with it.

use std::{collections::BTreeMap, time::Duration};

use clap::{Parser, Subcommand};
use ordinal::{
    client::{Client, Compare, Endpoint, Keys, LeaseKeeper, Put, Txn, Watch, Watcher},
    proto::mvccpb::event::EventType,
};
use tokio::{
    select,
    signal::ctrl_c,
    time::{Instant, timeout},
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const TTL: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Args {
    /// Members, separated by commas
    #[arg(long, value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383")]
    endpoints: Vec<Endpoint>,
    /// Register two services, stop one cleanly, let the other crash, watch both entries go, and
    /// exit
    #[arg(long)]
    demo: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Be listed until Ctrl-C
    Register { name: String, address: String },
    /// Show the listed services and their changes; the default
    Follow,
}

#[tokio::main]
async fn main() -> Outcome {
    let args = Args::parse();
    let client = Client::new(args.endpoints, Default::default());
    if args.demo {
        return demo(&client).await;
    }
    match args.action {
        Some(Action::Register { name, address }) => {
            let mut service = Service::register(&client, "services/", &name, &address).await?;
            println!("{name} is registered");
            select! {
                end = service.keeper.ended() => Err(end.into()),
                _ = ctrl_c() => service.end(&client).await,
            }
        }
        Some(Action::Follow) | None => {
            let mut registry = Registry::open(&client, "services/").await?;
            loop {
                println!("{:?}", registry.services);
                registry.change().await?;
            }
        }
    }
}

/// This process, as it is listed.
struct Service {
    keeper: LeaseKeeper,
}

impl Service {
    async fn register(
        client: &Client,
        prefix: &str,
        name: &str,
        address: &str,
    ) -> Outcome<Service> {
        let lease = client.lease_grant(TTL).await?.id;
        let key = format!("{prefix}{name}");
        let entry = Txn::new()
            .when(Compare::version(&key).equals(0))
            .then(Put::new(&key, address).lease(lease));
        if !client.txn(entry).await?.succeeded {
            client.lease_revoke(lease).await?;
            return Err(format!("there is a {name} already").into());
        }
        Ok(Service { keeper: client.lease_keep_alive(lease).await? })
    }

    async fn end(self, client: &Client) -> Outcome {
        client.lease_revoke(self.keeper.id()).await?;
        Ok(())
    }
}

/// The listed services.
struct Registry {
    services: BTreeMap<String, String>,
    watcher: Watcher,
}

impl Registry {
    async fn open(client: &Client, prefix: &str) -> Outcome<Registry> {
        let read = client.range(Keys::prefix(prefix)).await?;
        let next = read.header.unwrap_or_default().revision + 1;
        let watcher = client.watch(Watch::new(Keys::prefix(prefix)).from_revision(next)).await?;
        let services = read.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
        Ok(Registry { services, watcher })
    }

    /// Waits until a service comes or goes.
    async fn change(&mut self) -> Outcome {
        for event in self.watcher.next().await?.events {
            let gone = event.r#type() == EventType::Delete;
            let kv = event.kv.unwrap_or_default();
            if gone {
                self.services.remove(&text(&kv.key));
            } else {
                self.services.insert(text(&kv.key), text(&kv.value));
            }
        }
        Ok(())
    }

    async fn until(&mut self, count: usize) -> Outcome {
        while self.services.len() != count {
            self.change().await?;
        }
        println!("{:?}", self.services);
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn demo(client: &Client) -> Outcome {
    const PREFIX: &str = "examples/services/";
    client.delete_range(Keys::prefix(PREFIX)).await?;
    let mut registry = Registry::open(client, PREFIX).await?;

    let well = Service::register(client, PREFIX, "web/1", "10.0.0.1:80").await?;
    let badly = Service::register(client, PREFIX, "web/2", "10.0.0.2:80").await?;
    assert!(
        Service::register(client, PREFIX, "web/2", "10.0.0.3:80").await.is_err(),
        "a name is taken once"
    );
    registry.until(2).await?;
    // Longer than the TTL of a lease without renewals.
    assert!(
        timeout(TTL + TTL / 2, registry.change()).await.is_err(),
        "a service that lives is listed"
    );

    well.end(client).await?;
    registry.until(1).await?;

    let renewed_until = badly.keeper.alive_until();
    drop(badly);
    registry.until(0).await?;
    assert!(Instant::now() >= renewed_until, "a lease lasts as long as it was granted");
    println!("ok: one service went at once, one when its lease had ended");
    Ok(())
}
