use std::time::{Duration, Instant};

use _core::wire::connection::{Connector, Link, Options};
use _core::wire::error::Error;
use redis::Value;

use super::server::{Server, connector, free_port, link, options};
use super::{command, try_command, user};

fn broker(error: &Error) -> (&str, bool) {
    match error {
        Error::Broker { message, maybe_sent } => (message, *maybe_sent),
        other => panic!("not a broker error: {other:?}"),
    }
}

#[tokio::test]
async fn by_port_and_by_socket() {
    let server = Server::start();
    assert_eq!(command(&server.link(), &["ECHO", "x"]).await, Value::BulkString(b"x".to_vec()));
    let socket = link(&format!("unix://{}?db=3", server.socket().display()));
    command(&socket, &["SET", "k", "v"]).await;
    assert_eq!(command(&link(&format!("{}/3", server.url())), &["GET", "k"]).await, Value::BulkString(b"v".to_vec()));
    assert_eq!(command(&server.link(), &["GET", "k"]).await, Value::Nil);
}

#[tokio::test]
async fn nobody_there_is_told_within_the_timeout() {
    let start = Instant::now();
    let link = link(&format!("redis://127.0.0.1:{}", free_port()));
    let error = try_command(&link, &["PING"]).await.unwrap_err();
    let (message, maybe_sent) = broker(&error);
    assert!(message.contains("refused") && !maybe_sent, "{message}");
    assert!(start.elapsed() <= options().broker_timeout + Duration::from_millis(200), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_comes_up_meanwhile_is_found() {
    let mut server = Server::start();
    server.kill();
    let link = server.link();
    let (answer, ()) = tokio::join!(try_command(&link, &["PING"]), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.restart();
    });
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn a_restart_between_two_calls_goes_unnoticed() {
    let mut server = Server::start();
    let link = server.link();
    command(&link, &["PING"]).await;
    let first = link.connection().await.unwrap();
    server.restart();
    // The end of the connection is an event like any other.
    tokio::time::timeout(Duration::from_secs(5), first.closed()).await.unwrap();
    assert!(!first.is_alive());
    assert_eq!(broker(&first.query(&redis::cmd("PING")).await.unwrap_err()), ("the connection is closed", false));
    command(&link, &["PING"]).await;
    assert!(link.connection().await.unwrap().generation() > first.generation());
}

#[tokio::test]
async fn a_call_cut_off_may_have_been_carried_out() {
    let mut server = Server::start();
    let link = server.link();
    command(&link, &["PING"]).await;
    server.freeze();
    let (answer, ()) = tokio::join!(try_command(&link, &["INCR", "n"]), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.kill();
    });
    let error = answer.unwrap_err();
    assert!(broker(&error).1, "{error}");
    server.restart();
    command(&link, &["PING"]).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = Server::start();
    let limits = Options { response_timeout: Duration::from_millis(200), ..options() };
    let link = Link::new(Connector::new(&server.url(), limits).unwrap());
    let before = link.connection().await.unwrap();
    server.freeze();
    let error = try_command(&link, &["INCR", "n"]).await.unwrap_err();
    assert_eq!(broker(&error), ("no answer within 200 ms", true));
    server.resume();
    command(&link, &["PING"]).await;
    assert!(link.connection().await.unwrap().generation() > before.generation());
}

#[tokio::test]
async fn a_dedicated_connection_waits_as_long_as_the_command() {
    let mut server = Server::start();
    let limits = Options { response_timeout: Duration::from_millis(50), ..options() };
    let blocking = Connector::new(&server.url(), limits).unwrap().dedicated().await.unwrap();
    assert_eq!(blocking.query(redis::cmd("BLPOP").arg("none").arg("0.3")).await, Ok(Value::Nil));
    let mut forever = redis::cmd("BLPOP");
    forever.arg("none").arg(0);
    let (answer, ()) = tokio::join!(blocking.query(&forever), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.kill();
    });
    assert!(answer.is_err());
    blocking.closed().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once() {
    let server = Server::start_with(&["--requirepass", "right"]);
    for (url, told) in [
        (server.url(), "requires a password"),
        (format!("redis://:wrong@127.0.0.1:{}", server.port), "rejects the user or password"),
        (format!("redis://nobody:right@127.0.0.1:{}", server.port), "rejects the user or password"),
    ] {
        let start = Instant::now();
        let error = try_command(&link(&url), &["PING"]).await.unwrap_err();
        let Error::Forbidden { message, maybe_sent: false } = &error else { panic!("{error:?}") };
        assert!(message.contains(told) && !message.contains("wrong@"), "{message}");
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    }
    command(&link(&format!("redis://:right@127.0.0.1:{}", server.port)), &["PING"]).await;
}

#[tokio::test]
async fn a_forbidden_command_is_named_with_the_remedy() {
    let server = Server::start();
    user(&server.link(), &["+ping"]).await;
    let link = link(&format!("redis://me:secret@127.0.0.1:{}", server.port));
    command(&link, &["PING"]).await;
    let error = try_command(&link, &["GET", "k"]).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { maybe_sent: false, .. }), "{error:?}");
    assert!(error.to_string().contains("ACL SETUSER"), "{error}");
}

#[tokio::test]
async fn a_replica_is_told_and_its_promotion_noticed() {
    let server = Server::start();
    let link = server.link();
    command(&link, &["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
    let error = try_command(&link, &["SET", "k", "v"]).await.unwrap_err();
    let (message, maybe_sent) = broker(&error);
    assert!(message.contains("read-only replica") && !maybe_sent, "{message}");
    let other = server.link();
    let (answer, _) = tokio::join!(try_command(&link, &["SET", "k", "v"]), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        command(&other, &["REPLICAOF", "NO", "ONE"]).await
    });
    assert_eq!(answer, Ok(Value::Okay));
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let server = Server::start();
    let link = server.link();
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { command(&link, &["INCR", "n"]).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(command(&link, &["GET", "n"]).await, Value::BulkString(b"500".to_vec()));
    let clients = command(&link, &["CLIENT", "LIST"]).await;
    assert_eq!(super::text(&clients).trim().lines().count(), 1);
}

#[tokio::test]
async fn the_server_sees_who_is_connected() {
    let server = Server::start();
    let connection = connector(&server.url()).connect().await.unwrap();
    if connection.server().version >= Some((7, 2, 0)) {
        let info = connection.query(redis::cmd("CLIENT").arg("INFO")).await.unwrap();
        assert!(super::text(&info).contains("lib-name=ardiq "), "{info:?}");
    }
}
