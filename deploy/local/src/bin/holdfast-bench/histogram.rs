//! Histograms in Prometheus' text format, as differences between two looks.

use std::collections::BTreeMap;

/// One histogram for each value of a label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histograms(pub BTreeMap<String, Histogram>);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds in rising order, the last infinite, and how many values are not above each.
    buckets: Vec<(f64, f64)>,
    pub count: f64,
    pub sum: f64,
}

impl Histograms {
    /// The histograms of `name`, told apart by `label`.
    pub fn read(text: &str, name: &str, label: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let Some(Sample { part, labels, value }) = Sample::of(line, name) else { continue };
            let find = |key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            let Some(of) = find(label) else { continue };
            let histogram = all.0.entry(of.to_owned()).or_default();
            match (part, find("le").and_then(bound)) {
                ("bucket", Some(bound)) => histogram.buckets.push((bound, value)),
                ("count", _) => histogram.count = value,
                ("sum", _) => histogram.sum = value,
                _ => {}
            }
        }
        for histogram in all.0.values_mut() {
            histogram.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        all
    }

    /// What was added since an earlier look. What was not called since is left out.
    pub fn since(&self, before: &Self) -> Self {
        let none = Histogram::default();
        let added = self.0.iter().map(|(of, now)| {
            let was = before.0.get(of).unwrap_or(&none);
            let count_of = |bound: f64| was.buckets.iter().find(|(other, _)| *other == bound).map_or(0.0, |b| b.1);
            let buckets = now.buckets.iter().map(|&(bound, count)| (bound, count - count_of(bound))).collect();
            (of.clone(), Histogram { buckets, count: now.count - was.count, sum: now.sum - was.sum })
        });
        Self(added.filter(|(_, histogram)| histogram.count > 0.0).collect())
    }

    /// Everything in one.
    pub fn total(&self) -> Histogram {
        let mut total = Histogram::default();
        for histogram in self.0.values() {
            if total.buckets.is_empty() {
                total.buckets = histogram.buckets.iter().map(|&(bound, _)| (bound, 0.0)).collect();
            }
            for (all, (_, count)) in total.buckets.iter_mut().zip(&histogram.buckets) {
                all.1 += count;
            }
            total.count += histogram.count;
            total.sum += histogram.sum;
        }
        total
    }
}

impl Histogram {
    /// An estimate: values are taken to lie evenly within their bucket.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count;
        let (mut lower, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.buckets {
            if count >= rank && count > below {
                let share = (rank - below) / (count - below);
                return if bound.is_finite() { lower + (bound - lower) * share } else { lower };
            }
            (lower, below) = (bound, count);
        }
        lower
    }
}

/// A line of a histogram.
struct Sample<'a> {
    /// `bucket`, `count` or `sum`.
    part: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// None if the line does not belong to `name`.
    fn of(line: &'a str, name: &str) -> Option<Self> {
        let rest = line.strip_prefix(name)?.strip_prefix('_')?;
        let (part, rest) = rest.split_once('{')?;
        let (labels, value) = rest.split_once("} ")?;
        let labels = labels.split(',').filter_map(|label| {
            let (key, value) = label.split_once('=')?;
            Some((key, value.trim_matches('"')))
        });
        Some(Self { part, labels: labels.collect(), value: value.split(' ').next()?.parse().ok()? })
    }
}

fn bound(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(low: u32, high: u32) -> String {
        let all = low + high;
        format!(
            "# TYPE x_seconds histogram\nx_seconds_sum{{call=\"sign\"}} 1.5\nx_seconds_count{{call=\"sign\"}} {all}\n\
             x_seconds_bucket{{le=\"0.1\",call=\"sign\"}} {low}\nx_seconds_bucket{{le=\"0.2\",call=\"sign\"}} {all}\n\
             x_seconds_bucket{{le=\"+Inf\",call=\"sign\"}} {all}\nother_count{{call=\"sign\"}} 9\n"
        )
    }

    #[test]
    fn what_was_added_between_two_looks() {
        let (before, after) = (text(10, 0), text(60, 50));
        let read = |text: &str| Histograms::read(text, "x_seconds", "call");
        let added = read(&after).since(&read(&before));
        let sign = &added.0["sign"];
        assert_eq!(sign.count, 100.0);
        assert!((sign.quantile(0.5) - 0.1).abs() < 1e-9);
        assert!((sign.quantile(0.75) - 0.15).abs() < 1e-9);
        assert_eq!(added.total(), *sign);
        assert_eq!(read(&after).since(&read(&after)), Histograms::default());
    }
}
