//! Runs the scripts of `tests/scripts/watch`: one behaviour a file.
//!
//! | | |
//! |---|---|
//! | `put KEY VALUE [KEY VALUE]... [bytes=N]` | one revision; pads values to N bytes |
//! | `del KEY [end=KEY]`, `compact N`, `prune` | |
//! | `hold`, `publish` | between them, nothing is published |
//! | `pause`, `resume` | between them, readers see changes and the watch lane does not |
//! | `snapshot [KEY=VALUE]... [compact=N]` | installs a snapshot with more changes |
//! | `open NAME`, `close NAME` | a stream |
//! | `watch NAME KEY [end=KEY\|from] [id=N] [rev=N] [prev] [noput] [nodelete] [fragment] [progress]` | |
//! | `cancel NAME ID`, `progress NAME`, `tick NAME` | |
//! | `read NAME [max=N]` | the messages of the stream, all of them without `max` |
//! | `evict` | values are on disk only |
//! | `counters`, `stop` | |

use std::{error::Error, fmt::Write as _, path::Path};

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command as Line, Context};

use super::rig::{Rig, events};
use crate::{
    proto::mvccpb::{self, event::EventType},
    types::*,
    watch::{Counters, EventOptions, Limits, NewWatch, Response, ResponseKind},
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
            batch_bytes: 2 << 10,
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
        let output = match line.name.as_str() {
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
            "pause" | "resume" => {
                self.rig.set_paused(line.name == "pause");
                String::new()
            }
            "snapshot" => {
                self.snapshot(&mut args)?;
                String::new()
            }
            "evict" => {
                self.rig.evict();
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
        Ok(output)
    }
}

impl Script {
    fn apply(&mut self, command: Command) -> String {
        let output = match self.rig.apply(command) {
            Ok(Reply::Txn { revision, .. } | Reply::DeleteRange { revision, .. }) => {
                format!("at {revision}")
            }
            Ok(_) => String::new(),
            Err(refusal) => format!("refused: {refusal}"),
        };
        if !self.held {
            self.rig.publish();
        }
        output
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

    fn on_stream(&mut self, verb: &str, args: &mut ArgumentConsumer) -> Outcome<String> {
        let name = args.next_pos().ok_or("no stream is named")?.to_string();
        match verb {
            "open" => self.rig.open(&name),
            "close" => self.rig.close(&name),
            "watch" => {
                let times = number(args, "times")?.max(1);
                let watch = watch(args)?;
                if !self.rig.is_ready(&name) {
                    return Ok("the stream accepts no request".into());
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
                Some(Some(response)) => write_response(&mut text, &response),
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
        start_revision: Revision(number(args, "rev")?),
        options: EventOptions::default(),
        progress_notify: false,
    };
    while let Some(word) = args.next_pos() {
        match word {
            "prev" => watch.options.prev_kv = true,
            "noput" => watch.options.no_put = true,
            "nodelete" => watch.options.no_delete = true,
            "fragment" => watch.options.fragment = true,
            "progress" => watch.progress_notify = true,
            other => return Err(format!("not understood: {other}").into()),
        }
    }
    Ok(watch)
}

fn number(args: &mut ArgumentConsumer, key: &str) -> Outcome<i64> {
    Ok(args.take_key(key).map_or(Ok(0), str::parse)?)
}

fn write_response(text: &mut String, response: &Response) {
    let Response { watch_id, revision, kind } = response;
    let kind = match kind {
        ResponseKind::Created => "created".to_string(),
        ResponseKind::CreateFailed(error) => format!("refused: {error}"),
        ResponseKind::Canceled => "canceled".into(),
        ResponseKind::Compacted(revision) => format!("canceled, compacted at {revision}"),
        ResponseKind::Progress => "progress".into(),
        ResponseKind::Events { fragment: true, .. } => "events, more follow".into(),
        ResponseKind::Events { fragment: false, .. } => "events".into(),
    };
    writeln!(text, "{watch_id} at {revision}: {kind}").unwrap();
    for event in events(response) {
        let kv = event.kv.unwrap_or_default();
        let name = if event.r#type == EventType::Put as i32 { "put" } else { "delete" };
        let prev_kv = event.prev_kv.map_or_else(String::new, |kv| format!(", was {}", shown(&kv)));
        writeln!(text, "  {name} {}{prev_kv}", shown(&kv)).unwrap();
    }
}

fn shown(kv: &mvccpb::KeyValue) -> String {
    let value = match kv.value.len() {
        long @ 20.. => format!("{}… ({long} bytes)", kv.value[..4].escape_ascii()),
        _ => kv.value.escape_ascii().to_string(),
    };
    format!("{}={value} (mod {}, version {})", kv.key.escape_ascii(), kv.mod_revision, kv.version)
}

fn counters(counters: &Counters) -> String {
    let Counters { streams, watchers, slow_watchers, pending_events, events_total, .. } = counters;
    format!(
        "{} streams, {} watches, {} slow; {} events wait, {} sent; {} compacted; {}",
        streams.get(),
        watchers.get(),
        slow_watchers.get(),
        pending_events.get(),
        events_total.get(),
        counters.compacted_total.get(),
        if counters.queued_bytes.get() > 0 { "bytes wait" } else { "no bytes wait" },
    )
}
