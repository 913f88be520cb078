//! Answers as text, byte for byte as etcdctl prints them. Pure.
//!
//! Each answer implements [`Answer`], a method for each format. The building blocks of the formats
//! ([`simple`], [`json`], [`fields`], [`table`]) know the messages of the API, and no verb; [`kv`]
//! has the answers that are messages of the KV service.

pub mod fields;
pub mod json;
mod kv;
pub mod simple;
pub mod table;

use std::fmt::Debug;

use clap::ValueEnum;

use self::table::Table;
use super::error::CtlError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Simple,
    Table,
    Json,
    Fields,
}

/// Notation of keys, values and ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct ValueStyle {
    /// Bytes in hexadecimal; ids too, where etcdctl does so.
    pub hex: bool,
    /// Values without their keys.
    pub value_only: bool,
}

/// Output for both streams. Bytes, not text: keys and values need not be UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Rendered {
    pub fn stdout(text: impl Into<Vec<u8>>) -> Rendered {
        Rendered { stdout: text.into(), stderr: vec![] }
    }
}

/// A response of the cluster, as each format shows it.
pub trait Answer: Debug {
    fn simple(&self, style: ValueStyle) -> Rendered;

    /// One JSON value, without the end of the line.
    fn json(&self, style: ValueStyle) -> String;

    /// One `"Name" : value` a line. `None`: the verb is not etcdctl's, and has no such format.
    fn fields(&self, _: ValueStyle) -> Option<String> {
        None
    }

    /// `None`: the verb has no table.
    fn table(&self) -> Option<Table> {
        None
    }

    fn render(&self, format: Format, style: ValueStyle) -> Result<Rendered, CtlError> {
        Ok(match format {
            Format::Simple => self.simple(style),
            Format::Json => Rendered::stdout(self.json(style) + "\n"),
            Format::Fields => Rendered::stdout(self.fields(style).ok_or_else(no_fields)?),
            Format::Table => Rendered::stdout(self.table().ok_or_else(no_table)?.render()),
        })
    }
}

/// The result of a command: an answer, and errors for standard error, which make the command fail.
#[derive(Debug)]
pub struct Outcome {
    pub answer: Box<dyn Answer>,
    pub errors: Vec<String>,
}

impl Outcome {
    pub fn success(answer: impl Answer + 'static) -> Outcome {
        Outcome::with_errors(answer, vec![])
    }

    pub fn with_errors(answer: impl Answer + 'static, errors: Vec<String>) -> Outcome {
        Outcome { answer: Box::new(answer), errors }
    }
}

/// For verbs whose answers have no table: fails before anything is sent.
pub fn refuse_table(format: Format) -> Result<(), CtlError> {
    if format == Format::Table { Err(no_table()) } else { Ok(()) }
}

/// For verbs whose answers have no fields: fails before anything is sent.
pub fn refuse_fields(format: Format) -> Result<(), CtlError> {
    if format == Format::Fields { Err(no_fields()) } else { Ok(()) }
}

fn no_table() -> CtlError {
    CtlError::BadFeature(
        "table not supported as output format here; use -w simple, json or fields".into(),
    )
}

fn no_fields() -> CtlError {
    CtlError::BadFeature("fields not supported as output format here; use -w simple or json".into())
}
