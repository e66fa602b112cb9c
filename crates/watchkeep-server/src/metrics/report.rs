//! The numbers of one moment, as OpenMetrics text.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Metrics, STATUSES};
use crate::gate::Figures;
use crate::limits::LATENCIES;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) figures: Figures,
    pub(super) metrics: Arc<Metrics>,
}

impl Report {
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let (mut registry, mut text) = (Registry::with_prefix("watchkeep"), String::new());
        registry.register_collector(Box::new(self));
        text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn counters(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let it = &self.figures.counters;
        for (name, help, value) in [
            ("commits", "Commits of this process that announced something", it.commits),
            ("events", "Events that these commits announced", it.events),
            ("deliveries", "Events that watchers of the library handed out", it.deliveries),
            (
                "fell_behind",
                "How often a watcher had no room and left its buffer for the log",
                it.fell_behind,
            ),
            ("rejoined", "How often a watcher that read the log was fed again", it.rejoined),
            ("lost", "Events that watchers were told they had lost", it.lost),
            ("expired", "Entries whose time to live ended, in commits of this process", it.expired),
        ] {
            let counter = to.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(counter)?;
        }
        let help = "How long after their deadlines these entries went, added up";
        let lateness =
            to.encode_descriptor("expiry_lateness", help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(it.lateness.as_secs_f64()).encode(lateness)
    }

    fn gauges(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let it = &self.figures;
        let mut gauge = |name, help, unit: Option<Unit>, value: u64| {
            let gauge = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)
        };
        gauge("ready", "Whether /readyz says so", None, it.is_ready.into())?;
        gauge("watchers", "Watchers of the library", None, it.counters.watchers)?;
        gauge("subscriptions", "Streams, and subscriptions of WebSockets", None, it.subscriptions)?;
        gauge("websockets", "WebSocket connections", None, it.sockets)?;
        gauge("rings", "Rings: one for each filter that has subscriptions", None, it.rings)?;
        let held = "What all rings and their clients hold of changes, about";
        gauge("rings", held, Some(Unit::Bytes), it.ring_bytes)?;
        let Some(stats) = &it.stats else { return Ok(()) };
        gauge("entries", "Entries that are not due", None, stats.entries)?;
        gauge("groups", "Groups", None, stats.groups)?;
        gauge("last_revision", "The last revision", None, stats.last_revision.get())?;
        gauge("log_events", "Events in the change log", None, stats.log_events)?;
        gauge("log", "Names and values in the change log", Some(Unit::Bytes), stats.log_bytes)?;
        gauge("file", "The file", Some(Unit::Bytes), stats.file_bytes)?;
        gauge("wal", "The write-ahead log of the file", Some(Unit::Bytes), stats.wal_bytes)
    }

    fn requests(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let many = |took: &[AtomicU64]| took.iter().map(|many| many.load(Ordering::Relaxed)).sum::<u64>();
        let help = "Requests that were answered, by route and class of status";
        let mut family = to.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for answers in &self.metrics.answers {
            for (status, took) in STATUSES.iter().zip(&answers.took).filter(|(_, took)| many(*took) > 0) {
                let labels = [("route", answers.route.as_str()), ("status", status)];
                ConstCounter::new(many(took)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "How long it took until the answer began";
        let seconds = Some(&Unit::Seconds);
        let mut family = to.encode_descriptor("request_duration", help, seconds, MetricType::Histogram)?;
        let steps = LATENCIES.iter().map(|step| step.as_secs_f64()).chain([f64::INFINITY]);
        for answers in &self.metrics.answers {
            let at = |step: usize| {
                let took = answers.took.iter().filter_map(|took| took.get(step));
                took.map(|many| many.load(Ordering::Relaxed)).sum::<u64>()
            };
            let buckets: Vec<_> = steps.clone().enumerate().map(|(step, upto)| (upto, at(step))).collect();
            let count = buckets.iter().map(|(_, many)| many).sum();
            if count > 0 {
                let sum = Duration::from_micros(answers.micros.load(Ordering::Relaxed)).as_secs_f64();
                let labels = [("route", answers.route.as_str())];
                let mut histogram = family.encode_family(&labels)?;
                histogram.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn refusals(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Refusals by the kind of their problem";
        let mut family = to.encode_descriptor("refusals", help, None, MetricType::Counter)?;
        let refusals = self.metrics.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not HTTP reaches no route, so it is counted by its connection.
        let malformed = ("malformed", self.metrics.reached.malformed());
        for (kind, many) in refusals.iter().map(|(kind, many)| (kind.as_str(), *many)).chain([malformed]) {
            ConstCounter::new(many).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }

    fn reached(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How often each limit that can be set was reached, whether or not somebody was answered";
        let mut family = to.encode_descriptor("limits_reached", help, None, MetricType::Counter)?;
        for (limit, many) in self.metrics.reached.snapshot() {
            ConstCounter::new(many).encode(family.encode_family(&[("limit", limit)])?)?;
        }
        Ok(())
    }
}

impl Collector for Report {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.counters(&mut to)?;
        self.gauges(&mut to)?;
        self.requests(&mut to)?;
        self.refusals(&mut to)?;
        self.reached(&mut to)
    }
}
