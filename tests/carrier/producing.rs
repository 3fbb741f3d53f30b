//! Batching and the mailbox against a real server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use _core::call::args::Args;
use _core::call::dispatch::Dispatcher;
use _core::engine::events::{Event, Inbox};
use _core::engine::mailbox;
use _core::engine::producer::{self, Chunk, Outgoing, Pending};
use _core::lua::protocol::{Function, Protocol};
use _core::wire::connection::{Connector, Link, Options};
use _core::wire::error::Error;
use redis::Value;
use tokio::sync::Notify;

use super::server::{Server, options};
use super::{BASE, command, text};

/// A producer and what it is answered.
struct Counter {
    pending: Pending,
    outgoing: Arc<Outgoing>,
    inbox: Arc<Inbox>,
}

fn enqueue() -> &'static Function {
    Protocol::get().function("enqueue").unwrap()
}

fn task(args: &mut Args, id: &str) {
    for field in [id, "task", "default", "[]", "", ""] {
        args.push(field);
    }
}

impl Counter {
    fn open(server: &Server) -> Self {
        Self::on(server.link())
    }

    fn on(link: Link) -> Self {
        let inbox = Arc::new(Inbox::new().unwrap());
        let outgoing = Arc::new(Outgoing::new(Dispatcher::new(link, BASE), inbox.clone()));
        Self { pending: Pending::default(), outgoing, inbox }
    }

    fn submit(&mut self, ticket: u64, id: &str, repeat: bool) {
        let write = |args: &mut Args| {
            task(args, id);
            Ok::<_, Error>(())
        };
        self.pending.submit(enqueue(), repeat, ticket, write).unwrap();
    }

    fn flush(&mut self) {
        let chunks = self.pending.take();
        self.send(chunks);
    }

    fn send(&self, chunks: Vec<Chunk>) {
        for _ in 0..self.outgoing.line_up(chunks) {
            tokio::spawn(self.outgoing.clone().send());
        }
    }

    /// Waits for so many answers to single records, in the order they come: ticket and answer.
    async fn answers(&self, count: usize) -> Vec<(u64, Result<String, Error>)> {
        let start = Instant::now();
        let mut answers = Vec::new();
        while answers.len() < count {
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {count} answers");
            tokio::time::sleep(Duration::from_millis(1)).await;
            for (_, event) in self.inbox.take() {
                match event {
                    Event::Replies { tickets, values } => {
                        answers.extend(tickets.into_iter().zip(values.iter().map(|value| Ok(text(value)))));
                    }
                    Event::Failures { tickets, error } => {
                        answers.extend(tickets.into_iter().map(|ticket| (ticket, Err(error.clone()))));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        answers
    }

    async fn event(&self) -> Event {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain");
            tokio::time::sleep(Duration::from_millis(1)).await;
            if let Some((_, event)) = self.inbox.take().pop() {
                return event;
            }
        }
    }
}

async fn ready(server: &Server) -> Vec<String> {
    let key = format!("{BASE}ready:default");
    match command(&server.link(), &["LRANGE", &key, "0", "-1"]).await {
        Value::Array(ids) => ids.iter().map(text).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_flushed_together_leaves_together_and_in_order() {
    let server = Server::start();
    let mut counter = Counter::open(&server);
    let ids: Vec<_> = (0..1000).map(|i| format!("t{i}")).collect();
    for (ticket, id) in ids.iter().enumerate() {
        counter.submit(ticket as u64, id, true);
        if ticket % 10 == 0 {
            counter.flush();
        }
    }
    counter.flush();
    let answers = counter.answers(1000).await;
    assert!(
        answers.iter().enumerate().all(|(i, (ticket, answer))| *ticket == i as u64 && *answer == Ok("queued".into()))
    );
    assert_eq!(ready(&server).await, ids);
    let calls = text(&command(&server.link(), &["INFO", "commandstats"]).await);
    let called = |command| calls.split_once(&format!("cmdstat_{command}:calls=")).map(|(_, rest)| rest.to_owned());
    let calls = called("fcall").or_else(|| called("evalsha")).unwrap();
    let calls: u32 = calls.split(',').next().unwrap().parse().unwrap();
    assert!((4..10).contains(&calls), "{calls} calls");
}

#[tokio::test]
async fn a_large_batch_has_one_answer() {
    let server = Server::start();
    let counter = Counter::open(&server);
    let mut records = Args::default();
    (0..1000).for_each(|i| task(&mut records, &format!("t{i}")));
    counter.send(producer::split(enqueue(), true, 7, &records).unwrap());
    match counter.event().await {
        Event::Reply { ticket: 7, value: Value::Array(values) } => {
            assert!(values.len() == 1000 && values.iter().all(|value| text(value) == "queued"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(ready(&server).await.len(), 1000);
}

#[tokio::test]
async fn a_batch_that_fails_in_part_says_what_was_accepted() {
    let server = Server::start();
    let counter = Counter::open(&server);
    let mut records = Args::default();
    // The third call holds a record that is refused, and with it the call.
    (0..1000).for_each(|i| task(&mut records, &if i == 600 { String::new() } else { format!("t{i}") }));
    counter.send(producer::split(enqueue(), true, 7, &records).unwrap());
    match counter.event().await {
        Event::Partly { ticket: 7, error, accepted } => {
            assert!(error.is("BAD_ARGUMENT"), "{error}");
            assert!(accepted[..500].iter().all(|value| value.as_ref().map(text) == Some("queued".into())));
            let not_sent = Some(Value::Boolean(false));
            assert!(accepted[500..750].iter().all(|value| *value == not_sent));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_record_of_the_wrong_width_is_refused_before_the_network() {
    let mut pending = Pending::default();
    let write = |args: &mut Args| {
        args.push("only");
        Ok::<_, Error>(())
    };
    assert!(matches!(pending.submit(enqueue(), true, 1, write), Err(Error::Argument(_))));
    assert!(pending.take().is_empty());
    assert!(producer::split(enqueue(), true, 1, &Args::from_iter(["a", "b"])).is_err());
    assert!(producer::split(Protocol::get().function("complete").unwrap(), true, 1, &Args::default()).is_err());
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_where_that_is_harmless() {
    let server = Server::start();
    // A call has the time for another connection.
    let patient =
        Options { response_timeout: Duration::from_secs(1), broker_timeout: Duration::from_secs(20), ..options() };
    let mut counter = Counter::on(Link::new(Connector::new(&server.url(), patient).unwrap()));
    counter.submit(0, "first", true);
    counter.flush();
    counter.answers(1).await;
    server.freeze();
    counter.submit(1, "again", true);
    counter.submit(2, "never", false);
    counter.flush();
    // Both were sent and are carried out later; nobody hears of it.
    tokio::time::sleep(patient.response_timeout + Duration::from_millis(500)).await;
    server.resume();
    let mut answers = counter.answers(2).await;
    answers.sort_by_key(|(ticket, _)| *ticket);
    assert_eq!(answers[0].1, Ok("accepted".to_owned()));
    assert!(answers[1].1.as_ref().is_err_and(Error::maybe_sent), "{answers:?}");
    assert_eq!(ready(&server).await, ["first", "again", "never"]);
}

#[tokio::test]
async fn nobody_waits_long_for_a_server_that_is_away() {
    let mut server = Server::start();
    server.kill();
    let mut counter = Counter::open(&server);
    let start = Instant::now();
    for ticket in 0..5000 {
        counter.submit(ticket, &format!("t{ticket}"), true);
    }
    counter.flush();
    let answers = counter.answers(5000).await;
    let unsent = |error: &Error| matches!(error, Error::Broker { maybe_sent: false, .. });
    assert!(answers.iter().all(|(_, answer)| answer.as_ref().is_err_and(unsent)));
    assert!(start.elapsed() < options().broker_timeout * 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn each_connection_reads_a_mailbox_of_its_own() {
    let server = Server::start();
    let counter = Counter::open(&server);
    let dispatcher = Dispatcher::new(server.link(), BASE);
    let listening = tokio::spawn(mailbox::listen(dispatcher, counter.inbox.clone(), "me".to_owned(), Arc::default()));
    for generation in 1..=2 {
        let mailbox = format!("me:{generation}");
        loop {
            match counter.event().await {
                Event::Listening(name) => break assert_eq!(name, mailbox),
                Event::Log(..) => {}
                other => panic!("{other:?}"),
            }
        }
        let key = Protocol::get().key("mailbox", BASE, &mailbox);
        command(&server.link(), &["RPUSH", &key, "8:finished,2:t1,"]).await;
        match counter.event().await {
            Event::Message(fields) => assert_eq!(fields, [&b"finished"[..], b"t1"]),
            other => panic!("{other:?}"),
        }
        command(&server.link(), &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    }
    listening.abort();
}

#[tokio::test]
async fn a_mailbox_is_delivered_in_order() {
    const MESSAGES: usize = 2000;
    let server = Server::start();
    let link = server.link();
    let numbers: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let words: Vec<&str> = ["RPUSH", "mailbox"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    command(&link, &words).await;
    let connection = server.link().connector().dedicated().await.unwrap();
    let delivered = Mutex::new(Vec::new());
    let all = Notify::new();
    let deliver = |message: &[u8]| {
        let mut delivered = delivered.lock().unwrap();
        delivered.push(String::from_utf8(message.to_vec()).unwrap());
        if delivered.len() == MESSAGES {
            all.notify_one();
        }
    };
    tokio::select! {
        () = all.notified() => {}
        error = mailbox::read(&connection, "mailbox", Duration::from_secs(10), deliver) => panic!("{error}"),
    }
    assert_eq!(*delivered.lock().unwrap(), numbers);
}
