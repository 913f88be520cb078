//! A transaction in a line of text: `put a ; del b d ; get c ; txn { put x } { put y } ; none`.
//!
//! `-` is an empty key. `puts 3` is three puts of different keys, `nest 4 put a` a put in four nested
//! transactions.

use bytes::Bytes;

use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request,
};

/// Operations up to the end of the text.
pub fn parse(text: &str) -> Vec<RequestOp> {
    let mut parser = Parser { words: text.split_whitespace().collect(), at: 0 };
    let ops = parser.ops();
    assert_eq!(parser.peek(), None, "in {text:?}");
    ops
}

/// One comparison for each key.
pub fn compares(keys: &str) -> Vec<Compare> {
    keys.split_whitespace().map(|key| Compare { key: bytes(key), ..Compare::default() }).collect()
}

pub fn bytes(word: &str) -> Bytes {
    if word == "-" { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> &str {
        self.at += 1;
        self.words[self.at - 1]
    }

    fn ends_op(&self) -> bool {
        matches!(self.peek(), None | Some(";" | "}"))
    }

    /// Operations up to a closing brace or the end.
    fn ops(&mut self) -> Vec<RequestOp> {
        let mut ops = Vec::new();
        while !matches!(self.peek(), None | Some("}")) {
            if self.peek() == Some(";") {
                self.at += 1;
                continue;
            }
            ops.extend(self.op());
            assert!(self.ends_op(), "{:?} at {}", self.words, self.at);
        }
        ops
    }

    fn op(&mut self) -> Vec<RequestOp> {
        let request = match self.next() {
            "none" => return vec![RequestOp { request: None }],
            "puts" => return (0..self.number()).map(|n| put(format!("key{n}").into())).collect(),
            "nest" => return self.nest(),
            "put" => return vec![put(self.key())],
            "get" | "local" => {
                let serializable = self.words[self.at - 1] == "local";
                let (key, range_end) = self.range();
                Request::RequestRange(RangeRequest {
                    key,
                    range_end,
                    serializable,
                    ..RangeRequest::default()
                })
            }
            "del" => {
                let (key, range_end) = self.range();
                Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false })
            }
            "txn" => {
                let (success, failure) = (self.block(), self.block());
                Request::RequestTxn(TxnRequest { compare: vec![], success, failure })
            }
            other => panic!("unknown operation {other}"),
        };
        vec![RequestOp { request: Some(request) }]
    }

    fn nest(&mut self) -> Vec<RequestOp> {
        let depth = self.number();
        let innermost = self.op();
        (0..depth).fold(innermost, |success, _| {
            let txn = TxnRequest { success, ..TxnRequest::default() };
            vec![RequestOp { request: Some(Request::RequestTxn(txn)) }]
        })
    }

    fn block(&mut self) -> Vec<RequestOp> {
        assert_eq!(self.next(), "{");
        let ops = self.ops();
        assert_eq!(self.next(), "}");
        ops
    }

    fn key(&mut self) -> Bytes {
        bytes(self.next())
    }

    fn range(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        let end = if self.ends_op() { Bytes::new() } else { self.key() };
        (key, end)
    }

    fn number(&mut self) -> usize {
        self.next().parse().unwrap()
    }
}

fn put(key: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(PutRequest { key, ..PutRequest::default() })) }
}
