//! The worker's loop against a real server, with everything that can go wrong between them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use _core::call::dispatch::Dispatcher;
use _core::engine::claims::Claim;
use _core::engine::events::{Event, Inbox};
use _core::engine::outcomes::{COMPLETE, Outcome, Outcomes};
use _core::engine::worker::{Config, Worker};
use redis::Value;
use tokio::task::JoinHandle;

use super::server::Server;
use super::{BASE, command, text};

const KEEP_MS: &str = "60000";

/// A worker whose tasks this test starts and settles.
struct Desk {
    worker: Worker,
    inbox: Arc<Inbox>,
    life: JoinHandle<()>,
    events: Vec<Event>,
    /// What was started and is not settled.
    started: Vec<Claim>,
    runs: BTreeMap<String, u32>,
}

fn config() -> Config {
    Config {
        label: "w".to_owned(),
        info: "{}".to_owned(),
        lanes: vec!["default".into()],
        concurrency: 4,
        prefetch: None,
        lease: Duration::from_secs(20),
        poll_block: Duration::from_secs(2),
        result_ttl_ms: 60_000,
        max_lost: 3,
        burst: false,
        give_up_after: None,
        thread_tasks: HashSet::from([b"threaded".to_vec()]),
        batch_tasks: HashSet::new(),
        pool_share: None,
        observer: None,
        stall: None,
    }
}

fn dispatcher(server: &Server) -> Dispatcher {
    Dispatcher::new(server.link(), BASE)
}

impl Desk {
    fn open(server: &Server, config: Config) -> Self {
        let inbox = Arc::new(Inbox::new().unwrap());
        let worker = Worker::new(dispatcher(server), inbox.clone(), None, config);
        let life = tokio::spawn(worker.clone().run());
        Self { worker, inbox, life, events: Vec::new(), started: Vec::new(), runs: BTreeMap::new() }
    }

    /// Looks at what happened and starts what there is.
    async fn turn(&mut self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.events.extend(self.inbox.take().into_iter().map(|(_, event)| event));
        for claim in self.worker.take(usize::MAX) {
            *self.runs.entry(String::from_utf8(claim.id.clone()).unwrap()).or_default() += 1;
            self.started.push(claim);
        }
    }

    fn settle_all(&mut self) {
        let mut outcomes = Outcomes::default();
        for claim in self.started.drain(..) {
            let (id, token) = (claim.id.as_slice(), claim.token);
            outcomes.push(&Outcome { id, token, outcome: COMPLETE, run_ms: 0, value: b"null", details: b"" });
        }
        if !outcomes.is_empty() {
            self.worker.settle(outcomes, 0);
        }
    }

    async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}: {:?}", self.events);
            self.turn().await;
        }
    }

    /// Runs what comes until so many different tasks have run.
    async fn run(&mut self, tasks: usize) {
        self.until("all tasks to run", |desk| {
            desk.settle_all();
            desk.runs.len() >= tasks
        })
        .await;
        self.settle_all();
    }

    async fn stop(&mut self) {
        self.worker.stop();
        self.until("the worker to stop", |desk| desk.worker.has_ended()).await;
        self.turn().await;
        assert!(matches!(self.events.last(), Some(Event::Stopped)), "{:?}", self.events);
    }

    fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.life.abort();
    }
}

async fn enqueue(calls: &Dispatcher, ids: std::ops::Range<usize>, name: &str, options: &str) {
    let ids: Vec<_> = ids.collect();
    for some in ids.chunks(500) {
        let mut request = calls.request("enqueue").unwrap();
        for id in some {
            for field in [&format!("t{id}"), name, "default", "[]", "", options] {
                request.arg(field.as_bytes());
            }
        }
        calls.send(&request).await.unwrap();
    }
}

async fn state(calls: &Dispatcher, id: &str) -> String {
    text(&command(calls.link(), &["HGET", &format!("{BASE}task:{id}"), "state"]).await)
}

/// How many tasks are where.
async fn count(calls: &Dispatcher, place: &str) -> i64 {
    let Value::Array(items) = calls.call::<&str>("counts", &[]).await.unwrap() else { panic!("counts") };
    let found = items.chunks(2).find(|pair| text(&pair[0]) == place);
    match found.map(|pair| &pair[1]) {
        Some(Value::Int(number)) => *number,
        other => panic!("{place}: {other:?}"),
    }
}

async fn settled(calls: &Dispatcher, tasks: usize) {
    let start = Instant::now();
    while count(calls, "running").await + count(calls, "queued").await > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "not all is settled");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for id in 0..tasks {
        assert_eq!(state(calls, &format!("t{id}")).await, "complete");
    }
}

#[tokio::test]
async fn every_task_runs_once_and_is_settled() {
    let server = Server::start();
    let calls = dispatcher(&server);
    enqueue(&calls, 0..700, "task", "").await;
    let mut desk = Desk::open(&server, Config { burst: true, ..config() });
    desk.run(700).await;
    desk.until("the end of the burst", |desk| desk.has(|event| matches!(event, Event::Idle))).await;
    desk.stop().await;
    settled(&calls, 700).await;
    assert!(desk.runs.values().all(|&runs| runs == 1));
    assert_eq!(count(&calls, "workers").await, 0);
}

#[tokio::test]
async fn an_idle_worker_is_woken_at_once() {
    let server = Server::start();
    let calls = dispatcher(&server);
    let mut desk = Desk::open(&server, config());
    enqueue(&calls, 0..1, "task", "").await;
    desk.run(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    enqueue(&calls, 1..2, "task", "").await;
    desk.run(2).await;
    settled(&calls, 2).await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_due_time_is_kept() {
    let server = Server::start();
    let calls = dispatcher(&server);
    let mut desk = Desk::open(&server, config());
    let mut late = Vec::new();
    // A heartbeat would notice within a second; the best of some tries shows that nobody waited for it.
    for id in 0..3 {
        let start = Instant::now();
        enqueue(&calls, id..id + 1, "task", r#"{"delay_ms": 300}"#).await;
        desk.run(id + 1).await;
        late.push(start.elapsed().checked_sub(Duration::from_millis(300)).expect("not before it is due"));
    }
    assert!(late.iter().any(|late| *late < Duration::from_millis(200)), "{late:?}");
}

#[tokio::test]
async fn broken_connections_lose_and_repeat_nothing() {
    let server = Server::start();
    let calls = dispatcher(&server);
    enqueue(&calls, 0..1500, "task", "").await;
    let mut desk = Desk::open(&server, config());
    let mut killed = Instant::now();
    desk.until("all tasks to run", |desk| {
        desk.settle_all();
        if killed.elapsed() > Duration::from_millis(30) {
            killed = Instant::now();
            let link = server.link();
            tokio::spawn(async move { command(&link, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await });
        }
        desk.runs.len() == 1500
    })
    .await;
    desk.settle_all();
    tokio::time::sleep(Duration::from_millis(200)).await;
    settled(&calls, 1500).await;
    assert!(desk.runs.values().all(|&runs| runs == 1));
    assert!(
        !desk
            .has(|event| matches!(event, Event::Lost { .. } | Event::Settled { refused: true, .. } | Event::Failed(_)))
    );
}

#[tokio::test]
async fn a_restart_of_the_server_is_survived() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    enqueue(&dispatcher(&server), 0..100, "task", "").await;
    let mut desk = Desk::open(&server, config());
    desk.until("some to be started", |desk| !desk.started.is_empty()).await;
    server.kill();
    desk.settle_all();
    desk.until("the outage to be told", |desk| desk.has(|event| matches!(event, Event::Log(..)))).await;
    server.restart();
    desk.run(100).await;
    settled(&dispatcher(&server), 100).await;
    assert!(desk.runs.values().all(|&runs| runs == 1));
}

#[tokio::test]
async fn a_lost_lease_is_told_and_another_identity_taken() {
    let server = Server::start();
    let calls = dispatcher(&server);
    enqueue(&calls, 0..2, "task", "").await;
    let mut desk = Desk::open(&server, config());
    desk.until("both to be started", |desk| desk.started.len() == 2).await;
    let (identity, tokens) = (desk.worker.identity(), desk.started.iter().map(|claim| claim.token).max());
    // As if it had been reaped.
    calls.call("leave", &[identity.as_str(), KEEP_MS]).await.unwrap();
    let lost = |event: &Event| matches!(event, Event::Lost { up_to, message } if Some(*up_to) == tokens && !message.is_empty());
    desk.until("the loss to be told", |desk| desk.has(lost)).await;
    assert_ne!(desk.worker.identity(), identity);
    // The late end of the first attempts changes nothing, is not spoken of, and makes room for the second.
    desk.run(2).await;
    desk.until("a second run", |desk| {
        desk.settle_all();
        desk.runs.values().all(|&runs| runs == 2)
    })
    .await;
    settled(&calls, 2).await;
}

#[tokio::test]
async fn a_stop_hands_back_what_was_not_started_and_waits_for_what_was() {
    let server = Server::start();
    let calls = dispatcher(&server);
    enqueue(&calls, 0..100, "task", "").await;
    let mut desk = Desk::open(&server, config());
    desk.run(50).await;
    desk.until("some to be started", |desk| !desk.started.is_empty()).await;
    let started = desk.started.len() as i64;
    desk.worker.stop();
    let start = Instant::now();
    while count(&calls, "running").await != started {
        assert!(start.elapsed() < Duration::from_secs(5), "what was not started is still held");
        desk.turn().await;
    }
    assert!(!desk.worker.has_ended());
    desk.settle_all();
    desk.stop().await;
    assert_eq!((count(&calls, "running").await, count(&calls, "workers").await), (0, 0));
    assert_eq!(count(&calls, "queued").await, 100 - desk.runs.len() as i64);
}

#[tokio::test]
async fn a_wish_to_abort_arrives() {
    let server = Server::start();
    let calls = dispatcher(&server);
    enqueue(&calls, 0..1, "task", "").await;
    let mut desk = Desk::open(&server, Config { concurrency: 1, ..config() });
    desk.until("the task to be started", |desk| !desk.started.is_empty()).await;
    calls.call("abort", &["t0", KEEP_MS]).await.unwrap();
    desk.until("the wish", |desk| desk.has(|event| matches!(event, Event::Abort(1)))).await;
}

#[tokio::test]
async fn what_is_aborted_before_it_was_started_never_starts() {
    let server = Server::start();
    let calls = dispatcher(&server);
    let desk = Desk::open(&server, config());
    enqueue(&calls, 0..1, "task", "").await;
    while state(&calls, "t0").await != "running" {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    calls.call("abort", &["t0", KEEP_MS]).await.unwrap();
    while state(&calls, "t0").await != "aborted" {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(desk.worker.take(1).is_empty());
}

#[tokio::test]
async fn tasks_that_a_busy_loop_does_not_come_for_go_to_others() {
    let server = Server::start();
    let calls = dispatcher(&server);
    let busy = Desk::open(&server, config());
    enqueue(&calls, 0..3, "task", "").await;
    while count(&calls, "running").await != 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut other = Desk::open(&server, config());
    other.run(3).await;
    settled(&calls, 3).await;
    assert!(busy.worker.take(9).is_empty());
}

#[tokio::test]
async fn threads_wait_for_their_tasks() {
    let server = Server::start();
    let calls = dispatcher(&server);
    let desk = Desk::open(&server, config());
    let waiting = std::thread::spawn({
        let worker = desk.worker.clone();
        move || worker.take_for_thread(Duration::from_secs(10))
    });
    enqueue(&calls, 0..1, "threaded", "").await;
    while !waiting.is_finished() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(waiting.join().unwrap().expect("a task").id, b"t0");
    let waiting = std::thread::spawn({
        let worker = desk.worker.clone();
        move || worker.take_for_thread(Duration::from_secs(10))
    });
    desk.worker.end();
    assert!(waiting.join().unwrap().is_none());
}

#[tokio::test]
async fn a_worker_waits_for_its_server_and_stops_without_it() {
    let mut server = Server::start();
    server.kill();
    let mut desk = Desk::open(&server, config());
    desk.until("the outage to be told", |desk| desk.has(|event| matches!(event, Event::Log(..)))).await;
    let mut stopped = Desk::open(&server, config());
    stopped.stop().await;
    server.restart();
    enqueue(&dispatcher(&server), 0..1, "task", "").await;
    desk.run(1).await;
    settled(&dispatcher(&server), 1).await;
}

#[tokio::test]
async fn what_is_wrong_from_the_start_is_an_error() {
    let server = Server::start();
    command(&server.link(), &["SET", &format!("{BASE}workers"), "x"]).await;
    let mut desk = Desk::open(&server, config());
    desk.until("the error", |desk| desk.has(|event| matches!(event, Event::Failed(error) if error.is("WRONG_TYPE"))))
        .await;
    assert!(desk.worker.has_ended());
}

#[tokio::test]
async fn who_leaves_while_it_blocks_takes_no_token_along() {
    let server = Server::start();
    let calls = dispatcher(&server);
    // A token that is lost would be missed for longer than the test waits.
    let patient = || Config { concurrency: 1, poll_block: Duration::from_secs(60), ..config() };
    let mut stays = Desk::open(&server, patient());
    for round in 0..60 {
        // Blocked clients are served first come, first served: the one that leaves came first.
        let mut leaves = Desk::open(&server, patient());
        blocked(&server, 2).await;
        let id = format!("warm{round}");
        enqueue_one(&calls, &id).await;
        while !(stays.runs.contains_key(&id) || leaves.runs.contains_key(&id)) {
            stays.turn().await;
            leaves.turn().await;
        }
        stays.settle_all();
        leaves.settle_all();
        blocked(&server, 2).await;

        let id = format!("t{round}");
        tokio::join!(async { leaves.worker.stop() }, async {
            tokio::time::sleep(Duration::from_micros(30 * round)).await;
            enqueue_one(&calls, &id).await;
        });
        let start = Instant::now();
        while !(stays.runs.contains_key(&id) || leaves.runs.contains_key(&id)) {
            assert!(start.elapsed() < Duration::from_secs(20), "round {round}: nobody was woken");
            stays.turn().await;
            leaves.turn().await;
        }
        leaves.settle_all();
        stays.settle_all();
        leaves.until("the worker to stop", |desk| desk.worker.has_ended()).await;
    }
}

async fn enqueue_one(calls: &Dispatcher, id: &str) {
    calls.call("enqueue", &[id, "task", "default", "[]", "", ""]).await.unwrap();
}

/// Waits until so many workers block on the wake lists, besides those that block on their mailboxes.
async fn blocked(server: &Server, workers: usize) {
    let link = server.link();
    let start = Instant::now();
    loop {
        let clients = text(&command(&link, &["CLIENT", "LIST"]).await);
        let blocked = clients.lines().filter(|line| line.contains("cmd=blpop") && line.contains("flags=b")).count();
        if blocked == 2 * workers {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "they do not block:\n{clients}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
