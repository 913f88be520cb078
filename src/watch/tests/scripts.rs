//! Runs the scripts of `tests/scripts/watch`: one behaviour a file.
//!
//! | | |
//! |---|---|
//! | `put KEY VALUE [KEY VALUE]... [bytes=N]` | one revision; values are made so long |
//! | `del KEY [end=KEY]`, `compact N`, `prune` | |
//! | `hold`, `publish` | between them nothing is published |
//! | `late`, `intime` | between them the watch lane hears of nothing, and readers do |
//! | `snapshot [KEY=VALUE]... [compact=N]` | one is installed that has more |
//! | `open NAME`, `close NAME` | a stream |
//! | `watch NAME KEY [end=KEY\|from] [id=N] [rev=N] [prev] [noput] [nodelete] [fragment] [progress]` | |
//! | `cancel NAME ID`, `progress NAME`, `tick NAME` | |
//! | `read NAME [max=N]` | what the stream has, all of it without `max` |
//! | `chill`, `counters`, `stop` | |

use std::{error::Error, fmt::Write as _, path::Path};

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command as Line, Context};

use super::rig::{Rig, events};
use crate::{
    proto::mvccpb::{self, event::EventType},
    types::*,
    watch::{Counters, Kind, Limits, NewWatch, Response, Wants},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[test]
fn scripts_answer_as_recorded() {
    let dir = Path::new("tests/scripts/watch");
    #[expect(clippy::disallowed_methods, reason = "test scripts are not data of the store")]
    let files = std::fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "scripts are missing from {}", dir.display());
    for path in paths {
        let limits = Limits {
            feed_bytes: 16 << 10,
            pass_bytes: 2 << 10,
            recent_bytes: 2 << 10,
            read_bytes: 2 << 10,
            stream_bytes: 4 << 10,
            all_streams_bytes: 64 << 10,
            watches_bytes: 16 << 10,
        };
        let mut script = Script { rig: Rig::new(limits, 2 << 10), held: false };
        if let Err(error) = goldenscript::run(&mut script, &path) {
            panic!("{}: {error}", path.display());
        }
        assert!(!script.rig.fault.is_stopped());
    }
}

struct Script {
    rig: Rig,
    held: bool,
}

impl goldenscript::Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Outcome<String> {
        let mut args = line.consume_args();
        let said = match line.name.as_str() {
            "put" | "del" | "compact" => {
                let command = command(&line.name, &mut args)?;
                self.apply(command)
            }
            "prune" => format!("{:?}", self.rig.prune()),
            "hold" | "publish" => {
                self.held = line.name == "hold";
                self.rig.publish();
                String::new()
            }
            "late" | "intime" => {
                self.rig.set_late(line.name == "late");
                String::new()
            }
            "snapshot" => {
                self.snapshot(&mut args)?;
                String::new()
            }
            "chill" => {
                self.rig.chill();
                String::new()
            }
            "counters" => counters(self.rig.watches.counters()),
            "stop" => {
                self.rig.stop();
                String::new()
            }
            name => self.on_stream(name, &mut args)?,
        };
        args.reject_next()?;
        self.rig.settle();
        Ok(said)
    }
}

impl Script {
    fn apply(&mut self, command: Command) -> String {
        let said = match self.rig.apply(command) {
            Ok(Reply::Txn { revision, .. } | Reply::DeleteRange { revision, .. }) => {
                format!("at {revision}")
            }
            Ok(_) => String::new(),
            Err(refusal) => format!("refused: {refusal}"),
        };
        if !self.held {
            self.rig.publish();
        }
        said
    }

    fn snapshot(&mut self, args: &mut ArgumentConsumer) -> Outcome<()> {
        let compact = args.take_key("compact").map(str::parse).transpose()?;
        let mut more = Vec::new();
        while let Some(arg) = args.next_key() {
            more.push(put(&[(arg.0, arg.1.to_string())]));
        }
        more.extend(compact.map(|revision| Command::Compact(Revision(revision))));
        self.rig.install_snapshot(more);
        Ok(())
    }

    fn on_stream(&mut self, what: &str, args: &mut ArgumentConsumer) -> Outcome<String> {
        let name = args.next_pos().ok_or("no stream is named")?.to_string();
        match what {
            "open" => self.rig.open(&name),
            "close" => self.rig.close(&name),
            "watch" => {
                let times = number(args, "times")?.max(1);
                let watch = watch(args)?;
                if !self.rig.may_ask(&name) {
                    return Ok("the stream reads no requests".into());
                }
                (0..times).for_each(|_| self.rig.create(&name, watch.clone()));
            }
            "cancel" => {
                let id = args.next_pos().ok_or("no watch is named")?.parse()?;
                self.rig.stream(&name).cancel(id);
            }
            "progress" => self.rig.stream(&name).progress(),
            "tick" => self.rig.stream(&name).tick(),
            "read" => {
                let max = args.take_key("max").map_or(Ok(usize::MAX), str::parse)?;
                return Ok(self.read(&name, max));
            }
            other => return Err(format!("no such command: {other}").into()),
        }
        Ok(String::new())
    }

    fn read(&mut self, name: &str, max: usize) -> String {
        let mut text = String::new();
        for _ in 0..max {
            self.rig.settle();
            match self.rig.next(name) {
                Some(Some(response)) => say(&mut text, &response),
                Some(None) => {
                    text.push_str("the stream has ended\n");
                    break;
                }
                None => break,
            }
        }
        text
    }
}

fn command(name: &str, args: &mut ArgumentConsumer) -> Outcome<Command> {
    Ok(match name {
        "put" => {
            let bytes = number(args, "bytes")?.max(0) as usize;
            let mut pairs = Vec::new();
            while let Some(key) = args.next_pos() {
                let mut value = args.next_pos().ok_or("a key has no value")?.to_string();
                let missing = bytes.saturating_sub(value.len());
                value.extend(std::iter::repeat_n('.', missing));
                pairs.push((key, value));
            }
            put(&pairs)
        }
        "del" => {
            let keys = keys(args)?;
            Command::DeleteRange(DeleteRange { keys, prev_kv: false })
        }
        _ => Command::Compact(Revision(args.next_pos().ok_or("no revision")?.parse()?)),
    })
}

fn put(pairs: &[(&str, String)]) -> Command {
    let put = |(key, value): &(&str, String)| {
        let (key, value) = (Bytes::from(key.to_string()), Bytes::from(value.clone()));
        TxnOp::Put(Put { key, value, ..Put::default() })
    };
    Command::Txn(Txn { success: pairs.iter().map(put).collect(), ..Txn::default() })
}

fn keys(args: &mut ArgumentConsumer) -> Outcome<KeyRange> {
    let start = Bytes::from(args.next_pos().ok_or("no key")?.to_string());
    Ok(match args.take_key("end") {
        None => KeyRange::One(start),
        Some("from") => KeyRange::From(start),
        Some(end) => KeyRange::Span { start, end: Bytes::from(end.to_string()) },
    })
}

fn watch(args: &mut ArgumentConsumer) -> Outcome<NewWatch> {
    let mut watch = NewWatch {
        watch_id: number(args, "id")?,
        keys: keys(args)?,
        start: Revision(number(args, "rev")?),
        wants: Wants::default(),
        progress: false,
    };
    while let Some(word) = args.next_pos() {
        match word {
            "prev" => watch.wants.previous = true,
            "noput" => watch.wants.no_puts = true,
            "nodelete" => watch.wants.no_deletions = true,
            "fragment" => watch.wants.fragments = true,
            "progress" => watch.progress = true,
            other => return Err(format!("not understood: {other}").into()),
        }
    }
    Ok(watch)
}

fn number(args: &mut ArgumentConsumer, key: &str) -> Outcome<i64> {
    Ok(args.take_key(key).map_or(Ok(0), str::parse)?)
}

fn say(text: &mut String, response: &Response) {
    let Response { watch_id, revision, kind } = response;
    let what = match kind {
        Kind::Created => "created".to_string(),
        Kind::Refused(refusal) => format!("refused: {refusal}"),
        Kind::Canceled => "canceled".into(),
        Kind::Compacted(revision) => format!("cut off, compacted at {revision}"),
        Kind::Progress => "progress".into(),
        Kind::Events { more, .. } => if *more { "events, more follow" } else { "events" }.into(),
    };
    writeln!(text, "{watch_id} at {revision}: {what}").unwrap();
    for event in events(response) {
        let kv = event.kv.unwrap_or_default();
        let name = if event.r#type == EventType::Put as i32 { "put" } else { "delete" };
        let before = event.prev_kv.map_or_else(String::new, |kv| format!(", was {}", said(&kv)));
        writeln!(text, "  {name} {}{before}", said(&kv)).unwrap();
    }
}

fn said(kv: &mvccpb::KeyValue) -> String {
    let value = match kv.value.len() {
        long @ 20.. => format!("{}… ({long} bytes)", kv.value[..4].escape_ascii()),
        _ => kv.value.escape_ascii().to_string(),
    };
    format!("{}={value} (mod {}, version {})", kv.key.escape_ascii(), kv.mod_revision, kv.version)
}

fn counters(counters: &Counters) -> String {
    let Counters { streams, watchers, slow, pending_events, events_total, .. } = counters;
    format!(
        "{} streams, {} watches, {} slow; {} events wait, {} sent; {} cut off; {}",
        streams.get(),
        watchers.get(),
        slow.get(),
        pending_events.get(),
        events_total.get(),
        counters.cut_off_total.get(),
        if counters.queued_bytes.get() > 0 { "bytes wait" } else { "no bytes wait" },
    )
}
