//! Strings, durations and sizes in Go's notation, which etcdctl's flags and output use.

use std::{fmt::Write as _, time::Duration};

/// A string in double quotes, as Go's `%q`: unprintable characters are escaped.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(&mut out, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_char(out: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = match c {
        '"' | '\\' => write!(out, "\\{c}"),
        '\x07' => write!(out, "\\a"),
        '\x08' => write!(out, "\\b"),
        '\x0c' => write!(out, "\\f"),
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        '\x0b' => write!(out, "\\v"),
        c if is_printable(c) => write!(out, "{c}"),
        c if (c as u32) < 0x80 => write!(out, "\\x{:02x}", c as u32),
        c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32),
        c => write!(out, "\\U{:08x}", c as u32),
    };
}

/// Letters, marks, numbers, punctuation, symbols and the space: characters that Rust's `Debug` does
/// not escape within a string. (It escapes a mark at the start, hence the letter before.)
fn is_printable(c: char) -> bool {
    matches!(c, '\'') || format!("a{c}").escape_debug().count() == 2
}

/// Reads a string in double quotes or backquotes at the start of `text`, with Go's escapes. Returns
/// its bytes and the rest of `text`; `None` without such a string.
pub fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (raw, rest) = raw.split_once('`')?;
        return Some((raw.into(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut out = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((out, rest)),
            '\\' => rest = unescape(&mut out, rest)?,
            c => push_char(&mut out, c),
        }
    }
}

/// Reads the escape after a backslash; returns the rest of `text`.
fn unescape<'a>(out: &mut Vec<u8>, text: &'a str) -> Option<&'a str> {
    let (digits, radix, is_byte) = match text.chars().next()? {
        'x' => (text.get(1..3)?, 16, true),
        'u' => (text.get(1..5)?, 16, false),
        'U' => (text.get(1..9)?, 16, false),
        '0'..='7' => (text.get(0..3)?, 8, true),
        c => {
            out.push(match c {
                'a' => 0x07,
                'b' => 0x08,
                'f' => 0x0c,
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'v' => 0x0b,
                '\\' | '"' => c as u8,
                _ => return None,
            });
            return Some(&text[1..]);
        }
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = u32::from_str_radix(digits, radix).ok()?;
    if is_byte {
        out.push(u8::try_from(number).ok()?);
    } else {
        push_char(out, char::from_u32(number)?);
    }
    let lead = usize::from(radix == 16);
    Some(&text[lead + digits.len()..])
}

fn push_char(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// A duration, as in `1m2.5s`, `7.990801ms` or `0s`.
pub fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = decimal(nanos % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{rest}s"),
                (0, _) => format!("{minutes}m{rest}s"),
                _ => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

/// `value / unit` with as many decimals as it takes; `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    match fraction.trim_end_matches('0') {
        "" => format!("{}", value / unit),
        fraction => format!("{}.{fraction}", value / unit),
    }
}

/// Reads a duration such as `5s`, `300ms` or `1m30s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write it as in 5s, 300ms or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        nanos += number
            * match &rest[..letters] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(bad()),
            };
        rest = &rest[letters..];
    }
    if text.is_empty() || nanos > MAX_NANOS {
        return Err(bad());
    }
    Ok(Duration::from_nanos(nanos as u64))
}

/// Go's durations are 63 bits of nanoseconds: 292 years.
const MAX_NANOS: f64 = i64::MAX as f64;

/// A number of bytes, rounded, in powers of a thousand: `29 kB`, `1.1 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog(1000);
    let scaled = bytes as f64 / 1000f64.powi(power as i32);
    let rounded = (scaled * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[power as usize];
    if rounded < 10.0 { format!("{rounded:.1} {unit}") } else { format!("{rounded:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_quoted_as_go_quotes_them() {
        let bytes =
            b"\xff\xfe\x01\x7f<\xc3\xa9\xe2\x80\xa8\xcc\x81\xf0\x9f\x98\x80\xc2\xa0\xc2\xad\"\\'\n";
        assert_eq!(quote(bytes), r#""\xff\xfe\x01\x7f<é\u2028́😀\u00a0\u00ad\"\\'\n""#);
        assert_eq!(quote(b"\x07\x08\x0c\r\t\x0b\0"), r#""\a\b\f\r\t\v\x00""#);
    }

    #[test]
    fn the_rest_after_a_quoted_string_is_returned() {
        assert_eq!(unquote(r#""a\x00\101é" > "1""#), Some(("a\0Aé".into(), r#" > "1""#)));
        assert_eq!(unquote("`a\\n` b"), Some(("a\\n".into(), " b")));
        for bad in
            ["", "a", "\"a", "`a", r#""\q""#, r#""\xg0""#, r#""\ud800""#, r#""\777""#, r#""\x+1""#]
        {
            assert_eq!(unquote(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_string_reads_back_as_itself(bytes: Vec<u8>) {
            let quoted = quote(&bytes);
            prop_assert_eq!(unquote(&quoted), Some((bytes, "")));
        }

        #[test]
        fn a_duration_reads_back_as_itself(nanos in 0..10_000_000_000_000_u64) {
            let duration_ = Duration::from_nanos(nanos);
            let read = parse_duration(&duration(duration_)).unwrap();
            prop_assert!(read.abs_diff(duration_) <= Duration::from_nanos(2));
        }

        #[test]
        fn the_readers_never_panic(text: String) {
            let _ = unquote(&text);
            let _ = parse_duration(&text);
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (7_990_801, "7.990801ms"),
            (2_000_000_000, "2s"),
            (62_500_000_000, "1m2.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn a_bad_duration_says_how_to_write_one() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["", "5", "s", "5x", "1..2s", "-1s", "999999999h"] {
            let error = parse_duration(bad).unwrap_err();
            assert!(error.contains("write it as in 5s"), "{bad}: {error}");
        }
    }

    #[test]
    fn sizes_are_rounded_as_etcdctl_rounds_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (28_672, "29 kB"),
            (1_050_000, "1.1 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
