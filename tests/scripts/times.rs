//! Times as a reader needs them: relative to the calls of the fixture, so that each run shows the same.

/// Durations that the library chooses by itself: of a task that its worker does not know, statistics, mailboxes, the wish to be told, what is stuck, a
/// schedule's wish to be told, and a wait of a task, or what it keeps; what people did.
const OWN_DURATIONS_MS: [i64; 8] =
    [1_000, 7_200_000, 600_000, 3_600_000, 10_000, 604_800_000, 7_776_000_000, 31_536_000_000];
/// Until when somebody waits is noted for so much longer.
const NOTED_AHEAD_MS: i64 = 3_600_000;
/// Numbers further away than this from now are no times.
const NEAR_MS: i64 = 400 * 24 * 3_600_000;
/// An expiry is read as the time that is left, which is a little less exact; a script that schedules at an expiry does so too.
const TOLERANCE_MS: i64 = 2;
/// Between two calls, so that a time belongs to one of them.
const MARGIN_MS: i64 = 4;

#[derive(Default)]
pub struct Times {
    calls: Vec<Moment>,
    /// A call came later than it was meant to, and its time may be mistaken for another's.
    pub clash: bool,
}

/// One call of the fixture: when it ran, and the durations it was given.
struct Moment {
    name: String,
    from: i64,
    to: i64,
    offsets: Vec<i64>,
}

impl Times {
    pub fn add(&mut self, name: String, from: i64, to: i64, durations: &[i64]) {
        let mut offsets = vec![0];
        offsets.extend(durations);
        offsets.extend(OWN_DURATIONS_MS);
        offsets.extend(durations.iter().chain(&OWN_DURATIONS_MS).map(|ms| ms + NOTED_AHEAD_MS));
        let clash = self.meant().any(|(other_from, other_to)| from <= other_to && other_from <= to);
        self.clash |= clash;
        self.calls.push(Moment { name, from, to, offsets });
    }

    /// Time passed: all that was lies further back.
    pub fn pass(&mut self, ms: i64) {
        for call in &mut self.calls {
            call.from -= ms;
            call.to -= ms;
        }
    }

    /// Whether a call at this time could be mistaken for what an earlier one meant.
    pub fn is_taken(&self, time: i64) -> bool {
        self.meant().any(|(from, to)| (from - MARGIN_MS..=to + MARGIN_MS).contains(&time))
    }

    /// All the times that the calls so far may have written.
    fn meant(&self) -> impl Iterator<Item = (i64, i64)> {
        self.calls.iter().flat_map(|call| call.offsets.iter().map(|offset| (call.from + offset, call.to + offset)))
    }

    /// `<now>`, `<now+1000>`, `<given 2>` …
    pub fn name(&self, time: i64) -> String {
        self.find(time, TOLERANCE_MS).unwrap_or_else(|| format!("<unexplained {time}>"))
    }

    /// When a key ends. A script sets that by the time that is left: it is later by as much as the server was held up meanwhile.
    pub fn expiry(&self, time: i64) -> String {
        let slowest = self.calls.iter().map(|moment| moment.to - moment.from).max().unwrap_or(0);
        self.find(time, TOLERANCE_MS)
            .or_else(|| self.find(time, TOLERANCE_MS + slowest))
            .unwrap_or_else(|| self.name(time))
    }

    /// A wait that the newest call answered, as the time when it is over.
    pub fn until(&self, wait_ms: i64) -> String {
        let (from, to) = self.calls.last().map_or((0, 0), |moment| (moment.from, moment.to));
        let over = self.find(to + wait_ms, to - from + TOLERANCE_MS);
        format!("until {}", over.unwrap_or_else(|| format!("<unexplained {wait_ms}>")))
    }

    fn find(&self, time: i64, tolerance: i64) -> Option<String> {
        let distance = |moment: &Moment, offset: i64| {
            let at = time - offset;
            (moment.from - at).max(at - moment.to).max(0)
        };
        // A call that took long covers times by chance.
        let breadth = |moment: &Moment| (moment.to - moment.from) / 5;
        // Of those that explain it as well: the newest call, and the plainest of its offsets.
        let best = self
            .calls
            .iter()
            .rev()
            .flat_map(|moment| moment.offsets.iter().map(move |offset| (moment, *offset)))
            .min_by_key(|(moment, offset)| (distance(moment, *offset), breadth(moment)))
            .filter(|(moment, offset)| distance(moment, *offset) <= tolerance)?;
        Some(match best {
            (moment, 0) => format!("<{}>", moment.name),
            (moment, offset) => format!("<{}{offset:+}>", moment.name),
        })
    }

    /// Every time in a text by its name.
    pub fn normalise(&self, text: &str) -> String {
        let newest = self.calls.last().map_or(0, |moment| moment.to);
        replace(text, newest, |time| self.name(time))
    }
}

/// A text with something else for every time in it.
pub fn replace(text: &str, now_ms: i64, mut shown: impl FnMut(i64) -> String) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].bytes().take_while(u8::is_ascii_digit).count();
        let end = start + digits;
        replaced.push_str(&rest[..start]);
        let number = &rest[start..end];
        let time = (digits == 13).then(|| number.parse().unwrap_or(0)).filter(|t: &i64| (t - now_ms).abs() < NEAR_MS);
        match time {
            Some(time) => replaced.push_str(&shown(time)),
            None => replaced.push_str(number),
        }
        rest = &rest[end..];
    }
    replaced + rest
}
