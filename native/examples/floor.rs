//! The floor of the benchmark (`bench/`): the same fields through the same Lua without Python, on plain redis-rs.
//! Nothing here is part of Ardiq, and nothing of its connections, producer or worker is used: only the composed library.
//!
//! `floor URL MEASURE [name=value …]` prints one line of JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Value};
use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use _core::lua::library::Library;
use _core::lua::protocol::Protocol;
use _core::wire::packed::{pack, unpack};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Tasks in one call of `enqueue`, and how many such calls are under way at once.
const CHUNK: usize = 250;
const IN_FLIGHT: usize = 2;
/// Tasks a worker asks for in one step.
const BATCH: usize = 100;
/// Name of a task that does nothing.
const NOOP: &str = "noop";
const LEASE_MS: u64 = 60_000;
const RESULT_TTL_MS: u64 = 300_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(measure)) = (words.next(), words.next()) else {
        return Err("usage: floor URL MEASURE [name=value …]".into());
    };
    let options = Options::parse(words)?;
    let server = Server::connect(&url, options.text("queue", "bench")).await?;
    let figures = match measure.as_str() {
        "ping" => ping(&server, &options).await?,
        "enqueue_many" => enqueue_many(&server, &options).await?,
        "enqueue_concurrent" => enqueue_concurrent(&server, &options).await?,
        "enqueue_sequential" => enqueue_sequential(&server, &options).await?,
        "drain" => drain(&server, &options).await?,
        "serve" => return serve(&server).await,
        "latency" => latency(&server, &options).await?,
        other => return Err(format!("unknown measure {other:?}").into()),
    };
    println!("{figures}");
    Ok(())
}

// ---- Measures ----

/// Round trips, one after the other.
async fn ping(server: &Server, options: &Options) -> Outcome<Json> {
    let mut samples = Vec::new();
    for _ in 0..options.number("n", 1000)? {
        options.pause().await?;
        let started = monotonic_ns();
        server.query::<Value>(&redis::cmd("PING")).await?;
        samples.push(monotonic_ns() - started);
    }
    Ok(json!({ "round_trip_us": percentiles(samples) }))
}

/// Tasks in chunks of 250, two calls under way. `task`: its name; `size`: bytes of its arguments; `delay_ms`: schedule it.
async fn enqueue_many(server: &Server, options: &Options) -> Outcome<Json> {
    let n = options.number("n", 20_000)?;
    let (name, args) = (options.text("task", NOOP), arguments(options.number("size", 0)?));
    let plan = match options.number("delay_ms", 0)? {
        0 => String::new(),
        delay_ms => json!({ "delay_ms": delay_ms }).to_string(),
    };
    let mut ids = Ids::new();
    let started = Usage::now();
    let mut calls = JoinSet::new();
    for first in (0..n).step_by(CHUNK) {
        let mut call = server.call("enqueue");
        let new: Vec<String> = (first..n.min(first + CHUNK)).map(|_| ids.next()).collect();
        let fields = new.iter().flat_map(|id| [id, name, "default", &args, "", &plan].map(str::as_bytes));
        records(&mut call, &fields.collect::<Vec<_>>());
        if calls.len() == IN_FLIGHT {
            calls.join_next().await.expect("not empty")??;
        }
        let server = server.clone();
        calls.spawn(async move { expect_queued(redis::from_redis_value(unpacked(server.query(&call).await?))?) });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(started.figures(n))
}

/// As many callers as tasks, each awaiting its own; what is asked for meanwhile leaves in one call.
async fn enqueue_concurrent(server: &Server, options: &Options) -> Outcome<Json> {
    let n = options.number("n", 20_000)?;
    let (requests, inbox) = mpsc::unbounded_channel();
    tokio::spawn(collect(server.clone(), inbox));
    let mut ids = Ids::new();
    let started = Usage::now();
    let mut callers = JoinSet::new();
    for _ in 0..n {
        let (id, requests) = (ids.next(), requests.clone());
        callers.spawn(async move {
            let (answer, answered) = oneshot::channel();
            requests.send((id, answer)).expect("the collector lives");
            answered.await
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(started.figures(n))
}

type Request = (String, oneshot::Sender<String>);

async fn collect(server: Server, mut inbox: mpsc::UnboundedReceiver<Request>) -> Outcome<()> {
    let mut requests: Vec<Request> = Vec::new();
    let mut calls = JoinSet::new();
    while inbox.recv_many(&mut requests, CHUNK).await > 0 {
        let mut call = server.call("enqueue");
        for (id, _) in &requests {
            task(&mut call, id, NOOP, "[]", "");
        }
        if calls.len() == IN_FLIGHT {
            calls.join_next().await;
        }
        let (server, callers) = (server.clone(), std::mem::take(&mut requests));
        calls.spawn(async move {
            let answers: Vec<String> = server.query(&call).await?;
            for ((_, caller), answer) in callers.into_iter().zip(answers) {
                let _ = caller.send(answer);
            }
            Ok::<_, redis::RedisError>(())
        });
    }
    Ok(())
}

/// One task after the other, each awaited.
async fn enqueue_sequential(server: &Server, options: &Options) -> Outcome<Json> {
    let n = options.number("n", 5000)?;
    let mut ids = Ids::new();
    let started = Usage::now();
    for _ in 0..n {
        let mut call = server.call("enqueue");
        task(&mut call, &ids.next(), NOOP, "[]", "");
        expect_queued(server.query(&call).await?)?;
    }
    Ok(started.figures(n))
}

/// A worker that empties the queue in batches of 100, one step under way.
async fn drain(server: &Server, options: &Options) -> Outcome<Json> {
    let batch = options.number("batch", BATCH)?;
    let mut worker = Worker::join(server).await?;
    let mut done = 0;
    let mut outcomes = Vec::new();
    let started = Usage::now();
    loop {
        done += outcomes.len();
        let claims = worker.step(&outcomes, batch).await?;
        if claims.is_empty() && outcomes.is_empty() {
            break;
        }
        outcomes = claims.into_iter().map(|claim| claim.finished("null")).collect();
    }
    let figures = started.figures(done);
    worker.leave().await?;
    Ok(figures)
}

/// A worker that sleeps until it is woken; the result of each task is the monotonic time at which it ran, in ns.
async fn serve(server: &Server) -> Outcome<()> {
    let mut worker = Worker::join(server).await?;
    let mut wake = redis::cmd("BLPOP");
    wake.arg(&worker.wake).arg(5);
    println!("{}", json!({ "worker": worker.name }));
    let mut outcomes = Vec::new();
    loop {
        let claims = worker.step(&outcomes, BATCH).await?;
        outcomes = claims.into_iter().map(|claim| claim.finished(&monotonic_ns().to_string())).collect();
        if outcomes.is_empty() {
            worker.blocking.query::<Value>(&wake).await?;
        }
    }
}

/// From before a task is enqueued until its body runs in `serve`, and until its result is here; one at a time.
async fn latency(server: &Server, options: &Options) -> Outcome<Json> {
    let mailbox = format!("floor-{}", std::process::id());
    let key = Protocol::get().key("mailbox", &server.base, &mailbox);
    let (letters, mut inbox) = mpsc::unbounded_channel();
    let blocking = server.again().await?;
    tokio::spawn(async move {
        let mut read = redis::cmd("BLPOP");
        read.arg(key).arg(0);
        while let Ok((_, letter)) = blocking.query::<(String, Vec<u8>)>(&read).await {
            if letters.send(letter).is_err() {
                break;
            }
        }
    });
    let plan = json!({ "waiter": mailbox }).to_string();
    let (mut body, mut result) = (Vec::new(), Vec::new());
    let mut ids = Ids::new();
    for _ in 0..options.number("n", 1000)? {
        options.pause().await?;
        let started = monotonic_ns();
        let mut call = server.call("enqueue");
        task(&mut call, &ids.next(), NOOP, "[]", &plan);
        expect_queued(server.query(&call).await?)?;
        let letter = inbox.recv().await.ok_or("the mailbox was closed")?;
        let finished = monotonic_ns();
        let fields = netstrings(&letter);
        let ran: u64 = std::str::from_utf8(fields.last().ok_or("an empty message")?)?.parse()?;
        body.push(ran - started);
        result.push(finished - started);
    }
    Ok(json!({ "body_us": percentiles(body), "result_us": percentiles(result) }))
}

// ---- A worker ----

struct Worker {
    server: Server,
    blocking: Server,
    name: String,
    /// The keys to block on.
    wake: Vec<String>,
    seq: u64,
}

struct Claim {
    id: Vec<u8>,
    token: Vec<u8>,
}

struct Finished {
    claim: Claim,
    value: String,
}

impl Claim {
    fn finished(self, value: &str) -> Finished {
        Finished { claim: self, value: value.to_owned() }
    }
}

impl Worker {
    async fn join(server: &Server) -> Outcome<Self> {
        let name = format!("floor:{}", std::process::id());
        let mut call = server.call("join");
        call.arg(&name).arg(LEASE_MS).arg("{}").arg(r#"["default"]"#).arg(1);
        let wake = server.query(&call).await?;
        Ok(Self { blocking: server.again().await?, server: server.clone(), name, wake, seq: 0 })
    }

    async fn step(&mut self, outcomes: &[Finished], want: usize) -> Outcome<Vec<Claim>> {
        self.seq += 1;
        let mut call = self.server.call("step");
        call.arg(&self.name).arg(self.seq).arg(LEASE_MS).arg(RESULT_TTL_MS).arg(r#"["default"]"#).arg(want).arg(0);
        let fields = outcomes.iter().flat_map(|Finished { claim, value }| {
            [&claim.id, &claim.token, &b"complete"[..], b"0", value.as_bytes(), b""]
        });
        records(&mut call, &fields.collect::<Vec<_>>());
        let Value::Array(reply) = unpacked(self.server.query(&call).await?) else {
            return Err("step answered no array".into());
        };
        if reply.get(2) != Some(&Value::Int(0)) {
            return Err(format!("step refused: {reply:?}").into());
        }
        let mut fields = reply.into_iter().skip(3).map(|field| match field {
            Value::BulkString(bytes) => bytes,
            other => format!("{other:?}").into_bytes(),
        });
        let mut claims = Vec::with_capacity(want);
        while let (Some(id), Some(token)) = (fields.next(), fields.next()) {
            fields.by_ref().take(8).for_each(drop);
            claims.push(Claim { id, token });
        }
        Ok(claims)
    }

    async fn leave(self) -> Outcome<()> {
        let mut call = self.server.call("leave");
        call.arg(&self.name).arg(RESULT_TTL_MS);
        Ok(self.server.query::<Value>(&call).await.map(drop)?)
    }
}

// ---- The server ----

#[derive(Clone)]
struct Server {
    client: Client,
    connection: MultiplexedConnection,
    base: String,
}

impl Server {
    async fn connect(url: &str, queue: &str) -> Outcome<Self> {
        let client = Client::open(url)?;
        let connection = Self::open(&client).await?;
        let server = Self { client, connection, base: format!("ardiq:{{{queue}}}:") };
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg(Library::get().payload());
        match server.query::<Value>(&load).await {
            Err(error) if !error.to_string().contains("already exists") => Err(error.into()),
            _ => Ok(server),
        }
    }

    async fn open(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// The same on a connection of its own, for blocking commands.
    async fn again(&self) -> Outcome<Self> {
        Ok(Self { connection: Self::open(&self.client).await?, ..self.clone() })
    }

    fn call(&self, function: &str) -> Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg(&Protocol::get().function(function).expect("declared").server_name).arg(1).arg(&self.base);
        call
    }

    async fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> redis::RedisResult<T> {
        cmd.query_async(&mut self.connection.clone()).await
    }
}

/// Records of six fields as Ardiq sends them: many of them are one argument.
fn records(call: &mut Cmd, fields: &[&[u8]]) {
    if fields.len() < 4 * 6 {
        call.arg(fields);
    } else {
        call.arg(pack(fields.iter().copied(), 0));
    }
}

/// A reply, which came as one text where the records did.
fn unpacked(reply: Value) -> Value {
    match reply {
        Value::BulkString(packed) => unpack(&packed).unwrap_or(Value::Nil),
        reply => reply,
    }
}

/// One record of `enqueue`.
fn task(call: &mut Cmd, id: &str, name: &str, args: &str, plan: &str) {
    call.arg(id).arg(name).arg("default").arg(args).arg("").arg(plan);
}

fn expect_queued(answers: Vec<String>) -> Outcome<()> {
    match answers.iter().find(|answer| !matches!(answer.as_str(), "queued" | "scheduled")) {
        None => Ok(()),
        Some(answer) => Err(format!("enqueue answered {answer}").into()),
    }
}

/// A JSON array of one text that is `size` bytes long in all, or an empty one.
fn arguments(size: usize) -> String {
    if size < 4 { "[]".to_owned() } else { format!("[\"{}\"]", "x".repeat(size - 4)) }
}

fn netstrings(mut message: &[u8]) -> Vec<&[u8]> {
    let mut fields = Vec::new();
    while let Some(colon) = message.iter().position(|&b| b == b':') {
        let length: usize = std::str::from_utf8(&message[..colon]).expect("digits").parse().expect("a length");
        fields.push(&message[colon + 1..colon + 1 + length]);
        message = &message[colon + length + 2..];
    }
    fields
}

/// Ids of the length and alphabet of Ardiq's own.
struct Ids {
    state: u64,
}

impl Ids {
    fn new() -> Self {
        Self { state: monotonic_ns() ^ u64::from(std::process::id()) << 48 }
    }

    fn next(&mut self) -> String {
        let mut id = String::with_capacity(20);
        for _ in 0..2 {
            // splitmix64
            self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut bits = self.state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            bits ^= bits >> 31;
            for at in 0..10 {
                id.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits >> (5 * at)) as usize % 32]));
            }
        }
        id
    }
}

// ---- Measuring ----

struct Usage {
    at: Instant,
    cpu: Duration,
}

impl Usage {
    fn now() -> Self {
        Self { at: Instant::now(), cpu: cpu_time() }
    }

    fn figures(&self, n: usize) -> Json {
        let cpu = cpu_time() - self.cpu;
        json!({ "n": n, "seconds": self.at.elapsed().as_secs_f64(), "cpu_seconds": cpu.as_secs_f64() })
    }
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// The clock that Python calls `time.monotonic_ns`.
fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC).as_nanos() as u64
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Unix, and `time` is a valid place to write to.
    assert_eq!(unsafe { libc::clock_gettime(id, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// In microseconds.
fn percentiles(mut samples: Vec<u64>) -> Json {
    samples.sort_unstable();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99) })
}

struct Options(BTreeMap<String, String>);

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Outcome<Self> {
        let pair = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        words.map(pair).collect::<Option<_>>().map(Self).ok_or_else(|| "options are name=value".into())
    }

    fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    fn number(&self, name: &str, default: usize) -> Outcome<usize> {
        self.0.get(name).map_or(Ok(default), |text| Ok(text.parse()?))
    }

    /// Between two samples, so that everybody has gone to sleep.
    async fn pause(&self) -> Outcome<()> {
        let pause = self.number("pause_us", 0)?;
        if pause > 0 {
            tokio::time::sleep(Duration::from_micros(pause as u64)).await;
        }
        Ok(())
    }
}
