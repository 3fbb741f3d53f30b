//! The metrics in the text format that Prometheus reads.
//!
//! Owns: names, help and labels of all metrics. Must not know: where the figures come from.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::queue::State;
use super::{Watched, why_not_ready};
use crate::engine::observer::{BOUNDS_MS, Histogram, Seen};
use crate::wire::connection;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Places whose tasks could run now, or do; those that wait for their limits cannot.
const WANTED: [&str; 3] = ["queued", "running", "overdue"];

/// All metrics of what is watched.
pub async fn render(watched: &[Watched]) -> String {
    let mut text = Text::default();
    let (open, made) = connection::counted();
    text.gauge("connections", "Connections to servers that are open.", &[], open as f64);
    text.counter("connections_made_total", "Connections to servers that were made.", &[], made);
    if let Some(stall) = watched.iter().find_map(|one| one.worker.stall()) {
        let (stalls, held) = stall.counted();
        let help = "Times the event loop did not run for stall_after or longer.";
        text.counter("loop_stalls_total", help, &[], stalls);
        let help = "Stalls of the event loop in which something held the interpreter itself.";
        text.counter("interpreter_held_total", help, &[], held);
        let help = "How long the event loop has not run; 0 while it runs.";
        text.gauge("loop_stalled_seconds", help, &[], stall.stalled().as_secs_f64());
    }
    // All at once: one server that is away keeps every queue waiting as long as a single one.
    let asking: Vec<_> = watched.iter().cloned().map(|one| tokio::spawn(async move { one.asked().await })).collect();
    for (one, asking) in watched.iter().zip(asking) {
        text.worker(one);
        if let Some(observer) = one.worker.observer() {
            text.seen(&one.queue, &observer.seen());
        }
        let state = asking.await.ok().flatten();
        text.queue(&one.queue, state.as_ref());
    }
    text.finish()
}

/// The metrics of these queues alone, each with what the server says of it, for a process without workers.
pub fn render_queues(queues: &[(String, Option<State>)]) -> String {
    let mut text = Text::default();
    for (queue, state) in queues {
        text.queue(queue, state.as_ref());
    }
    text.finish()
}

/// Metrics as they are gathered, by name: all samples of one stand together.
#[derive(Default)]
struct Text {
    metrics: BTreeMap<&'static str, Metric>,
}

struct Metric {
    kind: &'static str,
    help: &'static str,
    samples: String,
}

type Labels<'a> = [(&'static str, &'a str)];

impl Text {
    fn gauge(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: f64) {
        self.sample(name, "gauge", help, labels, value);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: u64) {
        self.sample(name, "counter", help, labels, value);
    }

    fn sample(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        labels: &Labels<'_>,
        value: impl std::fmt::Display,
    ) {
        line(&mut self.metric(name, kind, help).samples, name, "", labels, value);
    }

    fn histogram(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, of: &Histogram) {
        let samples = &mut self.metric(name, "histogram", help).samples;
        let mut count = 0;
        for (at, in_bucket) in of.buckets.iter().enumerate() {
            count += in_bucket;
            let bound = BOUNDS_MS.get(at).map_or("+Inf".to_owned(), |ms| (*ms as f64 / 1000.0).to_string());
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            line(samples, name, "_bucket", &labels, count);
        }
        line(samples, name, "_sum", labels, of.sum.as_secs_f64());
        line(samples, name, "_count", labels, count);
    }

    fn metric(&mut self, name: &'static str, kind: &'static str, help: &'static str) -> &mut Metric {
        self.metrics.entry(name).or_insert_with(|| Metric { kind, help, samples: String::new() })
    }

    /// What one worker is doing.
    fn worker(&mut self, one: &Watched) {
        let figures = one.worker.figures();
        let (queue, identity) = ([("queue", one.queue.as_str())], one.worker.identity());
        let labels = [queue[0], ("worker", identity.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
        self.gauge("worker_info", "The worker of this process; always 1.", &labels, 1.0);
        for lane in one.worker.lanes() {
            let labels = [queue[0], ("lane", lane)];
            self.gauge("worker_lane", "The lanes that this worker serves; always 1.", &labels, 1.0);
        }
        let ready = f64::from(u8::from(why_not_ready(&one.worker).is_none()));
        self.gauge("ready", "1 when this worker takes tasks, else 0.", &queue, ready);
        self.gauge("concurrency", "Tasks this worker runs at once.", &queue, figures.concurrency as f64);
        self.gauge("in_flight", "Tasks this worker runs.", &queue, figures.in_flight as f64);
        self.gauge("prefetched", "Tasks this worker holds and has not started.", &queue, figures.held as f64);
        let help = "Threads that run on after their task was settled.";
        self.gauge("abandoned_threads", help, &queue, figures.abandoned_threads as f64);
        if let Some(ago) = figures.answered_ago {
            let help = "How long ago the server last renewed the lease.";
            self.gauge("lease_renewed_seconds_ago", help, &queue, ago.as_secs_f64());
        }
    }

    /// What was counted for one worker.
    fn seen(&mut self, queue: &str, seen: &Seen) {
        for series in &seen.series {
            let labels = [("queue", queue), ("task", series.task.as_str()), ("lane", series.lane.as_str())];
            for (outcome, count) in &series.outcomes {
                let labels = [labels[0], labels[1], labels[2], ("outcome", outcome.as_str())];
                self.counter("attempts_total", "Attempts of this worker that ended, by outcome.", &labels, *count);
            }
            self.histogram("run_seconds", "How long attempts ran.", &labels, &series.run);
            self.histogram("wait_seconds", "How long tasks waited before their first attempt.", &labels, &series.wait);
        }
        let labels = [("queue", queue)];
        self.counter("leases_lost_total", "Times this worker lost its lease.", &labels, seen.leases_lost);
        let help = "Attempts that ran when this worker lost its lease: others run these tasks.";
        self.counter("attempts_lost_total", help, &labels, seen.attempts_lost);
        for (reason, count) in &seen.refused {
            let labels = [labels[0], ("reason", reason.as_str())];
            let help = "Outcomes that came too late or were invalid, by reason.";
            self.counter("outcomes_refused_total", help, &labels, *count);
        }
    }

    /// What the server says of a whole queue.
    fn queue(&mut self, queue: &str, state: Option<&State>) {
        let labels = [("queue", queue)];
        let told = f64::from(u8::from(state.is_some()));
        self.gauge("queue_known", "1 if the server answered within two seconds, else 0.", &labels, told);
        let Some(state) = state else { return };
        let wanted = state.counts.iter().filter(|(name, _)| WANTED.contains(&name.as_str())).map(|(_, number)| *number);
        let help = "Slots that the queue could use: its tasks that are queued, running or overdue.";
        self.gauge("queue_wanted_slots", help, &labels, wanted.sum::<i64>() as f64);
        for (name, number) in &state.counts {
            let number = *number as f64;
            match name.split_once(':') {
                Some(("ready", lane)) => {
                    let labels = [labels[0], ("lane", lane)];
                    self.gauge("queue_lane_ready", "Tasks of the queue that are ready, by lane.", &labels, number);
                }
                Some(("limited", lane)) => {
                    let labels = [labels[0], ("lane", lane)];
                    self.gauge("queue_lane_limited", "Tasks that wait for their limits, by lane.", &labels, number);
                }
                Some(_) => {}
                None if name == "workers" => {
                    self.gauge("queue_workers", "Workers of the queue, of all processes.", &labels, number);
                }
                None => {
                    let labels = [labels[0], ("state", name.as_str())];
                    self.gauge(
                        "queue_tasks",
                        "Tasks of the queue, by state; the quarantined ones are queued, too, the overdue ones scheduled.",
                        &labels,
                        number,
                    );
                }
            }
        }
        for (lane, age) in &state.ages {
            let labels = [labels[0], ("lane", lane.as_str())];
            let help = "For how long the oldest task of a lane has been ready or limited; absent if there is none.";
            self.gauge("queue_lane_age_seconds", help, &labels, age.as_secs_f64());
        }
    }

    fn finish(&self) -> String {
        let mut text = String::new();
        for (name, Metric { kind, help, samples }) in &self.metrics {
            let _ = write!(text, "# HELP ardiq_{name} {help}\n# TYPE ardiq_{name} {kind}\n{samples}");
        }
        text
    }
}

fn line(into: &mut String, name: &str, suffix: &str, labels: &Labels<'_>, value: impl std::fmt::Display) {
    let _ = write!(into, "ardiq_{name}{suffix}");
    for (at, (label, text)) in labels.iter().enumerate() {
        let _ = write!(into, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(text));
    }
    let _ = writeln!(into, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::observer::Series;

    #[test]
    fn samples_of_a_metric_stand_together_and_labels_are_escaped() {
        let mut text = Text::default();
        for queue in ["a", "b\"\\\n"] {
            text.gauge("ready", "Help.", &[("queue", queue)], 1.0);
            text.counter("made_total", "More help.", &[], 2);
        }
        let expected = "# HELP ardiq_made_total More help.\n# TYPE ardiq_made_total counter\nardiq_made_total 2\n\
                        ardiq_made_total 2\n# HELP ardiq_ready Help.\n# TYPE ardiq_ready gauge\n\
                        ardiq_ready{queue=\"a\"} 1\nardiq_ready{queue=\"b\\\"\\\\\\n\"} 1\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_histogram_is_cumulative() {
        let mut series = Series { task: "work".to_owned(), ..Series::default() };
        (series.run.buckets[0], series.run.buckets[14], series.run.sum) = (2, 1, Duration::from_millis(400_500));
        let mut text = Text::default();
        text.seen("q", &Seen { series: vec![series], ..Seen::default() });
        let text = text.finish();
        for line in ["_bucket{queue=\"q\",task=\"work\",lane=\"\",le=\"0.005\"} 2", "le=\"300\"} 2", "le=\"+Inf\"} 3"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(text.contains("ardiq_run_seconds_sum{queue=\"q\",task=\"work\",lane=\"\"} 400.5"));
        assert!(text.contains("ardiq_run_seconds_count{queue=\"q\",task=\"work\",lane=\"\"} 3"));
    }
}
