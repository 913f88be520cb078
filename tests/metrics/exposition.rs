//! A strict parser of Prometheus' text format 0.0.4: input that Prometheus would refuse or misread
//! is an error.

use std::collections::{BTreeMap, BTreeSet};

/// A metric family: one `# TYPE` line and its samples.
#[derive(Debug)]
pub struct Family {
    pub kind: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    /// With `_bucket`, `_sum` or `_count` for a histogram.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Family {
    /// The label names of its samples, without those of histograms.
    pub fn labels(&self) -> BTreeSet<&str> {
        let names = self.samples.iter().flat_map(|sample| sample.labels.keys());
        names.map(String::as_str).filter(|name| *name != "le").collect()
    }
}

/// The families by name.
pub fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line does not end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut help, mut open) = (None, String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("a name and words");
            assert!(words.ends_with('.') && !words.contains('\\'), "{line}");
            help = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(help.take(), Some(name), "HELP does not stand before TYPE");
            let family = Family { kind: kind.into(), samples: Vec::new() };
            assert!(families.insert(name.into(), family).is_none(), "{name} comes twice");
            open = name.into();
        } else {
            let sample = parse_sample(line);
            let family = families.get_mut(&open).expect("a TYPE before the first sample");
            let suffix = sample.name.strip_prefix(&open).unwrap_or_else(|| panic!("{line}"));
            let histogram = ["_bucket", "_sum", "_count"].contains(&suffix);
            assert_eq!(histogram, family.kind == "histogram", "{line} in family {open}");
            assert!(histogram || suffix.is_empty(), "{line} in family {open}");
            family.samples.push(sample);
        }
    }
    families.iter().for_each(|(name, family)| check(name, family));
    families
}

fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    let (name, labels) = match series.strip_suffix('}') {
        Some(series) => series.split_once('{').expect("labels open"),
        None => (series, ""),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    assert!(name.chars().all(legal), "{line}");
    // No label of ours has a quote or a comma in its value.
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name.to_string(), value.unwrap_or_else(|| panic!("{line}")).to_string())
    });
    Sample { name: name.into(), labels: labels.collect(), value: number(value) }
}

fn number(text: &str) -> f64 {
    let infinite = text == "+Inf";
    if infinite { f64::INFINITY } else { text.parse().unwrap_or_else(|_| panic!("{text:?}")) }
}

/// No series twice; counters are not negative; buckets add up to the count.
fn check(name: &str, family: &Family) {
    let mut seen = BTreeSet::new();
    let mut bucket: Option<(f64, f64)> = None;
    for sample in &family.samples {
        assert!(seen.insert((&sample.name, &sample.labels)), "{name}: a series comes twice");
        assert!(family.kind == "gauge" || sample.value >= 0.0, "{name}: {}", sample.value);
        if let Some(bound) = sample.labels.get("le") {
            let next = (number(bound), sample.value);
            let ascends = bucket.is_none_or(|last| last.0 < next.0 && last.1 <= next.1);
            assert!(ascends, "{name}: buckets do not ascend at {bound}");
            bucket = Some(next);
        } else if sample.name.ends_with("_count") && family.kind == "histogram" {
            assert_eq!(bucket.take(), Some((f64::INFINITY, sample.value)), "{name}");
        }
    }
}
